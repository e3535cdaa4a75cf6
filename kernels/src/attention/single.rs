//! One token's queries of one key/value head, attending to keys and values where they lie.
//!
//! The arithmetic is that of [`super::tile`], bit for bit; only the copy into a tile is missing,
//! which pays when no other token shares it.
#![expect(clippy::inline_always, reason = "inlined into code compiled for an instruction set")]
#![expect(clippy::needless_range_loop, reason = "the loops that compilers keep in registers")]

use std::ops::Range;

use super::softmax::{Running, SoftmaxTile};
use super::tile::{HeadBlocks, KEYS};
use crate::cpu::{Isa, Kernel};
use crate::kv_cache::KvElement;
use crate::math::mul_add;

/// Keys whose scores are computed side by side; a block holds whole runs of them.
const RUN: usize = 16;

/// Elements of a result that are summed side by side.
const LANES: usize = 32;

/// The widest head.
const MAX_HEAD_DIM: usize = 256;

/// Query heads of one key/value head, at most.
pub(super) const MAX_ROWS: usize = 8;

/// The attention of one token.
pub(super) struct Single<'a, T> {
    pub(super) isa: Isa,
    pub(super) head: HeadBlocks<'a, T>,
    pub(super) scale: f32,
    pub(super) soft_cap: Option<f32>,
    /// One a query, if there are any.
    pub(super) sinks: Option<&'a [f32]>,
    /// Positions that the token sees, its own included.
    pub(super) positions: Range<usize>,
}

impl<T: KvElement> Single<'_, T> {
    /// Whether heads of this shape can be read where they lie.
    pub(super) fn takes(rows: usize, head_dim: usize, block_size: usize) -> bool {
        rows <= MAX_ROWS
            && head_dim <= MAX_HEAD_DIM
            && head_dim.is_multiple_of(LANES)
            && block_size.is_multiple_of(RUN)
    }

    /// Writes the results of `queries` to `out`, in the same order.
    pub(super) fn run(&self, queries: &[&[f32]], out: &mut [f32]) {
        match queries.len() {
            1 => self.attend::<1>(queries, out),
            2 => self.attend::<2>(queries, out),
            3 => self.attend::<3>(queries, out),
            4 => self.attend::<4>(queries, out),
            5 => self.attend::<5>(queries, out),
            6 => self.attend::<6>(queries, out),
            7 => self.attend::<7>(queries, out),
            _ => self.attend::<MAX_ROWS>(queries, out),
        }
    }

    fn attend<const ROWS: usize>(&self, from: &[&[f32]], out: &mut [f32]) {
        let head_dim = self.head.head_dim;
        let mut queries = [[0f32; MAX_HEAD_DIM]; ROWS];
        for (query, from) in queries.iter_mut().zip(from) {
            query.iter_mut().zip(*from).for_each(|(to, from)| *to = from * self.scale);
        }
        let mut sums = [[0f32; MAX_HEAD_DIM]; ROWS];
        let mut running: [_; ROWS] =
            std::array::from_fn(|row| Running::new(self.sinks.map(|sinks| sinks[row])));
        let Range { start, end } = self.positions;
        for base in (start / KEYS * KEYS..end).step_by(KEYS) {
            let visible = start.saturating_sub(base)..(end - base).min(KEYS);
            let mut scores = [[0f32; KEYS]; ROWS];
            // Where there is no second run, nothing is seen of it.
            let second = if base + RUN < end { base + RUN } else { base };
            let (keys, values): ([&[T]; 2], [&[T]; 2]) =
                ([self.keys(base), self.keys(second)], [self.values(base), self.values(second)]);
            let stride = self.head.block_size;
            self.isa.run(Scores {
                queries: &queries,
                keys,
                shape: (head_dim, stride),
                out: &mut scores,
            });
            let mut factors = [0f32; ROWS];
            self.isa.run(SoftmaxTile {
                scores: &mut scores,
                visible: visible.clone(),
                cap: self.soft_cap,
                running: &mut running,
                factors: &mut factors,
            });
            for (factor, sums) in factors.into_iter().zip(&mut sums) {
                if factor.to_bits() != 1f32.to_bits() {
                    sums[..head_dim].iter_mut().for_each(|sum| *sum *= factor);
                }
            }
            self.isa.run(WeightedSum {
                weights: &scores,
                values,
                visible,
                head_dim,
                sums: &mut sums,
            });
        }
        for ((sums, running), out) in sums.iter().zip(&running).zip(out.chunks_exact_mut(head_dim))
        {
            let scale = 1.0 / running.sum();
            out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum * scale);
        }
    }

    /// The keys of a run: element `d` of the first is at `d * block_size`.
    fn keys(&self, position: usize) -> &[T] {
        &self.head.keys[self.block(position)][position % self.head.block_size..]
    }

    /// The values of a run, one after the other.
    fn values(&self, position: usize) -> &[T] {
        let first = position % self.head.block_size * self.head.head_dim;
        &self.head.values[self.block(position)][first..]
    }

    fn block(&self, position: usize) -> Range<usize> {
        let HeadBlocks { blocks, head, block_size, head_dim, .. } = self.head;
        let block = blocks[position / block_size] as usize;
        let start = (block * head.1 + head.0) * head_dim * block_size;
        start..start + head_dim * block_size
    }
}

/// Products of queries with two runs of keys.
struct Scores<'a, T, const ROWS: usize> {
    queries: &'a [[f32; MAX_HEAD_DIM]; ROWS],
    keys: [&'a [T]; 2],
    /// Width of a head, and distance of its elements.
    shape: (usize, usize),
    out: &'a mut [[f32; KEYS]; ROWS],
}

impl<T: KvElement, const ROWS: usize> Kernel for Scores<'_, T, ROWS> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let (head_dim, stride) = self.shape;
        let mut sums = [[0f32; KEYS]; ROWS];
        for d in 0..head_dim {
            let mut keys = [0f32; KEYS];
            for run in 0..2 {
                let from = &self.keys[run][d * stride..d * stride + RUN];
                for lane in 0..RUN {
                    keys[run * RUN + lane] = from[lane].widen();
                }
            }
            for row in 0..ROWS {
                let x = self.queries[row][d];
                for lane in 0..KEYS {
                    sums[row][lane] = mul_add::<FMA>(x, keys[lane], sums[row][lane]);
                }
            }
        }
        *self.out = sums;
    }
}

/// Weighted sums of two runs of values.
struct WeightedSum<'a, T, const ROWS: usize> {
    weights: &'a [[f32; KEYS]; ROWS],
    values: [&'a [T]; 2],
    visible: Range<usize>,
    head_dim: usize,
    sums: &'a mut [[f32; MAX_HEAD_DIM]; ROWS],
}

impl<T: KvElement, const ROWS: usize> Kernel for WeightedSum<'_, T, ROWS> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        for first in (0..self.head_dim).step_by(LANES) {
            let mut sums = [[0f32; LANES]; ROWS];
            for row in 0..ROWS {
                sums[row].copy_from_slice(&self.sums[row][first..first + LANES]);
            }
            for key in self.visible.clone() {
                let start = key % RUN * self.head_dim + first;
                let from = &self.values[key / RUN][start..start + LANES];
                let mut values = [0f32; LANES];
                for lane in 0..LANES {
                    values[lane] = from[lane].widen();
                }
                for row in 0..ROWS {
                    let weight = self.weights[row][key];
                    for lane in 0..LANES {
                        sums[row][lane] = mul_add::<FMA>(weight, values[lane], sums[row][lane]);
                    }
                }
            }
            for row in 0..ROWS {
                self.sums[row][first..first + LANES].copy_from_slice(&sums[row]);
            }
        }
    }
}
