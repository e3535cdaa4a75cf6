//! What sampling does to a whole row of logits: passes over a vocabulary, vectorized.
//!
//! No pass uses a fused multiply-add and every reduction has a fixed order, so all instruction sets
//! give the same bits; nothing here depends on another row.
#![expect(clippy::inline_always, reason = "inlined into code compiled for an instruction set")]

mod philox;
mod race;
#[cfg(test)]
mod tests;

pub use philox::TokenNoise;
pub use race::Race;

use std::cmp::Ordering;

use crate::cpu::{Isa, Kernel};
use crate::math::LANES;

/// Values that one step of a search looks at before it looks at single ones.
const BLOCK: usize = 64;
/// Values of which the greatest is remembered by its block; small enough to stay in the cache.
const SCAN_BLOCK: usize = 1024;
// Loops over lanes count: compilers keep the lanes in registers only where they see their number.
/// What a weight of one counts in [`mass`].
const MASS_OF_ONE: f64 = 4_294_967_296.0;

/// What one pass over a row says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scan {
    /// The greatest value; `-inf` if there is none.
    pub max: f32,
    /// Its index, the lowest of several.
    pub argmax: usize,
    /// Whether something can be sampled: no NaN, no `+inf`, and not only `-inf`.
    pub is_usable: bool,
}

/// Looks at each logit once. Nothing of an empty row is usable.
pub fn scan(logits: &[f32]) -> Scan {
    Isa::detected().run(ScanKernel(logits))
}

/// `exp((logit - max) / temperature)` of each logit, into `out`; none is greater than `max`.
pub fn weights(logits: &[f32], max: f32, temperature: f32, out: &mut Vec<f32>) {
    out.resize(logits.len(), 0.0);
    Isa::detected().run(WeightsKernel { logits, max, temperature, out });
}

/// `ln(sum(exp(logits)))`, where `max` is the greatest of them.
pub fn log_sum_exp(logits: &[f32], max: f32) -> f64 {
    f64::from(max) + Isa::detected().run(SumExpKernel { logits, max }).ln()
}

/// The weight as an integer of which a weight of one is `2^32`: sums of up to `2^21` of them are
/// exact, whatever their order.
pub fn mass(weight: f32) -> f64 {
    (f64::from(weight) * MASS_OF_ONE).floor()
}

/// The sum of the [`mass`] of all weights.
pub fn total_mass(weights: &[f32]) -> f64 {
    Isa::detected().run(MassKernel(weights))
}

/// The least weight that certainly counts `mass`, or a little less.
pub fn weight_of_mass(mass: f64) -> f32 {
    (mass / MASS_OF_ONE * (1.0 - 1e-6)) as f32
}

/// The indexes of the values that are at least `threshold`, ascending, into `out`.
pub fn at_least(values: &[f32], threshold: f32, out: &mut Vec<u32>) {
    out.clear();
    Isa::detected().run(AtLeastKernel { values, threshold, out });
}

/// The indexes of the `k` greatest values, in any order, into `out`; of equal values the first
/// ones. No value is NaN.
pub fn largest(values: &[f32], k: usize, out: &mut Vec<u32>) {
    out.clear();
    if values.len() <= k {
        out.extend(0..values.len() as u32);
    } else if 0 < k {
        Isa::detected().run(LargestKernel { values, k, out });
    }
}

/// `e^x` for `x <= 0`, within three units in the last place; zero below -87. Written out because
/// that of the C library differs between machines.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    /// Adding it rounds to an integer, which is then in the last bits.
    const ROUND: f32 = 12_582_912.0;
    let clamped = if x < -87.0 { -87.0 } else { x };
    let rounded = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = (clamped - n * LN_2_HIGH) - n * LN_2_LOW;
    let coefficients =
        [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let mut power = 0.0;
    for c in coefficients {
        power = power * r + c;
    }
    let exponent = rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    let value = power * f32::from_bits(exponent << 23);
    if x < -87.0 { 0.0 } else { value }
}

#[inline(always)]
fn greater(a: f32, b: f32) -> f32 {
    if a < b { b } else { a }
}

/// The greatest of the values; NaN is passed over.
#[inline(always)]
fn max_of(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = greater(lanes[lane], chunk[lane]);
        }
    }
    let all = lanes.iter().chain(rest);
    all.fold(f32::NEG_INFINITY, |max, &value| greater(max, value))
}

struct ScanKernel<'a>(&'a [f32]);

impl Kernel for ScanKernel<'_> {
    type Output = Scan;

    #[inline(always)]
    fn run<const FMA: bool>(self) -> Scan {
        let (mut max, mut from, mut has_bad) = (f32::NEG_INFINITY, 0, false);
        for (index, block) in self.0.chunks(SCAN_BLOCK).enumerate() {
            has_bad |= has_nan_or_infinity(block);
            let block_max = max_of(block);
            if max < block_max {
                (max, from) = (block_max, index * SCAN_BLOCK);
            }
        }
        let rest = self.0.get(from..).unwrap_or_default();
        let argmax = from + rest.iter().position(|&value| max <= value).unwrap_or(0);
        Scan { max, argmax, is_usable: !has_bad && max != f32::NEG_INFINITY }
    }
}

/// Whether a value is NaN or `+inf`: without their sign, the bits of both are at least those of
/// infinity; so are those of `-inf`, which is left out.
#[inline(always)]
fn has_nan_or_infinity(values: &[f32]) -> bool {
    let mut greatest = [0u32; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            let bits = chunk[lane].to_bits();
            let is_impossible = bits == f32::NEG_INFINITY.to_bits();
            let magnitude = if is_impossible { 0 } else { bits & i32::MAX.cast_unsigned() };
            greatest[lane] = greatest[lane].max(magnitude);
        }
    }
    let is_bad = |value: &f32| value.is_nan() || *value == f32::INFINITY;
    greatest.iter().any(|bits| f32::INFINITY.to_bits() <= *bits) || rest.iter().any(is_bad)
}

struct WeightsKernel<'a> {
    logits: &'a [f32],
    max: f32,
    temperature: f32,
    out: &'a mut [f32],
}

impl Kernel for WeightsKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        for (out, &logit) in self.out.iter_mut().zip(self.logits) {
            *out = exp((logit - self.max) / self.temperature);
        }
    }
}

struct SumExpKernel<'a> {
    logits: &'a [f32],
    max: f32,
}

impl Kernel for SumExpKernel<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<const FMA: bool>(self) -> f64 {
        let mut lanes = [0.0f64; LANES];
        let (chunks, rest) = self.logits.as_chunks::<LANES>();
        for chunk in chunks {
            for lane in 0..LANES {
                lanes[lane] += f64::from(exp(chunk[lane] - self.max));
            }
        }
        let rest = rest.iter().map(|&logit| f64::from(exp(logit - self.max)));
        lanes.into_iter().chain(rest).fold(0.0, |sum, part| sum + part)
    }
}

struct MassKernel<'a>(&'a [f32]);

impl Kernel for MassKernel<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<const FMA: bool>(self) -> f64 {
        let mut lanes = [0.0f64; LANES];
        let (chunks, rest) = self.0.as_chunks::<LANES>();
        for chunk in chunks {
            for lane in 0..LANES {
                lanes[lane] += (f64::from(chunk[lane]) * MASS_OF_ONE).floor();
            }
        }
        let rest = rest.iter().map(|&weight| mass(weight));
        lanes.into_iter().chain(rest).fold(0.0, |sum, part| sum + part)
    }
}

struct AtLeastKernel<'a> {
    values: &'a [f32],
    threshold: f32,
    out: &'a mut Vec<u32>,
}

impl Kernel for AtLeastKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        for (index, block) in self.values.chunks(BLOCK).enumerate() {
            if self.threshold <= max_of(block) {
                let ids = (index * BLOCK..).zip(block);
                let ids = ids.filter(|(_, value)| self.threshold <= **value);
                self.out.extend(ids.map(|(id, _)| id as u32));
            }
        }
    }
}

struct LargestKernel<'a> {
    values: &'a [f32],
    k: usize,
    out: &'a mut Vec<u32>,
}

impl LargestKernel<'_> {
    /// Drops all but the `k` best, and says how great the least of them is.
    #[inline(always)]
    fn shrink(&mut self) -> f32 {
        let Self { values, k, .. } = *self;
        let value = |id: u32| values[id as usize];
        let best_first = |a: &u32, b: &u32| {
            value(*b).partial_cmp(&value(*a)).unwrap_or(Ordering::Equal).then(a.cmp(b))
        };
        let (_, last, _) = self.out.select_nth_unstable_by(k - 1, best_first);
        let least = value(*last);
        self.out.truncate(k);
        least
    }
}

impl Kernel for LargestKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(mut self) {
        let full = self.k + self.k.max(BLOCK * 4);
        // Once `k` are held, what is not greater than the least of them comes too late.
        let mut beaten = None;
        for (index, block) in self.values.chunks(BLOCK).enumerate() {
            if beaten.is_some_and(|least| max_of(block) <= least) {
                continue;
            }
            let ids = (index * BLOCK..).zip(block);
            let ids = ids.filter(|(_, value)| beaten.is_none_or(|least| least < **value));
            self.out.extend(ids.map(|(id, _)| id as u32));
            if full <= self.out.len() {
                beaten = Some(self.shrink());
            }
        }
        self.shrink();
    }
}
