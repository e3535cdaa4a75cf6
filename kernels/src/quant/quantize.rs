//! From floats to codes and scales.
//!
//! A least-squares search: for several ways of rounding a block to codes, the scale (and minimum)
//! that fit those codes best; the way with the least error wins. The scales of a span are then
//! rounded to small integers, and fitted once more as a whole.
#![expect(clippy::inline_always, reason = "inlined into code compiled for an instruction set")]

use half::f16;

use super::block::{Block, MAX_SPAN};
use super::{BLOCK, Family, Format};
use crate::cpu::Kernel;

/// Quantizes the part of a row that lies in one span.
pub(super) struct QuantizeSpan<'a> {
    /// The type.
    pub(super) format: Format,
    /// Whole blocks of values.
    pub(super) values: &'a [f32],
}

impl Kernel for QuantizeSpan<'_> {
    type Output = Block;

    #[inline(always)]
    fn run<const FMA: bool>(self) -> Block {
        let mut block = Block::ZERO;
        let limit = 1 << (self.format.bits - 1);
        match self.format.family {
            Family::Plain => {
                for (index, values) in self.values.chunks_exact(BLOCK).enumerate() {
                    let d = if limit == 128 {
                        largest(values) / 127.0
                    } else {
                        fit(values, limit, false)
                    };
                    let d = f16::from_f32(d);
                    block.d[index] = d;
                    let quants = &mut block.quants[index * BLOCK..][..BLOCK];
                    round_all(values, inverse(d.to_f32()), 0.0, [-limit, limit - 1], quants);
                }
            }
            Family::Mins => with_mins(self.values, 2 * limit - 1, &mut block),
            Family::Halves => with_halves(self.values, limit, &mut block),
        }
        block
    }
}

/// Adding 1.5 * 2^23 rounds to an integer, ties to even, and leaves it in the low bits.
const ROUND: f32 = 12_582_912.0;

#[inline(always)]
fn round(x: f32, [low, high]: [i32; 2]) -> i32 {
    let x = x.clamp(-1e6, 1e6) + ROUND;
    (x.to_bits().cast_signed() - ROUND.to_bits().cast_signed()).clamp(low, high)
}

#[inline(always)]
fn round_all(values: &[f32], inverse: f32, min: f32, range: [i32; 2], quants: &mut [i8]) {
    for (quant, &x) in quants.iter_mut().zip(values) {
        *quant = round((x + min) * inverse, range) as i8;
    }
}

#[inline(always)]
fn inverse(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { 1.0 / x }
}

/// The greatest magnitude.
#[inline(always)]
fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0f32, |most, x| if x.abs() > most || x.is_nan() { x.abs() } else { most })
}

/// Lanes of the sums below: a fixed number, so that every path makes the same weights.
const LANES: usize = 8;

/// Sums of products, lane by lane.
#[inline(always)]
fn sums<const N: usize>(len: usize, terms: impl Fn(usize) -> [f32; N]) -> [f32; N] {
    let mut lanes = [[0f32; LANES]; N];
    for start in (0..len).step_by(LANES) {
        for lane in 0..LANES {
            let terms = terms(start + lane);
            for (lanes, term) in lanes.iter_mut().zip(terms) {
                lanes[lane] += term;
            }
        }
    }
    lanes.map(|lanes| lanes.iter().sum())
}

/// The scale that fits `values` with codes from `-limit` to `limit - 1`.
///
/// `favour_large` weighs errors by the square of the value.
#[inline(always)]
fn fit(values: &[f32], limit: i32, favour_large: bool) -> f32 {
    let extreme = values.iter().fold(0f32, |most, &x| if x.abs() > most.abs() { x } else { most });
    if values.iter().any(|x| !x.is_finite()) {
        return f32::NAN;
    }
    if extreme.abs() < 1e-15 {
        return 0.0;
    }
    let mut best = (0.0, f32::NEG_INFINITY);
    for step in -9..=9 {
        let inverse = -(limit as f32 + 0.1 * step as f32) / extreme;
        let [xl, ll] = sums(values.len(), |i| {
            let x = values[i];
            let code = round(x * inverse, [-limit, limit - 1]) as f32;
            let weight = if favour_large { x * x } else { 1.0 };
            [weight * x * code, weight * code * code]
        });
        // What this fit takes off the squared error.
        let gain = if ll > 0.0 { xl * xl / ll } else { 0.0 };
        if gain > best.1 {
            best = (if ll > 0.0 { xl / ll } else { 0.0 }, gain);
        }
    }
    best.0
}

/// Scales for every 16 values, rounded to multiples of one.
#[inline(always)]
fn with_halves(values: &[f32], limit: i32, block: &mut Block) {
    let mut scales = [0f32; 16];
    for (scale, values) in scales.iter_mut().zip(values.chunks_exact(16)) {
        *scale = fit(values, limit, true);
    }
    let extreme = scales.iter().fold(0f32, |most, &x| if x.abs() > most.abs() { x } else { most });
    if scales.iter().any(|scale| scale.is_nan()) {
        block.d[0] = f16::NAN;
        return;
    }
    for (to, &scale) in block.scales.iter_mut().zip(&scales) {
        *to = round(scale * -128.0 * inverse(extreme), [-128, 127]) as i8;
    }
    let mut best = f32::INFINITY;
    let mut d = f16::from_f32(extreme / -128.0);
    for _ in 0..2 {
        let mut quants = [0i8; MAX_SPAN];
        for (index, values) in values.chunks_exact(16).enumerate() {
            let inverse = inverse(d.to_f32() * f32::from(block.scales[index]));
            let quants = &mut quants[index * 16..][..16];
            round_all(values, inverse, 0.0, [-limit, limit - 1], quants);
        }
        let term = |i: usize| f32::from(block.scales[i / 16]) * f32::from(quants[i]);
        let [error, xt, tt] = sums(values.len(), |i| {
            let (x, t) = (values[i], term(i));
            let gap = x - d.to_f32() * t;
            [gap * gap, x * t, t * t]
        });
        if error < best {
            best = error;
            block.d[0] = d;
            block.quants = quants;
        }
        d = f16::from_f32(xt * inverse(tt));
    }
}

/// Scales and minimums for every 32 values, rounded to multiples of two numbers.
#[inline(always)]
fn with_mins(values: &[f32], max: i32, block: &mut Block) {
    if values.iter().any(|x| !x.is_finite()) {
        block.d = [f16::NAN; 2];
        return;
    }
    let (mut scales, mut mins) = ([0f32; 8], [0f32; 8]);
    for (index, values) in values.chunks_exact(BLOCK).enumerate() {
        [scales[index], mins[index]] = fit_with_min(values, max);
    }
    let most = |values: &[f32; 8]| values.iter().fold(0f32, |most, &x| most.max(x));
    let (scale, min) = (most(&scales), most(&mins));
    for index in 0..8 {
        block.scales[index] = round(scales[index] * 63.0 * inverse(scale), [0, 63]) as i8;
        block.mins[index] = round(mins[index] * 63.0 * inverse(min), [0, 63]).cast_unsigned() as u8;
    }
    let mut best = f32::INFINITY;
    let mut d = [scale / 63.0, min / 63.0].map(f16::from_f32);
    for _ in 0..3 {
        let [d0, d1] = d.map(f16::to_f32);
        let mut quants = [0i8; MAX_SPAN];
        for (index, values) in values.chunks_exact(BLOCK).enumerate() {
            let inverse = inverse(d0 * f32::from(block.scales[index]));
            let min = d1 * f32::from(block.mins[index]);
            let quants = &mut quants[index * BLOCK..][..BLOCK];
            round_all(values, inverse, min, [0, max], quants);
        }
        let [error, tt, tm, mm, xt, xm] = sums(values.len(), |i| {
            let x = values[i];
            let t = f32::from(block.scales[i / BLOCK]) * f32::from(quants[i]);
            let m = f32::from(block.mins[i / BLOCK]);
            let gap = x - (d0 * t - d1 * m);
            [gap * gap, t * t, t * m, m * m, x * t, x * m]
        });
        if error < best {
            best = error;
            block.d = d;
            block.quants = quants;
        }
        // The best `d` and `dmin` for these codes, where there is one pair.
        let determinant = tt * mm - tm * tm;
        let fitted = if determinant > 1e-6 * tt * mm {
            [(xt * mm - xm * tm) / determinant, (xt * tm - xm * tt) / determinant]
        } else {
            [xt * inverse(tt), 0.0]
        };
        if fitted[1] < 0.0 {
            return;
        }
        d = fitted.map(f16::from_f32);
    }
}

/// The scale and minimum that fit `values` with `scale * code - minimum`, codes up to `max`.
#[inline(always)]
fn fit_with_min(values: &[f32], max: i32) -> [f32; 2] {
    let low = values.iter().fold(0f32, |low, &x| low.min(x));
    let high = values.iter().fold(f32::NEG_INFINITY, |high, &x| high.max(x));
    if high <= low {
        return [0.0, -low];
    }
    let [x] = sums(values.len(), |i| [values[i]]);
    let n = values.len() as f32;
    let mut best = ([0f32; 2], f32::INFINITY);
    // Codes may be rounded as if there were up to one fewer or one more of them.
    for step in -10..=10 {
        let steps = (max as f32 + 0.1 * step as f32) / (high - low);
        let code = |i: usize| round((values[i] - low) * steps, [0, max]) as f32;
        let [l, ll, xl] = sums(values.len(), |i| {
            let code = code(i);
            [code, code * code, code * values[i]]
        });
        let determinant = n * ll - l * l;
        let mut fitted = [(n * xl - x * l) / determinant, (l * xl - ll * x) / determinant];
        if !(determinant > 0.0 && fitted[1] >= 0.0) {
            fitted = [xl * inverse(ll), 0.0];
        }
        let [error] = sums(values.len(), |i| {
            let gap = fitted[0] * code(i) - fitted[1] - values[i];
            [gap * gap]
        });
        if error < best.1 {
            best = (fitted, error);
        }
    }
    best.0
}
