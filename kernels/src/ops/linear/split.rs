//! The product with AMX tiles: activations split into parts of `bf16`, weights as they are.
#![expect(unsafe_code, reason = "threads write disjoint parts of one result; tile instructions")]

use std::cell::Cell;
use std::ops::Range;

use super::Finish;
use crate::PackedTensor;
use crate::cpu::Cpu;
use crate::gemm::amx::{self, Product, SplitRow, SumRow, TILE_ROWS, TILE_WORDS, TileRow};
use crate::packed::{PAIR_DEPTH, PAIR_ROWS};
use crate::pool::Parts;
use crate::view::Rows;

std::thread_local! {
    /// The parts of the last left side, to be used again.
    static SCRATCH: Cell<Vec<TileRow>> = const { Cell::new(Vec::new()) };

    /// The sums of the last item of work, likewise.
    static SUMS: Cell<Vec<SumRow>> = const { Cell::new(Vec::new()) };
}

/// Tiles of rows that meet a panel while it is in the cache, at most.
const MAX_BLOCK_TILES: usize = 16;

/// Bytes of tiles of rows that stay in the second-level cache while all panels go by.
const BLOCK_BYTES: usize = 768 << 10;

/// Blocks of 32 columns that all tiles use before the next: the weights stay in the first-level
/// cache. Sums are carried on exactly, so this changes no result.
const BLOCK_DEPTH: usize = 6;

/// How far ahead of itself a tile fetches weights, in bytes.
const FETCH_DISTANCE: usize = 2 << 10;

/// Items of work for each thread, at least, so that none waits long for another.
const ITEMS_PER_THREAD: usize = 8;

/// Writes the product to `out` `[n, out]`. One item of work is a block of rows times one to four
/// groups of lanes.
pub(super) fn multiply(
    cpu: &Cpu,
    x: Rows<'_>,
    weight: &PackedTensor,
    finish: Finish<'_>,
    out: &mut [f32],
) {
    let left = Split::of(cpu, x);
    let num_groups = weight.rows().div_ceil(PAIR_ROWS);
    let tile_bytes = 2 * TILE_ROWS * left.depth * size_of::<TileRow>();
    let block_tiles = (BLOCK_BYTES / tile_bytes).clamp(1, MAX_BLOCK_TILES);
    let num_blocks = left.num_tiles.div_ceil(block_tiles);
    let wanted = ITEMS_PER_THREAD * cpu.pool.num_threads();
    let groups = [4, 2].into_iter().find(|groups| num_blocks * num_groups >= wanted * groups);
    let groups = groups.unwrap_or(1);
    let num_parts = num_groups.div_ceil(groups);
    let work = left.num_rows * weight.rows() * weight.cols();
    let out = Parts::new(out);
    cpu.pool.for_each_worth(work, num_blocks * num_parts, |item| {
        let (block, part) = (item / num_parts, item % num_parts);
        let tiles = block * block_tiles..left.num_tiles.min((block + 1) * block_tiles);
        let rows = left.first_row(tiles.start)..left.first_row(tiles.end);
        let mut sums = SUMS.take();
        if sums.len() < rows.len() {
            sums.resize(rows.len(), SumRow::ZERO);
        }
        left.times(weight, tiles, part * groups, groups, &mut sums);

        let lanes = groups * PAIR_ROWS;
        let lanes = part * lanes..weight.rows().min((part + 1) * lanes);
        for (row, sums) in rows.zip(&sums) {
            let start = row * weight.rows();
            // SAFETY: items differ in the block or the part, so in the rows or the columns.
            let out = unsafe { out.part(start + lanes.start..start + lanes.end) };
            finish.write(lanes.start, &sums.0, out);
        }
        SUMS.set(sums);
    });
    SCRATCH.set(left.parts);
}

/// Rows split into parts, in tiles.
struct Split {
    parts: Vec<TileRow>,
    num_rows: usize,
    num_tiles: usize,
    /// Blocks of 32 columns.
    depth: usize,
}

impl Split {
    fn of(cpu: &Cpu, x: Rows<'_>) -> Self {
        let (num_rows, depth) = (x.len(), x.width().div_ceil(PAIR_DEPTH));
        let num_tiles = num_rows.div_ceil(TILE_ROWS);
        let mut split = Self { parts: Vec::new(), num_rows, num_tiles, depth };
        let mut parts = SCRATCH.take();
        if parts.len() < num_rows * depth * 2 {
            parts.resize(num_rows * depth * 2, TileRow::ZERO);
        }
        let shared = Parts::new(&mut parts);
        cpu.pool.for_each_worth(8 * num_rows * x.width(), num_tiles, |tile| {
            let rows = split.first_row(tile)..split.first_row(tile + 1);
            // SAFETY: tiles hold disjoint rows.
            let parts = unsafe { shared.part(rows.start * depth * 2..rows.end * depth * 2) };
            for (row, index) in rows.clone().enumerate() {
                let values = x.row(index);
                cpu.isa.run(SplitRow { values, row, rows: rows.len(), parts });
            }
        });
        split.parts = parts;
        split
    }

    /// Tiles are as equal as they can be.
    fn first_row(&self, tile: usize) -> usize {
        self.num_rows * tile / self.num_tiles
    }

    /// Writes the product of some tiles with some groups of lanes to `sums` `[rows][LANES]`.
    fn times(
        &self,
        weight: &PackedTensor,
        tiles: Range<usize>,
        first_group: usize,
        groups: usize,
        sums: &mut [SumRow],
    ) {
        let (words, stride) = weight.pair_groups();
        let base = self.first_row(tiles.start);
        // One tile is bound by memory and keeps its sums; several share what is in the cache.
        let step = if tiles.len() == 1 { self.depth } else { BLOCK_DEPTH };
        for start in (0..self.depth).step_by(step) {
            let blocks = step.min(self.depth - start);
            for tile in tiles.clone() {
                let (first, end) = (self.first_row(tile), self.first_row(tile + 1));
                let rows = end - first;
                let product = Product {
                    left: &self.parts[(first * self.depth + start * rows) * 2..],
                    rows,
                    right: &words[first_group * stride + start * TILE_WORDS..],
                    stride,
                    groups,
                    blocks,
                    // The first tile brings the weights into the cache for the others.
                    ahead: if tile == tiles.start { FETCH_DISTANCE } else { 0 },
                    begins: start == 0,
                };
                let sums = &mut sums[first - base..end - base];
                // SAFETY: only a path that has the tiles comes here.
                unsafe { amx::accumulate(product, sums) };
            }
        }
    }
}
