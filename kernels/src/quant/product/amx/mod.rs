//! Products with AMX tiles: 16 rows of activations times the 16 rows of a weight tile.
//!
//! Integers are summed by the tiles, a block of 32 columns at a time where each has its own scale.
//! Where a span of 256 columns shares one, the small integer scales are multiplied into the codes
//! first, and the products split into two digits of base 128, so that the tiles sum a whole span.
//! What is added in f32, and in which order, is as on every other path.
#![expect(unsafe_code, reason = "tile instructions, and loads and stores through pointers")]

mod job;
mod prepare;

use std::arch::asm;
use std::cell::Cell;
use std::ops::Range;

use job::{End, Job};
use prepare::{scale, unpack};

use super::{Matrix, Target};
use crate::cpu::TileConfig;
use crate::packed::AlignedBytes;
use crate::quant::activations::{Left, QuantizedRows};
use crate::quant::{BLOCK, Family, TILE_ROWS};

/// From this number of rows on tiles are faster than vectors.
pub(super) const MIN_ROWS: usize = 4;

/// Columns that all rows meet before the next ones: a whole span of every type.
const CHUNK: usize = 256;

/// Rows that meet prepared weights.
const MAX_ROWS: usize = 512;

/// Bytes of prepared weights of one tile: two digits of a chunk.
const PREPARED: usize = 2 * CHUNK * TILE_ROWS;

/// Bytes of a tile of sums.
const SUMS: usize = 16 * 64;

/// Bytes of the sums of one job: a tile for each block of a chunk.
const JOB_SUMS: usize = CHUNK / BLOCK * SUMS;

std::thread_local! {
    static SCRATCH: Cell<Option<AlignedBytes>> = const { Cell::new(None) };
}

/// Multiplies all rows with some tiles.
///
/// # Safety
/// The processor must have AMX, AVX-512 and VNNI, and this process the permission to use tiles;
/// nobody else puts sums of these tiles into `target`.
pub(super) unsafe fn multiply(
    activations: &QuantizedRows,
    matrix: Matrix<'_>,
    tiles: Range<usize>,
    target: &Target<'_>,
) {
    let row_bytes = tiles.len() * TILE_ROWS * size_of::<f32>();
    let room = activations.len().min(MAX_ROWS).next_multiple_of(TILE_ROWS);
    let needed = 2 * JOB_SUMS + tiles.len() * PREPARED + room * row_bytes;
    let mut scratch = SCRATCH.take().filter(|scratch| scratch.as_slice().len() >= needed);
    let bytes = scratch.get_or_insert_with(|| AlignedBytes::zeroed(needed)).as_mut_slice();
    let (sums, rest) = bytes.split_at_mut(2 * JOB_SUMS);
    let (prepared, results) = rest.split_at_mut(tiles.len() * PREPARED);
    for first in (0..activations.len()).step_by(MAX_ROWS) {
        let rows = MAX_ROWS.min(activations.len() - first);
        let results = &mut results[..rows.next_multiple_of(TILE_ROWS) * row_bytes];
        let panel = Panel {
            matrix,
            tiles: tiles.clone(),
            left: activations.from(first),
            first,
            rows,
            target,
            sums: sums.as_mut_ptr(),
            prepared: prepared.as_mut_ptr(),
            results: results.as_mut_ptr().cast(),
        };
        assert!(panel.left.shape.holds(matrix.format, matrix.cols), "activations fit the format");
        // SAFETY: the caller's contract; the scratch has room for all parts.
        unsafe { panel.run() };
    }
    SCRATCH.set(scratch);
}

struct Panel<'a> {
    matrix: Matrix<'a>,
    tiles: Range<usize>,
    left: Left<'a>,
    /// Row of the target where `left` begins.
    first: usize,
    rows: usize,
    target: &'a Target<'a>,
    /// Room for the sums of two jobs.
    sums: *mut u8,
    /// [`PREPARED`] bytes a tile.
    prepared: *mut u8,
    /// `[rows][tiles][16]`: sums of the chunks so far.
    results: *mut f32,
}

impl<'a> Panel<'a> {
    /// # Safety
    /// As [`multiply`].
    unsafe fn run(&self) {
        let Matrix { format, cols, .. } = self.matrix;
        let depth = if format.family == Family::Plain { BLOCK } else { 2 * BLOCK };
        let rows = self.rows.min(TILE_ROWS) as u8;
        // Sums in tiles 0 and 1, activations in 4 and 5, weights in 6 and 7.
        let config = TileConfig::new([
            (0..2, rows, 64),
            (4..6, rows, depth as u16),
            (6..8, depth as u8 / 4, 64),
        ]);
        // SAFETY: the caller's contract.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const config, options(nostack));
            let mut pipe = Pipe { panel: self, pending: None, turn: 0 };
            if self.rows <= TILE_ROWS {
                // Memory is what takes time: a tile of weights is read from its start to its end.
                for tile in 0..self.tiles.len() {
                    for start in (0..cols).step_by(CHUNK) {
                        // What was prepared for the job before this one is used already.
                        self.prepare(tile, start);
                        pipe.push(tile, start, 0);
                    }
                }
            } else {
                for start in (0..cols).step_by(CHUNK) {
                    for tile in 0..self.tiles.len() {
                        self.prepare(tile, start);
                    }
                    for first in (0..self.rows).step_by(TILE_ROWS) {
                        for tile in 0..self.tiles.len() {
                            pipe.push(tile, start, first);
                        }
                    }
                }
            }
            pipe.finish();
            asm!("tilerelease", options(nostack));
        }
    }

    /// Where the chunk of a tile starts.
    fn span(&self, tile: usize, start: usize) -> *const u8 {
        let format = self.matrix.format;
        let offset = start / format.span() * format.span_bytes();
        self.matrix.tile(self.tiles.start + tile)[offset..].as_ptr()
    }

    /// # Safety
    /// As [`multiply`]; the tile and the chunk exist.
    unsafe fn prepare(&self, tile: usize, start: usize) {
        let (format, from) = (self.matrix.format, self.span(tile, start));
        let blocks = CHUNK.min(self.matrix.cols - start) / BLOCK;
        // SAFETY: the caller's contract.
        unsafe {
            let to = self.prepared.add(tile * PREPARED);
            match (format.family, format.bits) {
                (Family::Plain, 8) => {}
                (Family::Plain, 4) => unpack::<4>(from, blocks, to),
                (Family::Plain, _) => unpack::<5>(from, blocks, to),
                (Family::Mins, 4) => scale::<4>(format, from, blocks, to),
                (Family::Mins, _) => scale::<5>(format, from, blocks, to),
                (Family::Halves, _) => scale::<6>(format, from, blocks, to),
            }
        }
    }

    /// # Safety
    /// As [`multiply`]; the tile, the chunk and the row exist.
    unsafe fn job(&self, tile: usize, start: usize, first: usize, sums: *mut u8) -> Job<'a> {
        let (format, shape) = (self.matrix.format, self.left.shape);
        let grain = start / format.grain();
        let sums_start = match format.family {
            Family::Plain => 0,
            Family::Mins => grain * 4,
            Family::Halves => grain * 8,
        };
        let is_last = self.matrix.cols <= start + CHUNK;
        let end = is_last.then(|| End {
            target: self.target,
            row: self.first + first,
            rows: TILE_ROWS.min(self.rows - first),
            lane: (self.tiles.start + tile) * TILE_ROWS,
        });
        // SAFETY: the caller's contract.
        unsafe {
            Job {
                header: self.span(tile, start),
                prepared: self.prepared.add(tile * PREPARED),
                blocks: CHUNK.min(self.matrix.cols - start) / BLOCK,
                codes: self.left.codes.as_ptr().add(first * shape.stride + start),
                stride: shape.stride,
                scales: self.left.scales.as_ptr().add(first * shape.scales + grain),
                scales_stride: shape.scales,
                code_sums: self.left.sums.as_ptr().add(first * shape.sums + sums_start),
                code_sums_stride: shape.sums,
                sums,
                results: self.results.add((first * self.tiles.len() + tile) * TILE_ROWS),
                results_stride: self.tiles.len() * TILE_ROWS,
                row_groups: (self.rows - first).min(TILE_ROWS).div_ceil(4),
                begins: start == 0,
                end,
            }
        }
    }
}

/// Jobs one after the other: the tiles of one are multiplied before the sums of the one before it
/// are added, because sums that tiles have just stored take long to load.
struct Pipe<'a, 'b> {
    panel: &'a Panel<'b>,
    pending: Option<Job<'b>>,
    turn: usize,
}

impl Pipe<'_, '_> {
    /// # Safety
    /// As [`Panel::job`].
    unsafe fn push(&mut self, tile: usize, start: usize, first: usize) {
        let format = self.panel.matrix.format;
        // SAFETY: the caller's contract.
        unsafe {
            let sums = self.panel.sums.add(self.turn * JOB_SUMS);
            let job = self.panel.job(tile, start, first, sums);
            if format.family == Family::Plain {
                job.dots(format);
            } else {
                job.span_dots();
            }
            if let Some(job) = self.pending.replace(job) {
                job.add(format);
            }
        }
        self.turn ^= 1;
    }

    /// # Safety
    /// As [`Pipe::push`].
    unsafe fn finish(&mut self) {
        if let Some(job) = self.pending.take() {
            // SAFETY: the caller's contract.
            unsafe { job.add(self.panel.matrix.format) };
        }
    }
}
