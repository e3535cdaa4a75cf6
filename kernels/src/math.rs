//! Scalar functions that compilers vectorize.
#![expect(clippy::inline_always, reason = "inlined into code compiled for an instruction set")]

/// Whether code without detected instructions has a fused multiply-add.
pub(crate) const PORTABLE_FUSES: bool = cfg!(any(target_feature = "fma", target_arch = "aarch64"));

/// `a * b + c`, rounded once if `FMA` says that the processor does it in one instruction.
#[inline(always)]
pub(crate) fn mul_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Lanes of a reduction: a fixed number, so that its order never depends on the processor.
pub(crate) const LANES: usize = 16;

/// The sum, in an order that depends on the length only.
#[inline(always)]
pub(crate) fn sum(values: &[f32]) -> f32 {
    let mut sums = [0f32; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        sums.iter_mut().zip(chunk).for_each(|(sum, x)| *sum += x);
    }
    sums.iter_mut().zip(rest).for_each(|(sum, x)| *sum += x);
    fold(sums, |a, b| a + b)
}

/// The sum of squares, in an order that depends on the length only.
#[inline(always)]
pub(crate) fn sum_of_squares<const FMA: bool>(values: &[f32]) -> f32 {
    let mut sums = [0f32; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (sum, &x) in sums.iter_mut().zip(chunk) {
            *sum = mul_add::<FMA>(x, x, *sum);
        }
    }
    for (sum, &x) in sums.iter_mut().zip(rest) {
        *sum = mul_add::<FMA>(x, x, *sum);
    }
    fold(sums, |a, b| a + b)
}

/// Folds lanes by halves.
#[inline(always)]
pub(crate) fn fold(mut lanes: [f32; LANES], combine: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = combine(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
const ROUND: f32 = 12_582_912.0;

/// `e^x` within 2 units in the last place between -87.3 and 88.3, constant beyond; NaN stays NaN.
///
/// The argument is split into `n ln 2 + r`; `e^r` is the polynomial of Cephes' `expf`.
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    // Comparisons that a NaN fails, so that it passes through.
    let x = if x < -87.3 { -87.3 } else { x };
    let x = if x > 88.3 { 88.3 } else { x };
    let shifted = mul_add::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = mul_add::<FMA>(n, -0.693_359_4, x);
    let r = mul_add::<FMA>(n, 2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = mul_add::<FMA>(p, r, c);
    }
    let p = mul_add::<FMA>(p, r * r, r) + 1.0;
    let scale = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    p * scale
}

/// `tanh(x)` within 3 units in the last place; NaN stays NaN.
///
/// The polynomial of Cephes' `tanhf` near zero, an exponential elsewhere.
#[inline(always)]
pub(crate) fn tanh<const FMA: bool>(x: f32) -> f32 {
    let square = x * x;
    let mut p = -5.704_988_7e-3;
    for c in [2.063_909e-2, -5.373_971_5e-2, 1.333_144_2e-1, -3.333_328e-1] {
        p = mul_add::<FMA>(p, square, c);
    }
    let near = mul_add::<FMA>(p * square, x, x);
    let far = 1.0 - 2.0 / (exp::<FMA>(2.0 * x.abs()) + 1.0);
    if x.abs() < 0.625 { near } else { far.copysign(x) }
}

/// `exp(-z * z)` times a polynomial: the complementary error function, off by at most about one part
/// in a million of itself, from Numerical Recipes (`erfcc`).
#[inline(always)]
pub(crate) fn erfc<const FMA: bool>(x: f32) -> f32 {
    let z = x.abs();
    let t = 1.0 / mul_add::<FMA>(0.5, z, 1.0);
    let mut p = 0.170_872_77;
    for c in [
        -0.822_152_23,
        1.488_515_9,
        -1.135_204,
        0.278_868_07,
        -0.186_288_06,
        0.096_784_18,
        0.374_091_96,
        1.000_023_7,
        -1.265_512_2,
    ] {
        p = mul_add::<FMA>(p, t, c);
    }
    let tail = t * exp::<FMA>(mul_add::<FMA>(-z, z, p));
    if x < 0.0 { 2.0 - tail } else { tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let mut worst = 0f64;
        for i in -87_300..88_300 {
            let x = i as f32 * 1e-3;
            let exact = f64::from(x).exp();
            let unit = f64::from(f32::from_bits((exact as f32).to_bits() + 1) - exact as f32);
            worst = worst.max((f64::from(exp::<false>(x)) - exact).abs() / unit);
        }
        assert!(worst <= 2.0, "off by {worst} units");
        assert_eq!(exp::<false>(0.0).to_bits(), 1f32.to_bits());
        assert!(exp::<false>(f32::NAN).is_nan());
        assert!(exp::<false>(f32::NEG_INFINITY) < 2e-38 && exp::<false>(1e9) > 1e38);
    }

    #[test]
    fn tanh_is_within_three_units_in_the_last_place() {
        for i in -20_000..20_000 {
            let x = i as f32 * 1e-3;
            let exact = f64::from(x).tanh();
            let unit = f64::from(f32::EPSILON) * exact.abs().max(1e-30);
            let gap = (f64::from(tanh::<false>(x)) - exact).abs();
            assert!(gap <= 3.0 * unit, "tanh({x}) is off by {gap}");
        }
        assert!(tanh::<false>(f32::NAN).is_nan());
        let ends = [f32::INFINITY, f32::NEG_INFINITY].map(tanh::<false>);
        assert_eq!(ends.map(f32::to_bits), [1f32, -1.0].map(f32::to_bits));
    }

    #[test]
    fn erfc_is_right_to_a_part_in_a_million() {
        // Integer points, from tables.
        let table = [(-1.0, 1.842_700_8), (0.0, 1.0), (0.5, 0.479_500_12), (1.0, 0.157_299_2)];
        for (x, exact) in table.into_iter().chain([(2.0, 4.677_735e-3), (3.0, 2.209_05e-5)]) {
            let gap = (erfc::<false>(x) - exact).abs();
            assert!(gap <= 2e-6 * exact, "erfc({x}) is off by {gap}");
        }
        assert!(erfc::<false>(f32::NAN).is_nan());
    }

    #[test]
    fn sums_of_squares_cover_every_length() {
        for len in 0..70 {
            let values: Vec<f32> = (1..=len).map(|i| i as f32).collect();
            let expected = (len * (len + 1) * (2 * len + 1) / 6) as f32;
            assert!(
                (sum_of_squares::<false>(&values) - expected).abs() <= expected * 1e-6,
                "{len}"
            );
        }
    }
}
