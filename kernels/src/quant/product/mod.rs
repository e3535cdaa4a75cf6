//! Products of quantized activations with tiles.
#![expect(unsafe_code, reason = "threads write disjoint parts of one result; vector kernels")]

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use std::cell::RefCell;

#[cfg(target_arch = "x86_64")]
use super::Family;
use super::activations::{Left, QuantizedRows};
use super::{Format, TILE_ROWS};
use crate::cpu::{Cpu, Isa, Path};
use crate::pool::Parts;
use crate::view::Rows;

/// Tiles of one item of work.
const PANEL_TILES: usize = 4;

/// Rows that any path takes at once.
const MAX_ROWS: usize = 8;

/// A matrix in tiles.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    /// Its type.
    pub(crate) format: Format,
    /// Its tiles.
    pub(crate) bytes: &'a [u8],
    /// Output features.
    pub(crate) rows: usize,
    /// Input features.
    pub(crate) cols: usize,
}

impl<'a> Matrix<'a> {
    fn num_tiles(self) -> usize {
        self.rows.div_ceil(TILE_ROWS)
    }

    fn tile(self, index: usize) -> &'a [u8] {
        let len = self.format.tile_bytes(self.cols);
        &self.bytes[index * len..][..len]
    }
}

/// Finishes sums of some lanes of a row: takes the first lane, the sums and where they go.
type Finish<'a> = dyn Fn(usize, &[f32], &mut [f32]) + Sync + 'a;

/// A few rows times one tile.
struct Call<'a> {
    format: Format,
    tile: &'a [u8],
    cols: usize,
    left: Left<'a>,
    rows: usize,
    /// `[rows][TILE_ROWS]`, written.
    sums: &'a mut [f32],
}

std::thread_local! {
    /// Kept from one product to the next.
    static ACTIVATIONS: RefCell<QuantizedRows> = RefCell::default();
}

/// Writes `x` times the transposed matrix to `out` `[n, rows]`, through `finish`.
pub(crate) fn multiply(
    cpu: &Cpu,
    x: Rows<'_>,
    matrix: Matrix<'_>,
    out: &mut [f32],
    finish: &Finish<'_>,
) {
    let mut activations = ACTIVATIONS.take();
    activations.quantize(cpu, matrix.format, x);
    let left = &activations;
    let work = left.len() * matrix.rows * matrix.cols;
    let num_tiles = matrix.num_tiles();
    let parts = Parts::new(out);
    cpu.pool.for_each_worth(work, num_tiles.div_ceil(PANEL_TILES), |panel| {
        let write = |row: usize, lane: usize, sums: &[f32]| {
            let sums = &sums[..sums.len().min(matrix.rows - lane)];
            let start = row * matrix.rows + lane;
            // SAFETY: panels are disjoint columns of the result.
            finish(lane, sums, unsafe { parts.part(start..start + sums.len()) });
        };
        let tiles = panel * PANEL_TILES..num_tiles.min((panel + 1) * PANEL_TILES);
        #[cfg(target_arch = "x86_64")]
        if cpu.isa.path() == Path::Amx && left.len() >= amx::MIN_ROWS {
            // SAFETY: the instructions were detected, and tiles permitted.
            return unsafe { amx::multiply(left, matrix, tiles, &write) };
        }
        for tile in tiles {
            multiply_tile(cpu.isa, left, matrix, tile, &write);
        }
    });
    ACTIVATIONS.set(activations);
}

fn multiply_tile(
    isa: Isa,
    activations: &QuantizedRows,
    matrix: Matrix<'_>,
    index: usize,
    write: &impl Fn(usize, usize, &[f32]),
) {
    let Matrix { format, cols, .. } = matrix;
    let path = Kernel::of(isa);
    let mut sums = [0f32; MAX_ROWS * TILE_ROWS];
    for first in (0..activations.len()).step_by(path.max_rows()) {
        let rows = path.max_rows().min(activations.len() - first);
        let (tile, left) = (matrix.tile(index), activations.from(first));
        path.run(&mut Call { format, tile, cols, left, rows, sums: &mut sums });
        for (row, sums) in (first..first + rows).zip(sums.chunks_exact(TILE_ROWS)) {
            write(row, index * TILE_ROWS, sums);
        }
    }
}

/// Who computes a [`Call`].
#[derive(Clone, Copy)]
enum Kernel {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Kernel {
    fn of(isa: Isa) -> Self {
        match isa.path() {
            #[cfg(target_arch = "x86_64")]
            Path::Avx512 | Path::Amx if is_x86_feature_detected!("avx512vnni") => Self::Avx512,
            #[cfg(target_arch = "x86_64")]
            Path::Avx2 | Path::Avx512 if is_x86_feature_detected!("f16c") => Self::Avx2,
            _ => Self::Portable,
        }
    }

    fn max_rows(self) -> usize {
        match self {
            Self::Portable => portable::MAX_ROWS,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => avx2::MAX_ROWS,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => avx512::MAX_ROWS,
        }
    }

    fn run(self, call: &mut Call<'_>) {
        call.check();
        match self {
            Self::Portable => portable::run(call),
            // SAFETY: the instructions were detected, and the call was checked.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { avx2::run(call) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { avx512::run(call) },
        }
    }
}

impl Call<'_> {
    fn check(&self) {
        let Left { codes, scales, sums, shape } = self.left;
        assert!(self.cols.is_multiple_of(super::BLOCK), "rows are whole blocks");
        assert!(self.tile.len() >= self.format.tile_bytes(self.cols), "the tile is complete");
        assert!(shape.holds(self.format, self.cols), "activations fit the format");
        assert!(codes.len() >= self.rows * shape.stride, "the codes are complete");
        assert!(scales.len() >= self.rows * shape.scales, "the scales are complete");
        assert!(sums.len() >= self.rows * shape.sums, "the sums are complete");
        assert!(self.sums.len() >= self.rows * TILE_ROWS, "the result has room");
    }
}

/// What a vector kernel reads and writes; see [`Call`].
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct Pointers {
    tile: *const u8,
    cols: usize,
    codes: *const u8,
    stride: usize,
    scales: *const f32,
    scales_stride: usize,
    sums: *const i32,
    sums_stride: usize,
    out: *mut f32,
}

#[cfg(target_arch = "x86_64")]
impl Pointers {
    fn of(call: &mut Call<'_>) -> Self {
        Self {
            tile: call.tile.as_ptr(),
            cols: call.cols,
            codes: call.left.codes.as_ptr(),
            stride: call.left.shape.stride,
            scales: call.left.scales.as_ptr(),
            scales_stride: call.left.shape.scales,
            sums: call.left.sums.as_ptr(),
            sums_stride: call.left.shape.sums,
            out: call.sums.as_mut_ptr(),
        }
    }
}

/// A format as constants: the family by its number, and bits.
#[cfg(target_arch = "x86_64")]
const fn format<const FAMILY: usize, const BITS: usize>() -> Format {
    let family = match FAMILY {
        0 => Family::Plain,
        1 => Family::Mins,
        _ => Family::Halves,
    };
    Format { bits: BITS, family }
}
