//! Activations as 8-bit integers.
#![expect(clippy::inline_always, reason = "inlined into code compiled for an instruction set")]
#![expect(unsafe_code, reason = "threads write disjoint rows")]

use super::{BLOCK, Family, Format, TILE_ROWS};
use crate::cpu::{Cpu, Kernel};
use crate::packed::AlignedBytes;
use crate::pool::Parts;
use crate::view::Rows;

/// Bytes of a cache line, and of a row of a matrix tile.
const LINE: usize = 64;

/// Rows that one call quantizes, in values.
const CHUNK: usize = 1 << 14;

/// Rows of activations, each value `scale * code`, with the sums of codes that formats need.
///
/// A row that holds NaN or an infinity in a grain has the scale NaN there, and so becomes a row of
/// NaN. Values below 2^-100 count as zero. The buffers are kept for the next use.
pub(super) struct QuantizedRows {
    codes: AlignedBytes,
    scales: Vec<f32>,
    sums: Vec<i32>,
    rows: usize,
    shape: Shape,
}

/// Sizes of one row.
#[derive(Clone, Copy, Default)]
pub(super) struct Shape {
    /// Bytes from one row of codes to the next: whole lines, and one more, because rows a power of
    /// two apart would share the places of the cache. Columns up to whole lines are zero.
    pub(super) stride: usize,
    /// Scales.
    pub(super) scales: usize,
    /// Words of sums.
    pub(super) sums: usize,
}

impl Shape {
    fn of(format: Format, cols: usize) -> Self {
        let spans = cols.div_ceil(format.span());
        let sums = match format.family {
            Family::Plain => cols / BLOCK,
            Family::Mins => spans * 4,
            Family::Halves => spans * 8,
        };
        let stride = cols.next_multiple_of(LINE) + LINE;
        Self { stride, scales: cols.div_ceil(format.grain()), sums }
    }

    /// Whether rows of this shape can be multiplied with `cols` columns of a format.
    pub(super) fn holds(self, format: Format, cols: usize) -> bool {
        let needed = Self::of(format, cols);
        self.stride >= needed.stride && self.scales >= needed.scales && self.sums >= needed.sums
    }
}

/// What kernels read of some rows.
#[derive(Clone, Copy)]
pub(super) struct Left<'a> {
    /// Codes, aligned to a line.
    pub(super) codes: &'a [u8],
    /// A scale a grain.
    pub(super) scales: &'a [f32],
    /// A block's sum of codes times the negative offset of the format; or the sums of two blocks
    /// or two halves of a block, as two 16-bit integers.
    pub(super) sums: &'a [i32],
    /// Sizes of a row.
    pub(super) shape: Shape,
}

impl Default for QuantizedRows {
    fn default() -> Self {
        let codes = AlignedBytes::zeroed(0);
        Self { codes, scales: Vec::new(), sums: Vec::new(), rows: 0, shape: Shape::default() }
    }
}

impl QuantizedRows {
    /// Quantizes `x`, whose width is whole blocks, for products with weights of `format`.
    pub(super) fn quantize(&mut self, cpu: &Cpu, format: Format, x: Rows<'_>) {
        let (rows, width, shape) = (x.len(), x.width(), Shape::of(format, x.width()));
        (self.rows, self.shape) = (rows, shape);
        // Whole tiles of rows; what lies behind the last row is read and not used.
        let room = rows.next_multiple_of(TILE_ROWS);
        if self.codes.as_slice().len() < room * shape.stride {
            self.codes = AlignedBytes::zeroed(room * shape.stride);
        }
        self.scales.resize(room * shape.scales, 0.0);
        self.sums.resize(room * shape.sums, 0);
        let codes = Parts::new(self.codes.as_mut_slice());
        let (scales, sums) = (Parts::new(&mut self.scales), Parts::new(&mut self.sums));
        let chunk_rows = (CHUNK / width).max(1);
        let num_chunks = rows.div_ceil(chunk_rows);
        cpu.pool.for_each_worth(8 * width * rows, num_chunks, |chunk| {
            for row in chunk * chunk_rows..rows.min((chunk + 1) * chunk_rows) {
                let part = |len: usize| row * len..(row + 1) * len;
                // SAFETY: rows are disjoint, and each is quantized once.
                let (codes, scales, sums) = unsafe {
                    let codes = codes.part(part(shape.stride));
                    (codes, scales.part(part(shape.scales)), sums.part(part(shape.sums)))
                };
                cpu.isa.run(QuantizeRow { format, x: x.row(row), codes, scales, sums });
            }
        });
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.rows
    }

    /// The rows from `first` on.
    pub(super) fn from(&self, first: usize) -> Left<'_> {
        let shape = self.shape;
        Left {
            codes: &self.codes.as_slice()[first * shape.stride..],
            scales: &self.scales[first * shape.scales..],
            sums: &self.sums[first * shape.sums..],
            shape,
        }
    }
}

struct QuantizeRow<'a> {
    format: Format,
    x: &'a [f32],
    codes: &'a mut [u8],
    scales: &'a mut [f32],
    sums: &'a mut [i32],
}

impl Kernel for QuantizeRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Self { format, x, codes, scales, sums } = self;
        let (codes, padding) = codes.split_at_mut(x.len());
        padding.fill(0);
        let grain = format.grain();
        for ((x, codes), scale) in x.chunks(grain).zip(codes.chunks_mut(grain)).zip(scales) {
            *scale = quantize_grain(x, codes);
        }
        match format.family {
            Family::Plain => {
                for (codes, word) in codes.chunks_exact(BLOCK).zip(sums) {
                    *word = -format.offset() * sum(codes);
                }
            }
            Family::Mins => pair_sums(codes, BLOCK, sums),
            Family::Halves => pair_sums(codes, BLOCK / 2, sums),
        }
    }
}

/// Adding 1.5 * 2^23 rounds to an integer, ties to even, and leaves it in the low bits.
const ROUND: f32 = 12_582_912.0;

/// Writes codes between -127 and 127 and returns their scale.
#[inline(always)]
fn quantize_grain(x: &[f32], codes: &mut [u8]) -> f32 {
    // As integers: NaN is above infinity, and infinity above every number.
    let mut bits = [0u32; 16];
    for x in x.chunks_exact(16) {
        for (bits, x) in bits.iter_mut().zip(x) {
            *bits = (*bits).max(x.to_bits() & 0x7fff_ffff);
        }
    }
    let largest = f32::from_bits(bits.iter().fold(0, |most, &bits| most.max(bits)));
    if !largest.is_finite() {
        codes.fill(0);
        return f32::NAN;
    }
    if largest < SMALL {
        codes.fill(0);
        return 0.0;
    }
    let inverse = 127.0 / largest;
    for (code, &x) in codes.iter_mut().zip(x) {
        *code = (x * inverse + ROUND).to_bits() as u8;
    }
    largest / 127.0
}

/// 2^-100: the inverse of less may be infinite.
const SMALL: f32 = f32::from_bits((127 - 100) << 23);

#[inline(always)]
fn sum(codes: &[u8]) -> i32 {
    let mut sums = [0i16; 16];
    for codes in codes.chunks_exact(16) {
        for (sum, &code) in sums.iter_mut().zip(codes) {
            *sum += i16::from(code.cast_signed());
        }
    }
    sums.iter().map(|&sum| i32::from(sum)).sum()
}

/// Writes the sums of every two runs of `len` codes into one word.
#[inline(always)]
fn pair_sums(codes: &[u8], len: usize, sums: &mut [i32]) {
    let mut runs = codes.chunks_exact(len);
    for word in sums {
        let [low, high] = [0, 1].map(|_| runs.next().map_or(0, sum));
        *word = low & 0xffff | high << 16;
    }
}
