//! The exponential race: of all candidates, the one with the smallest `-ln(u) / weight` wins, which
//! is each with a probability proportional to its weight.
#![expect(clippy::inline_always, reason = "inlined into code compiled for an instruction set")]

use std::cmp::Ordering;

use super::BLOCK;
use super::philox::{TokenNoise, WIDTH};
use crate::cpu::{Isa, Kernel};

/// A race among tokens. Who enters first does not matter.
#[derive(Clone, Debug)]
pub struct Race {
    winner: u32,
    time: f64,
    min_weight: f32,
    noise: TokenNoise,
}

impl Race {
    /// A race that `favourite` wins if nobody else can. Weights below `min_weight`, and zero, stay
    /// out.
    pub fn new(favourite: u32, min_weight: f32, noise: TokenNoise) -> Self {
        Self { winner: favourite, time: f64::INFINITY, min_weight, noise }
    }

    /// Lets one token run.
    pub fn enter(&mut self, id: u32, weight: f32) {
        if weight == 0.0 || weight < self.min_weight {
            return;
        }
        let (weight, u) = (f64::from(weight), self.noise.uniform(id));
        // `-ln(u) >= 1 - u`, so most candidates need no logarithm.
        if self.time * weight < 1.0 - u {
            return;
        }
        let time = -u.ln() / weight;
        if time.total_cmp(&self.time).then(id.cmp(&self.winner)) == Ordering::Less {
            (self.winner, self.time) = (id, time);
        }
    }

    /// Lets every token run: `weights` has one for each.
    pub fn enter_all(&mut self, weights: &[f32]) {
        Isa::detected().run(AllKernel { race: self, weights });
    }

    /// Who is first.
    pub fn winner(&self) -> u32 {
        self.winner
    }
}

/// Blocks in which nobody can be faster than the fastest so far are left after one look.
pub(super) struct AllKernel<'a> {
    pub(super) race: &'a mut Race,
    pub(super) weights: &'a [f32],
}

impl Kernel for AllKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Self { race, weights } = self;
        let (blocks, rest) = weights.as_chunks::<BLOCK>();
        for (index, block) in blocks.iter().enumerate() {
            if may_win(race, index, block) {
                enter(race, index, block);
            }
        }
        enter(race, blocks.len(), rest);
    }
}

/// False only if `Race::enter` would pass over every token of the block.
#[inline(always)]
fn may_win(race: &Race, index: usize, block: &[f32; BLOCK]) -> bool {
    /// A margin for `f32`, on both sides of the comparison.
    const MARGIN: f64 = 1e-6;
    const SCALE: f32 = ((1.0 - MARGIN) / 4_294_967_296.0) as f32;
    let time = (race.time * (1.0 + MARGIN)) as f32;
    let words = race.noise.block::<WIDTH>((index * WIDTH) as u32);
    let mut may_win = [0u32; WIDTH];
    for (word, words) in words.iter().enumerate() {
        for lane in 0..WIDTH {
            let least_time = (!words[lane]) as f32 * SCALE;
            let is_slower = time * block[lane * 4 + word] < least_time;
            may_win[lane] |= u32::from(!is_slower);
        }
    }
    may_win.iter().any(|lane| *lane != 0)
}

#[inline(never)]
fn enter(race: &mut Race, index: usize, weights: &[f32]) {
    let first = (index * BLOCK) as u32;
    (first..).zip(weights).for_each(|(id, &weight)| race.enter(id, weight));
}
