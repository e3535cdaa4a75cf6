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
