//! A tile of queries of one key/value head, attending to all their keys.
#![expect(clippy::inline_always, reason = "inlined into code compiled for an instruction set")]

use std::ops::Range;

use super::softmax::{Running, SoftmaxTile};
use crate::cpu::{Cpu, Isa, Kernel};
use crate::gemm::{self, Ahead, CHUNK, Left, Panel, Right, max_rows};
use crate::kv_cache::KvElement;

/// Keys of one tile. Tiles start at multiples of it, counted from position 0, so that the order of
/// a query's sums depends on its position only.
pub(super) const KEYS: usize = 32;

const _: () = assert!(KEYS == CHUNK, "weights of a tile are one chunk of a left side");

/// Keys and values of one head of a sequence in its blocks.
#[derive(Clone, Copy)]
pub(super) struct HeadBlocks<'a, T> {
    /// `[num_blocks, num_kv_heads, head_dim, block_size]`.
    pub(super) keys: &'a [T],
    /// `[num_blocks, num_kv_heads, block_size, head_dim]`.
    pub(super) values: &'a [T],
    pub(super) blocks: &'a [u32],
    /// Index and number of heads.
    pub(super) head: (usize, usize),
    pub(super) block_size: usize,
    pub(super) head_dim: usize,
}

/// Queries `[rows, head_dim]`, several heads a token, and their state.
pub(super) struct QueryTile {
    cpu: Cpu,
    head_dim: usize,
    // Padded to whole chunks.
    width: usize,
    num_rows: usize,
    rows_per_block: usize,
    // Blocks of rows, each packed as a left side: `[width / CHUNK][rows][CHUNK]`.
    queries: Vec<f32>,
    // In the same order.
    sums: Vec<f32>,
    running: Vec<Running>,
    // What a tile makes of the sums before it.
    factors: Vec<f32>,
    pub(super) soft_cap: Option<f32>,
}

impl QueryTile {
    /// Takes queries, already scaled by `scale` when they are used; `start` is what a row has seen.
    pub(super) fn new<'q>(
        cpu: &Cpu,
        head_dim: usize,
        scale: f32,
        rows: impl ExactSizeIterator<Item = &'q [f32]>,
        start: impl Fn(usize) -> Running,
    ) -> Self {
        let (num_rows, width) = (rows.len(), head_dim.next_multiple_of(CHUNK));
        let mut tile = Self {
            cpu: cpu.clone(),
            head_dim,
            width,
            num_rows,
            rows_per_block: max_rows::<1>(cpu.isa),
            queries: vec![0f32; num_rows * width],
            sums: vec![0f32; num_rows * width],
            running: (0..num_rows).map(start).collect(),
            factors: vec![0f32; num_rows],
            soft_cap: None,
        };
        for (row, values) in rows.enumerate() {
            for (chunk, values) in values.chunks(CHUNK).enumerate() {
                let start = tile.place(row, chunk);
                for (place, value) in tile.queries[start..].iter_mut().zip(values) {
                    *place = value * scale;
                }
            }
        }
        tile
    }

    /// Attends to the keys from `base` on; `visible` gives the keys of the tile that a row sees.
    fn attend(
        &mut self,
        tile: &KeyTile,
        scores: &mut [f32],
        visible: impl Fn(usize) -> Range<usize>,
    ) {
        for first in (0..self.num_rows).step_by(self.rows_per_block) {
            let rows = first..self.num_rows.min(first + self.rows_per_block);
            if rows.clone().all(|row| visible(row).is_empty()) {
                continue;
            }
            let scores = &mut scores[..rows.len() * KEYS];
            scores.fill(0.0);
            let values = &self.queries[rows.start * self.width..rows.end * self.width];
            let left = Left { values, rows: rows.len(), depth: self.head_dim };
            gemm::accumulate::<1>(self.cpu.isa, left, cached(&tile.keys, KEYS), scores);

            let mut start = rows.start;
            while start < rows.end {
                let keys = visible(start);
                let same = (start..rows.end).take_while(|&row| visible(row) == keys).count();
                if !keys.is_empty() {
                    let part = (start - first) * KEYS..(start - first + same) * KEYS;
                    self.add_values(start..start + same, keys, &mut scores[part], &tile.values);
                }
                start += same;
            }
        }
    }

    /// Adds the values of `keys` to rows that see exactly these keys of the tile.
    fn add_values(
        &mut self,
        rows: Range<usize>,
        keys: Range<usize>,
        scores: &mut [f32],
        values: &[f32],
    ) {
        self.cpu.isa.run(SoftmaxTile {
            scores: scores.as_chunks_mut().0,
            visible: keys.clone(),
            cap: self.soft_cap,
            running: &mut self.running[rows.clone()],
            factors: &mut self.factors[rows.clone()],
        });
        for row in rows.clone() {
            let factor = self.factors[row];
            if factor.to_bits() != 1f32.to_bits() {
                for chunk in 0..self.width / CHUNK {
                    let start = self.place(row, chunk);
                    self.sums[start..start + CHUNK].iter_mut().for_each(|sum| *sum *= factor);
                }
            }
        }
        let left = Left { values: &scores[keys.start..], rows: rows.len(), depth: keys.len() };
        for chunk in 0..self.width / CHUNK {
            let values = &values[keys.start * self.width + chunk * CHUNK..];
            let start = self.place(rows.start, chunk);
            let sums = &mut self.sums[start..start + rows.len() * CHUNK];
            gemm::accumulate::<1>(self.cpu.isa, left, cached(values, self.width), sums);
        }
    }

    /// Writes the result of a row.
    pub(super) fn write(&self, row: usize, out: &mut [f32]) {
        let scale = 1.0 / self.running[row].sum();
        for (chunk, out) in out.chunks_mut(CHUNK).enumerate() {
            let start = self.place(row, chunk);
            for (out, sum) in out.iter_mut().zip(&self.sums[start..]) {
                *out = sum * scale;
            }
        }
    }

    /// Where a chunk of a row starts.
    fn place(&self, row: usize, chunk: usize) -> usize {
        let first = row / self.rows_per_block * self.rows_per_block;
        let rows = self.rows_per_block.min(self.num_rows - first);
        first * self.width + (chunk * rows + row - first) * CHUNK
    }

    /// Attends to all keys. Row `r` is of token `r / rows_per_token`, the first of which has
    /// position `first`; `window` is the number of keys a query sees.
    pub(super) fn attend_to<T: KvElement>(
        &mut self,
        head: HeadBlocks<'_, T>,
        first: usize,
        rows_per_token: usize,
        window: usize,
    ) {
        let positions = first..first + self.num_rows / rows_per_token;
        let oldest = |position: usize| (position + 1).saturating_sub(window);
        let mut tile = KeyTile::new(self.head_dim, self.width);
        let mut scores = vec![0f32; self.rows_per_block * KEYS];
        for base in (oldest(first) / KEYS * KEYS..positions.end).step_by(KEYS) {
            tile.load(self.cpu.isa, head, base..positions.end.min(base + KEYS));
            self.attend(&tile, &mut scores, |row| {
                let position = first + row / rows_per_token;
                oldest(position).saturating_sub(base)..(position + 1).saturating_sub(base).min(KEYS)
            });
        }
    }
}

/// A right side that is in the cache already.
fn cached(values: &[f32], stride: usize) -> Right<'_> {
    Right { panel: Panel::F32(values), stride, ahead: Ahead::NOTHING }
}

/// Keys and values of one tile, widened to `f32`.
struct KeyTile {
    // `[head_dim][KEYS]`.
    keys: Vec<f32>,
    // `[KEYS][width]`.
    values: Vec<f32>,
    width: usize,
}

impl KeyTile {
    fn new(head_dim: usize, width: usize) -> Self {
        let (keys, values) = (vec![0f32; head_dim * KEYS], vec![0f32; KEYS * width]);
        Self { keys, values, width }
    }

    /// Loads the given positions; what else the tile holds is not looked at.
    fn load<T: KvElement>(&mut self, isa: Isa, head: HeadBlocks<'_, T>, positions: Range<usize>) {
        let HeadBlocks { block_size, head_dim, .. } = head;
        let mut position = positions.start;
        while position < positions.end {
            let offset = position % block_size;
            let len = (block_size - offset).min(positions.end - position);
            let block = head.blocks[position / block_size] as usize;
            let start = (block * head.head.1 + head.head.0) * head_dim * block_size;
            let block = start..start + head_dim * block_size;
            let key = position - positions.start;
            isa.run(LoadRun {
                keys: (&head.keys[block.clone()][offset..], block_size),
                values: &head.values[block][offset * head_dim..][..len * head_dim],
                key_tile: &mut self.keys[key..],
                value_tile: (&mut self.values[key * self.width..], self.width),
                shape: (head_dim, len),
            });
            position += len;
        }
    }
}

/// Widens a run of neighbouring slots.
struct LoadRun<'a, T> {
    keys: (&'a [T], usize),
    values: &'a [T],
    key_tile: &'a mut [f32],
    value_tile: (&'a mut [f32], usize),
    shape: (usize, usize),
}

impl<T: KvElement> Kernel for LoadRun<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let (head_dim, len) = self.shape;
        let keys = self.keys.0.chunks(self.keys.1).zip(self.key_tile.chunks_mut(KEYS));
        for (from, to) in keys.take(head_dim) {
            // Whole vectors of a constant length: block sizes are multiples of 16 as a rule.
            let (from, to) = (from[..len].as_chunks::<16>(), to[..len].as_chunks_mut::<16>());
            for (from, to) in from.0.iter().zip(to.0) {
                widen(from, to);
            }
            widen(from.1, to.1);
        }
        let values = self.values.chunks_exact(head_dim);
        for (from, to) in values.zip(self.value_tile.0.chunks_mut(self.value_tile.1)) {
            widen(from, to);
        }
    }
}

#[inline(always)]
fn widen<T: KvElement>(from: &[T], to: &mut [f32]) {
    for (from, to) in from.iter().zip(to) {
        *to = from.widen();
    }
}
