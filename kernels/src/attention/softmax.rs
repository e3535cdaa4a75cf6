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
    pub(super) max: f32,
    /// The sum of `exp(score - max)`.
    pub(super) sum: f32,
}

impl Running {
    /// Nothing yet but a sink, if there is one.
    pub(super) fn new(sink: Option<f32>) -> Self {
        match sink {
            Some(max) => Self { max, sum: 1.0 },
            None => Self { max: f32::NEG_INFINITY, sum: 0.0 },
        }
    }
}

/// Bends the scores of a tile towards a cap.
pub(super) struct SoftCap<'a> {
    pub(super) scores: &'a mut [f32; KEYS],
    pub(super) cap: f32,
}

impl Kernel for SoftCap<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        for score in self.scores {
            *score = self.cap * tanh::<FMA>(*score / self.cap);
        }
    }
}

/// Turns the scores of a tile into weights and updates what the query has seen.
///
/// Keys outside `visible` get the weight zero. The sum is taken in an order that depends on the
/// places of the keys only. Returns the factor for what was accumulated before.
pub(super) struct SoftmaxTile<'a> {
    pub(super) scores: &'a mut [f32; KEYS],
    pub(super) visible: Range<usize>,
    pub(super) running: &'a mut Running,
}

impl Kernel for SoftmaxTile<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<const FMA: bool>(self) -> f32 {
        let Self { scores, visible, running } = self;
        let (start, end) = (visible.start as u32, visible.end as u32);
        let mut greatest = [f32::NEG_INFINITY; LANES];
        for (key, score) in scores.iter_mut().enumerate() {
            // One comparison for both ends.
            let seen = (key as u32).wrapping_sub(start) < end - start;
            *score = if seen { *score } else { f32::NEG_INFINITY };
        }
        for part in scores.chunks_exact(LANES) {
            for (greatest, &score) in greatest.iter_mut().zip(part) {
                *greatest = if score > *greatest { score } else { *greatest };
            }
        }
        let greatest = fold(greatest, f32::max);
        let max = running.max.max(greatest);
        let mut sums = [0f32; LANES];
        for part in scores.chunks_exact_mut(LANES) {
            for (sum, score) in sums.iter_mut().zip(part) {
                let weight = exp::<FMA>(*score - max);
                *score = if *score == f32::NEG_INFINITY { 0.0 } else { weight };
                *sum += *score;
            }
        }
        let factor = if max.to_bits() == running.max.to_bits() {
            1.0
        } else {
            exp::<FMA>(running.max - max)
        };
        running.sum = mul_add::<FMA>(running.sum, factor, fold(sums, |a, b| a + b));
        running.max = max;
        factor
    }
}
