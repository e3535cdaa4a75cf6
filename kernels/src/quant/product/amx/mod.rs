//! Products with AMX tiles: 16 rows of activations times the 16 rows of a weight tile.
//!
//! Integers are summed by the tiles, a block of 32 columns at a time where each has its own scale.
//! Where a span of 256 columns shares one, the small integer scales are multiplied into the codes
//! first, and the products split into two digits of base 128, so that the tiles sum a whole span.
//! What is added in f32, and in which order, is as on every other path.
#![expect(unsafe_code, reason = "tile instructions, and loads and stores through pointers")]

mod prepare;

use std::arch::asm;
use std::arch::x86_64::{
    _mm256_loadu_si256, _mm512_add_epi32, _mm512_cvtepi32_ps, _mm512_cvtepu8_epi16,
    _mm512_dpwssd_epi32, _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512,
    _mm512_slli_epi32, _mm512_storeu_ps,
};
use std::cell::Cell;
use std::ops::Range;

use prepare::{prefetch, scale, unpack};

use super::Matrix;
use super::avx512::halves;
use crate::cpu::TileConfig;
use crate::packed::AlignedBytes;
use crate::quant::activations::{Left, QuantizedRows};
use crate::quant::{BLOCK, Family, Format, TILE_ROWS};

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

/// Multiplies all rows with some tiles; `write` takes a row, a lane and sums from there on.
///
/// # Safety
/// The processor must have AMX, AVX-512 and VNNI, and this process the permission to use tiles.
pub(super) unsafe fn multiply(
    activations: &QuantizedRows,
    matrix: Matrix<'_>,
    tiles: Range<usize>,
    write: &impl Fn(usize, usize, &[f32]),
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
        results.fill(0);
        let panel = Panel {
            matrix,
            tiles: tiles.clone(),
            left: activations.from(first),
            rows,
            sums: sums.as_mut_ptr(),
            prepared: prepared.as_mut_ptr(),
            results: results.as_mut_ptr().cast(),
        };
        assert!(panel.left.shape.holds(matrix.format, matrix.cols), "activations fit the format");
        // SAFETY: the caller's contract; the scratch has room for all parts.
        unsafe { panel.run() };
        // SAFETY: every bit pattern is an `f32`; the scratch is aligned.
        let (_, results, _) = unsafe { results.align_to::<f32>() };
        for (row, sums) in results.chunks_exact(tiles.len() * TILE_ROWS).take(rows).enumerate() {
            write(first + row, tiles.start * TILE_ROWS, sums);
        }
    }
    SCRATCH.set(scratch);
}

struct Panel<'a> {
    matrix: Matrix<'a>,
    tiles: Range<usize>,
    left: Left<'a>,
    rows: usize,
    /// Room for the sums of two jobs.
    sums: *mut u8,
    /// [`PREPARED`] bytes a tile.
    prepared: *mut u8,
    /// `[rows][tiles][16]`.
    results: *mut f32,
}

impl Panel<'_> {
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
    unsafe fn job(&self, tile: usize, start: usize, first: usize, sums: *mut u8) -> Job {
        let (format, shape) = (self.matrix.format, self.left.shape);
        let grain = start / format.grain();
        let sums_start = match format.family {
            Family::Plain => 0,
            Family::Mins => grain * 4,
            Family::Halves => grain * 8,
        };
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
            }
        }
    }
}

/// Jobs one after the other: the tiles of one are multiplied before the sums of the one before it
/// are added, because sums that tiles have just stored take long to load.
struct Pipe<'a, 'b> {
    panel: &'a Panel<'b>,
    pending: Option<Job>,
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

/// Up to 16 rows times one chunk of a tile of weights.
struct Job {
    header: *const u8,
    prepared: *const u8,
    blocks: usize,
    codes: *const u8,
    stride: usize,
    scales: *const f32,
    scales_stride: usize,
    code_sums: *const i32,
    code_sums_stride: usize,
    sums: *mut u8,
    results: *mut f32,
    results_stride: usize,
    /// Rows, in fours.
    row_groups: usize,
}

impl Job {
    /// Multiplies each block of 32 columns into a tile of sums.
    ///
    /// # Safety
    /// As [`multiply`]; all pointers must lead to what the format needs for the rows.
    unsafe fn dots(&self, format: Format) {
        let (weights, step) = if format.bits == 8 {
            (self.header.wrapping_add(format.header()), format.span_bytes())
        } else {
            (self.prepared, 2 * BLOCK * TILE_ROWS)
        };
        for block in (0..self.blocks).step_by(2) {
            let weights = weights.wrapping_add(block / 2 * step);
            let codes = self.codes.wrapping_add(block * BLOCK);
            let dots = self.sums.wrapping_add(block * SUMS);
            // SAFETY: the caller's contract.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tileloadd tmm4, [{codes} + {stride}]",
                    "tileloadd tmm6, [{weights} + {line}]",
                    "tdpbssd tmm0, tmm4, tmm6",
                    "tilestored [{dots} + {line}], tmm0",
                    codes = in(reg) codes,
                    stride = in(reg) self.stride,
                    weights = in(reg) weights,
                    dots = in(reg) dots,
                    line = in(reg) 64usize,
                    out("tmm0") _, out("tmm4") _, out("tmm6") _,
                    options(nostack),
                );
                if block + 1 < self.blocks {
                    asm!(
                        "tilezero tmm1",
                        "tileloadd tmm5, [{codes} + {stride} + 32]",
                        "tileloadd tmm7, [{weights} + {line} + 512]",
                        "tdpbssd tmm1, tmm5, tmm7",
                        "tilestored [{dots} + {line} + 1024], tmm1",
                        codes = in(reg) codes,
                        stride = in(reg) self.stride,
                        weights = in(reg) weights,
                        dots = in(reg) dots,
                        line = in(reg) 64usize,
                        out("tmm1") _, out("tmm5") _, out("tmm7") _,
                        options(nostack),
                    );
                }
            }
        }
    }

    /// Multiplies a span with both digits, into two tiles of sums.
    ///
    /// # Safety
    /// As [`Job::dots`].
    unsafe fn span_dots(&self) {
        // SAFETY: the caller's contract.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "2:",
                "tileloadd tmm4, [{codes} + {stride}]",
                "tileloadd tmm6, [{weights} + {line}]",
                "tileloadd tmm7, [{weights} + {line} + 4096]",
                "tdpbssd tmm0, tmm4, tmm6",
                "tdpbssd tmm1, tmm4, tmm7",
                "add {codes}, 64",
                "add {weights}, 1024",
                "dec {steps}",
                "jnz 2b",
                "tilestored [{dots} + {line}], tmm0",
                "tilestored [{dots} + {line} + 1024], tmm1",
                codes = inout(reg) self.codes => _,
                stride = in(reg) self.stride,
                weights = inout(reg) self.prepared => _,
                dots = in(reg) self.sums,
                line = in(reg) 64usize,
                steps = inout(reg) self.blocks.div_ceil(2) => _,
                out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }

    /// Adds the sums, scaled, to the results.
    ///
    /// # Safety
    /// As [`Job::dots`], which came before.
    unsafe fn add(&self, format: Format) {
        // SAFETY: the caller's contract.
        unsafe {
            match (format.family, self.row_groups) {
                (Family::Plain, 1) => self.add_blocks::<4>(format),
                (Family::Plain, 2) => self.add_blocks::<8>(format),
                (Family::Plain, 3) => self.add_blocks::<12>(format),
                (Family::Plain, _) => self.add_blocks::<16>(format),
                (Family::Mins, 1) => self.add_span::<4, true>(),
                (Family::Mins, 2) => self.add_span::<8, true>(),
                (Family::Mins, 3) => self.add_span::<12, true>(),
                (Family::Mins, _) => self.add_span::<16, true>(),
                (Family::Halves, 1) => self.add_span::<4, false>(),
                (Family::Halves, 2) => self.add_span::<8, false>(),
                (Family::Halves, 3) => self.add_span::<12, false>(),
                (Family::Halves, _) => self.add_span::<16, false>(),
            }
        }
    }

    /// # Safety
    /// As [`Job::add`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn add_blocks<const ROWS: usize>(&self, format: Format) {
        // SAFETY: the caller's contract.
        unsafe {
            let mut sums = [_mm512_setzero_ps(); ROWS];
            for (row, sum) in sums.iter_mut().enumerate() {
                *sum = _mm512_loadu_ps(self.results.add(row * self.results_stride));
            }
            for block in 0..self.blocks {
                let span = self.header.add(block / 2 * format.span_bytes());
                if format.bits == 8 {
                    // Counted from the job that the tiles are at: one chunk further on.
                    let next = span.wrapping_add(CHUNK / format.span() * format.span_bytes());
                    prefetch(next.wrapping_add(block % 2 * format.block()), format.block() + 64);
                }
                let d = halves(span.add(block % 2 * 32));
                let dots = self.sums.add(block * SUMS);
                let mut scale = self.scales.add(block);
                for (row, sum) in sums.iter_mut().enumerate() {
                    let dot = _mm512_cvtepi32_ps(_mm512_loadu_si512(dots.add(row * 64).cast()));
                    *sum = _mm512_fmadd_ps(dot, _mm512_mul_ps(d, _mm512_set1_ps(*scale)), *sum);
                    scale = scale.wrapping_add(self.scales_stride);
                }
            }
            for (row, sum) in sums.iter().enumerate() {
                _mm512_storeu_ps(self.results.add(row * self.results_stride), *sum);
            }
        }
    }

    /// # Safety
    /// As [`Job::add`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn add_span<const ROWS: usize, const MINS: bool>(&self) {
        // SAFETY: the caller's contract.
        unsafe {
            let (d, dmin) = (halves(self.header), halves(self.header.add(32)));
            let mut mins = [_mm512_setzero_si512(); 4];
            for (pair, mins) in mins.iter_mut().enumerate() {
                let bytes = _mm256_loadu_si256(self.header.add(192 + pair * 32).cast());
                *mins = _mm512_cvtepu8_epi16(bytes);
            }
            for row in 0..ROWS {
                let result = self.results.add(row * self.results_stride);
                let low = _mm512_loadu_si512(self.sums.add(row * 64).cast());
                let high = _mm512_loadu_si512(self.sums.add(SUMS + row * 64).cast());
                let dot = _mm512_add_epi32(low, _mm512_slli_epi32::<7>(high));
                let scale = _mm512_set1_ps(*self.scales.add(row * self.scales_stride));
                let mut sum = _mm512_loadu_ps(result);
                sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), _mm512_mul_ps(d, scale), sum);
                if MINS {
                    let mut min = _mm512_setzero_si512();
                    for (pair, mins) in mins.iter().enumerate() {
                        let codes = *self.code_sums.add(row * self.code_sums_stride + pair);
                        min = _mm512_dpwssd_epi32(min, *mins, _mm512_set1_epi32(codes));
                    }
                    let dmin = _mm512_mul_ps(dmin, scale);
                    sum = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(min), dmin, sum);
                }
                _mm512_storeu_ps(result, sum);
            }
        }
    }
}
