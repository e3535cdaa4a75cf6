//! One step of a softmax whose scores arrive tile by tile.
#![expect(clippy::inline_always, reason = "inlined into code compiled for an instruction set")]

use std::ops::Range;

use super::tile::KEYS;
use crate::cpu::Kernel;
use crate::math::{LANES, exp, fold, mul_add, tanh};

/// What a query has seen so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Running {
    /// The greatest score.
    max: f32,
    /// Sums of `exp(score - max)`, over every [`LANES`]th key.
    sums: [f32; LANES],
}

impl Running {
    /// Nothing yet but a sink, if there is one.
    pub(super) fn new(sink: Option<f32>) -> Self {
        let mut sums = [0f32; LANES];
        sums[0] = if sink.is_some() { 1.0 } else { 0.0 };
        Self { max: sink.unwrap_or(f32::NEG_INFINITY), sums }
    }

    /// The sum of `exp(score - max)`.
    pub(super) fn sum(&self) -> f32 {
        fold(self.sums, |a, b| a + b)
    }
}

/// Turns the scores of a tile, bent towards a cap first if there is one, into weights, and updates
/// what the queries have seen.
///
/// Keys outside `visible` get the weight zero. The sum is taken in an order that depends on the
/// places of the keys only. Writes the factors for what was accumulated before.
pub(super) struct SoftmaxTile<'a> {
    /// A row a query.
    pub(super) scores: &'a mut [[f32; KEYS]],
    pub(super) visible: Range<usize>,
    pub(super) cap: Option<f32>,
    pub(super) running: &'a mut [Running],
    pub(super) factors: &'a mut [f32],
}

impl Kernel for SoftmaxTile<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Self { scores, visible, cap, running, factors } = self;
        if let Some(cap) = cap {
            for score in scores.iter_mut().flatten() {
                *score = cap * tanh::<FMA>(*score / cap);
            }
        }
        if visible != (0..KEYS) {
            scores.iter_mut().for_each(|scores| hide(scores, &visible));
        }
        for ((scores, running), factor) in scores.iter().zip(&mut *running).zip(&mut *factors) {
            let max = running.max.max(greatest(scores));
            // Taken apart from the rest, so that many go side by side.
            *factor = if max.to_bits() == running.max.to_bits() { 0.0 } else { running.max - max };
            running.max = max;
        }
        for factor in &mut *factors {
            *factor = exp::<FMA>(*factor);
        }
        for ((scores, running), factor) in scores.iter_mut().zip(running).zip(factors) {
            let mut sums = [0f32; LANES];
            for part in scores.chunks_exact_mut(LANES) {
                for (sum, score) in sums.iter_mut().zip(part) {
                    let weight = exp::<FMA>(*score - running.max);
                    *score = if *score == f32::NEG_INFINITY { 0.0 } else { weight };
                    *sum += *score;
                }
            }
            for (running, sum) in running.sums.iter_mut().zip(sums) {
                *running = mul_add::<FMA>(*running, *factor, sum);
            }
        }
    }
}

#[inline(always)]
fn hide(scores: &mut [f32; KEYS], visible: &Range<usize>) {
    let (start, end) = (visible.start as u32, visible.end as u32);
    for (key, score) in scores.iter_mut().enumerate() {
        // One comparison for both ends.
        let seen = (key as u32).wrapping_sub(start) < end - start;
        *score = if seen { *score } else { f32::NEG_INFINITY };
    }
}

/// The greatest score that is a number.
#[inline(always)]
fn greatest(scores: &[f32; KEYS]) -> f32 {
    let mut greatest = [f32::NEG_INFINITY; LANES];
    for part in scores.chunks_exact(LANES) {
        for (greatest, &score) in greatest.iter_mut().zip(part) {
            *greatest = if score > *greatest { score } else { *greatest };
        }
    }
    fold(greatest, f32::max)
}
