//! The product with vectors: sums stay in registers, `f32` throughout.
#![expect(unsafe_code, reason = "threads write disjoint parts of one result")]

use std::ops::Range;

use super::Finish;
use crate::cpu::Cpu;
use crate::gemm::{self, Ahead, CHUNK, Left, Panel, max_rows};
use crate::packed::{GROUP_ROWS, PANEL_ROWS};
use crate::pool::Parts;
use crate::view::Rows;
use crate::{Activations, PackedTensor};

/// A panel is computed in whole.
const GROUPS: usize = PANEL_ROWS / GROUP_ROWS;

/// Rows that meet a panel while it is in the cache.
const BLOCK_ROWS: usize = 60;

/// Bytes of a panel that all rows of a block use before the next: they stay in the first-level
/// cache. Sums are carried on exactly, so this changes no result.
const BLOCK_BYTES: usize = 32 << 10;

/// How far ahead of itself a single tile fetches weights, in bytes.
const FETCH_DISTANCE: usize = 2 << 10;

/// Writes the product to `out` `[n, out]`. One item of work is a block of rows times one panel.
pub(super) fn multiply(
    cpu: &Cpu,
    x: Rows<'_>,
    weight: &PackedTensor,
    finish: Finish<'_>,
    out: &mut [f32],
) {
    let tiles = Tiles::pack(cpu, x);
    let tiles_per_block = BLOCK_ROWS / tiles.max_rows;
    let num_panels = weight.rows().div_ceil(PANEL_ROWS);
    let num_blocks = tiles.count.div_ceil(tiles_per_block);
    let work = tiles.num_rows * weight.rows() * weight.cols();
    let out = Parts::new(out);
    cpu.pool.for_each_worth(work, num_blocks * num_panels, |item| {
        let (block, panel) = (item / num_panels, item % num_panels);
        let block = block * tiles_per_block..tiles.count.min((block + 1) * tiles_per_block);
        let mut sums = [0f32; BLOCK_ROWS * PANEL_ROWS];
        tiles.times_panel(cpu, block.clone(), weight, panel, &mut sums);

        let rows = tiles.first_row(block.start)..tiles.first_row(block.end);
        let lanes = panel * PANEL_ROWS..weight.rows().min((panel + 1) * PANEL_ROWS);
        for (row, sums) in rows.zip(sums.chunks_exact(PANEL_ROWS)) {
            let start = row * weight.rows();
            // SAFETY: items differ in the block or the panel, so in the rows or the columns.
            let out = unsafe { out.part(start + lanes.start..start + lanes.end) };
            finish.write(lanes.start, sums, out);
        }
    });
}

/// A single row is packed as it is.
enum Values<'a> {
    Row(&'a [f32]),
    Packed(Activations),
}

/// The rows of `x`, packed in tiles of as many rows as one kernel call takes.
struct Tiles<'a> {
    values: Values<'a>,
    num_rows: usize,
    depth: usize,
    padded_depth: usize,
    max_rows: usize,
    count: usize,
}

impl<'a> Tiles<'a> {
    fn pack(cpu: &Cpu, x: Rows<'a>) -> Self {
        let (num_rows, depth) = (x.len(), x.width());
        let (max_rows, padded_depth) = (max_rows::<GROUPS>(cpu.isa), depth.next_multiple_of(CHUNK));
        let count = num_rows.div_ceil(max_rows);
        let values = Values::Row(&[]);
        let mut tiles = Self { values, num_rows, depth, padded_depth, max_rows, count };
        if num_rows == 1 {
            tiles.values = Values::Row(x.row(0));
            return tiles;
        }
        let mut values = Activations::uninit(num_rows, padded_depth);
        let parts = Parts::new(values.values_mut());
        cpu.pool.for_each_worth(num_rows * depth, count, |tile| {
            let rows = tiles.first_row(tile)..tiles.first_row(tile + 1);
            // SAFETY: tiles hold disjoint rows.
            let packed = unsafe { parts.part(rows.start * padded_depth..rows.end * padded_depth) };
            for (index, row) in rows.clone().enumerate() {
                let chunks = packed.chunks_exact_mut(CHUNK).skip(index).step_by(rows.len());
                for (packed, chunk) in chunks.zip(x.row(row).chunks(CHUNK)) {
                    packed[..chunk.len()].copy_from_slice(chunk);
                }
            }
        });
        tiles.values = Values::Packed(values);
        tiles
    }

    /// Tiles are as equal as they can be: 7 rows are 4 and 3, not 6 and 1.
    fn first_row(&self, tile: usize) -> usize {
        self.num_rows * tile / self.count
    }

    fn values(&self) -> &[f32] {
        match &self.values {
            Values::Row(row) => row,
            Values::Packed(rows) => rows.values(),
        }
    }

    /// Adds the product of some tiles with a panel to `sums` `[rows][PANEL_ROWS]`.
    fn times_panel(
        &self,
        cpu: &Cpu,
        tiles: Range<usize>,
        weight: &PackedTensor,
        panel: usize,
        sums: &mut [f32],
    ) {
        let base = self.first_row(tiles.start);
        let block_depth = BLOCK_BYTES / (PANEL_ROWS * weight.kind().size_in_bytes());
        for start in (0..self.depth).step_by(block_depth) {
            let depth = block_depth.min(self.depth - start);
            let mut right = weight.panel(panel, start..start + depth);
            for tile in tiles.clone() {
                right.ahead = fetch_ahead(right.panel, tile - tiles.start, tiles.len());
                let (first, end) = (self.first_row(tile), self.first_row(tile + 1));
                let rows = end - first;
                let values = &self.values()[first * self.padded_depth + start * rows..];
                let left = Left { values, rows, depth };
                let sums = &mut sums[(first - base) * PANEL_ROWS..(end - base) * PANEL_ROWS];
                gemm::accumulate::<GROUPS>(cpu.isa, left, right, sums);
            }
        }
    }
}

/// What a tile fetches while it works on a block of weights.
///
/// One tile alone is bound by memory and fetches a little ahead of itself. Several tiles share the
/// fetching of the next block, so that memory never waits for arithmetic.
fn fetch_ahead(block: Panel<'_>, tile: usize, num_tiles: usize) -> Ahead {
    // The four streams of pairs are left to the processor's own prefetching.
    let Panel::F32(values) = block else { return Ahead::NOTHING };
    let (bytes, column_bytes) = (size_of_val(values), size_of::<f32>() * PANEL_ROWS);
    let distance = if num_tiles == 1 { FETCH_DISTANCE } else { bytes + bytes * tile / num_tiles };
    let from = values.as_ptr().cast::<u8>().wrapping_add(distance);
    Ahead { from, step: column_bytes / num_tiles }
}
