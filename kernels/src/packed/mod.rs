//! Pinion's own weight storage: matrices in the order in which kernels read them.
//!
//! A matrix `[rows, cols]` is cut into panels of [`PANEL_ROWS`] rows; a panel is stored column by
//! column, so that a product with a vector streams one contiguous run of memory. The last panel is
//! padded with zero rows.
//!
//! - `f32`: columns of 64 rows in order;
//! - `bf16`: four groups of 16 rows, one after the other. A group holds pairs of columns, padded
//!   with zeros to a multiple of [`PAIR_DEPTH`] columns; a pair is 16 little-endian words of 32
//!   bits, word `j` holds row `j` of the even column in its low half and of the odd one in its high
//!   half. One shift or one mask widens a vector of words to `f32`, and 16 pairs are a tile of AMX;
//! - quantized types are tiles of 16 rows, see [`crate::quant`].

mod storage;
#[cfg(test)]
mod tests;
mod weight_type;

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor, bail};
use half::bf16;

use crate::Gpu;
use crate::cpu::Cpu;
use crate::cuda::DeviceMatrix;
use crate::gemm::{Ahead, Panel, Right};
use crate::quant::{self, Matrix};

pub use storage::{AlignedBytes, Storage};
pub use weight_type::WeightType;

/// Version of all layouts of [`PackedTensor`] and of what makes them: whoever changes one of them,
/// so that the same weights have other bytes, counts it up. Stored bytes of another version are not
/// read.
pub const LAYOUT_VERSION: u32 = 1;

/// Rows of one panel.
pub(crate) const PANEL_ROWS: usize = 64;

/// Rows of one group of a panel: what the smallest kernels compute at once.
pub(crate) const GROUP_ROWS: usize = 32;

/// Rows of a group of column pairs.
pub(crate) const PAIR_ROWS: usize = 16;

/// Columns of column pairs are padded to a multiple of this.
pub(crate) const PAIR_DEPTH: usize = 32;

/// A weight matrix `[rows, cols]` (a linear layer's `[out, in]`) or vector in kernel layout.
///
/// Clones share the storage.
#[derive(Clone, Debug)]
pub struct PackedTensor {
    kind: WeightType,
    rows: usize,
    cols: usize,
    storage: Storage,
}

impl PackedTensor {
    /// Packs a floating-point `[rows, cols]` tensor of any layout and device.
    pub fn pack(tensor: &Tensor, kind: WeightType) -> Result<Self> {
        Self::pack_parts(std::slice::from_ref(tensor), kind)
    }

    /// Packs several `[rows_i, cols]` tensors below one another, as one matrix.
    ///
    /// This is how linears with one input are fused; no concatenated copy is made.
    pub fn pack_parts(parts: &[Tensor], kind: WeightType) -> Result<Self> {
        let mut rows = 0;
        let mut cols = None;
        for part in parts {
            let (part_rows, part_cols) = part.dims2()?;
            if *cols.get_or_insert(part_cols) != part_cols {
                bail!("cannot fuse matrices of {cols:?} and {part_cols} columns")
            }
            rows += part_rows;
        }
        let cols = cols.unwrap_or(0);
        let len = Self::packed_len(kind, rows, cols)?;
        if let Some(format) = kind.format() {
            let bytes = quant::pack(&Cpu::current(), format, cols, parts)?;
            return Ok(Self { kind, rows, cols, storage: bytes.into() });
        }
        let mut bytes = AlignedBytes::zeroed(len);
        let words = bytes.words_mut();
        let mut row = 0;
        for part in parts {
            let part_rows = part.dim(0)?;
            // A bounded number of rows at a time, so that widening never doubles the memory.
            for start in (0..part_rows).step_by(PANEL_ROWS) {
                let len = PANEL_ROWS.min(part_rows - start);
                let values = host_values(&part.narrow(0, start, len)?)?;
                for values in values.chunks_exact(cols) {
                    write_row(kind, cols, words, row, values);
                    row += 1;
                }
            }
        }
        Ok(Self { kind, rows, cols, storage: bytes.into() })
    }

    /// Repacks matrices of `cols` columns, below one another, from the blocks of a GGML file.
    ///
    /// Each part is whole rows of the file's tensor of the same type, as bytes. The integers and
    /// scales stay what they are in the file.
    ///
    /// # Errors
    /// When the type is not quantized, a row is not whole blocks (see
    /// [`WeightType::ggml_row_bytes`]), or a part is empty or not whole rows.
    pub fn from_ggml(kind: WeightType, cols: usize, parts: &[&[u8]]) -> Result<Self> {
        let Some(format) = kind.format() else { bail!("{kind} is not a type of quantized blocks") };
        let (rows, bytes) = quant::import(&Cpu::current(), format, cols, parts)?;
        Ok(Self { kind, rows, cols, storage: bytes.into() })
    }

    /// Packs a vector `[n]` (norm weights, biases) as `f32`: a matrix of one column, whose layout
    /// is the plain vector padded to whole panels.
    pub fn pack_vector(tensor: &Tensor) -> Result<Self> {
        Self::pack(&tensor.reshape((tensor.dims1()?, 1))?, WeightType::F32)
    }

    /// Adopts bytes that [`PackedTensor::bytes`] once gave, for the same kind and shape.
    ///
    /// # Errors
    /// When the length does not belong to this kind and shape, or the bytes are not aligned to
    /// [`AlignedBytes::ALIGNMENT`].
    pub fn from_parts(
        kind: WeightType,
        rows: usize,
        cols: usize,
        storage: impl Into<Storage>,
    ) -> Result<Self> {
        let storage = storage.into();
        let (expected, found) = (Self::packed_len(kind, rows, cols)?, storage.bytes().len());
        if expected != found {
            bail!("a packed {kind} matrix [{rows}, {cols}] has {expected} bytes: {found}")
        }
        if !storage.bytes().as_ptr().addr().is_multiple_of(AlignedBytes::ALIGNMENT) {
            bail!("packed weights are not aligned to {} bytes", AlignedBytes::ALIGNMENT)
        }
        Ok(Self { kind, rows, cols, storage })
    }

    /// Bytes of a packed matrix, padding included.
    ///
    /// # Errors
    /// When a dimension is zero or the size overflows.
    pub fn packed_len(kind: WeightType, rows: usize, cols: usize) -> Result<usize> {
        if rows == 0 || cols == 0 {
            bail!("a packed matrix needs rows and columns: [{rows}, {cols}]")
        }
        let bytes = if let Some(format) = kind.format() {
            if !cols.is_multiple_of(quant::BLOCK) {
                bail!("{kind} holds whole blocks of {} columns: {cols}", quant::BLOCK)
            }
            // A tile takes less than four bytes an element beside one header.
            cols.checked_mul(8 * quant::TILE_ROWS)
                .and_then(|_| rows.div_ceil(quant::TILE_ROWS).checked_mul(format.tile_bytes(cols)))
        } else {
            let padded_cols = match kind {
                WeightType::F32 => Some(cols),
                _ => cols.checked_next_multiple_of(PAIR_DEPTH),
            };
            rows.checked_next_multiple_of(PANEL_ROWS)
                .zip(padded_cols)
                .and_then(|(rows, cols)| rows.checked_mul(cols))
                .and_then(|elements| elements.checked_mul(kind.size_in_bytes()))
        };
        bytes.filter(|&bytes| isize::try_from(bytes).is_ok()).ok_or_else(|| {
            candle_core::Error::Msg(format!("matrix is too large: [{rows}, {cols}]"))
        })
    }

    /// Output features; the length of a vector.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input features; 1 for a vector.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Element type in memory.
    pub fn kind(&self) -> WeightType {
        self.kind
    }

    /// The packed image, padding included; empty for weights on a device.
    pub fn bytes(&self) -> &[u8] {
        self.storage.bytes()
    }

    /// The same weights in the memory of a device.
    pub(crate) fn copy_to(self, gpu: &Gpu) -> Result<Self> {
        let buffer = gpu.upload(self.bytes())?;
        Ok(Self { storage: Storage::Device(Arc::new(buffer)), ..self })
    }

    /// The weights as kernels of a device read them.
    pub(crate) fn device(&self) -> Option<DeviceMatrix<'_>> {
        let Storage::Device(bytes) = &self.storage else { return None };
        Some(DeviceMatrix { kind: self.kind, rows: self.rows, cols: self.cols, bytes })
    }

    /// The matrix as an `f32` tensor `[rows, cols]` on the CPU.
    ///
    /// # Errors
    /// When the weights are on a device.
    pub fn unpack(&self) -> Result<Tensor> {
        if self.device().is_some() {
            bail!("weights on a device are not unpacked")
        }
        let mut values = vec![0f32; self.rows * self.cols];
        for (row, values) in values.chunks_exact_mut(self.cols).enumerate() {
            self.read_row(row, values);
        }
        Tensor::from_vec(values, (self.rows, self.cols), &Device::Cpu)
    }

    /// A matrix of one column as an `f32` tensor `[rows]` on the CPU.
    pub fn to_vector(&self) -> Result<Tensor> {
        if self.cols != 1 {
            bail!("a matrix [{}, {}] is not a vector", self.rows, self.cols)
        }
        self.unpack()?.flatten_all()
    }

    /// Some columns of panel `index` of a dense matrix; the first is even.
    pub(crate) fn panel(&self, index: usize, cols: Range<usize>) -> Right<'_> {
        if self.kind == WeightType::F32 {
            let base = index * self.cols;
            let floats = (base + cols.start) * PANEL_ROWS..(base + cols.end) * PANEL_ROWS;
            let panel = Panel::F32(&self.storage.floats()[floats]);
            return Right { panel, stride: PANEL_ROWS, ahead: Ahead::NOTHING };
        }
        let stride = self.pair_group_words();
        let first = index * PANEL_ROWS / PAIR_ROWS * stride;
        let start = cols.start / 2 * PAIR_ROWS;
        let end = 3 * stride + cols.end.div_ceil(2) * PAIR_ROWS;
        let panel = Panel::Bf16(&self.storage.words()[first + start..first + end]);
        Right { panel, stride, ahead: Ahead::NOTHING }
    }

    /// The words of all groups of 16 rows of a `bf16` matrix, and how many one group has.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn pair_groups(&self) -> (&[u32], usize) {
        (self.storage.words(), self.pair_group_words())
    }

    fn pair_group_words(&self) -> usize {
        pair_group_words(self.cols)
    }

    /// The matrix as products with quantized types read it.
    pub(crate) fn quantized(&self) -> Option<Matrix<'_>> {
        let format = self.kind.format()?;
        Some(Matrix { format, bytes: self.bytes(), rows: self.rows, cols: self.cols })
    }

    /// Writes row `row` to `values`, which has `cols` elements.
    pub(crate) fn read_row(&self, row: usize, values: &mut [f32]) {
        if let Some(format) = self.kind.format() {
            return quant::read_row(format, self.bytes(), row, values);
        }
        let words = self.storage.words();
        if self.kind == WeightType::F32 {
            let words = words[first_float(self.cols, row)..].iter().step_by(PANEL_ROWS);
            values.iter_mut().zip(words).for_each(|(value, word)| *value = f32::from_bits(*word));
            return;
        }
        let words = words[first_pair(self.cols, row)..].iter().step_by(PAIR_ROWS);
        for (values, word) in values.chunks_mut(2).zip(words) {
            let halves = [word << 16, word & 0xffff_0000];
            values.iter_mut().zip(halves).for_each(|(v, half)| *v = f32::from_bits(half));
        }
    }
}

/// Where a row of an `f32` matrix starts; its elements are [`PANEL_ROWS`] apart.
fn first_float(cols: usize, row: usize) -> usize {
    row / PANEL_ROWS * cols * PANEL_ROWS + row % PANEL_ROWS
}

/// Where a row of a `bf16` matrix starts; its pairs are [`PAIR_ROWS`] apart.
fn first_pair(cols: usize, row: usize) -> usize {
    row / PAIR_ROWS * pair_group_words(cols) + row % PAIR_ROWS
}

fn pair_group_words(cols: usize) -> usize {
    cols.next_multiple_of(PAIR_DEPTH) / 2 * PAIR_ROWS
}

fn write_row(kind: WeightType, cols: usize, words: &mut [u32], row: usize, values: &[f32]) {
    if kind == WeightType::F32 {
        let words = words[first_float(cols, row)..].iter_mut().step_by(PANEL_ROWS);
        words.zip(values).for_each(|(word, value)| *word = value.to_bits());
        return;
    }
    let half = |value: f32| u32::from(bf16::from_f32(value).to_bits());
    let words = words[first_pair(cols, row)..].iter_mut().step_by(PAIR_ROWS);
    for (word, values) in words.zip(values.chunks(2)) {
        *word = half(values[0]) | values.get(1).map_or(0, |&value| half(value) << 16);
    }
}

/// The values of a floating-point tensor, on the host.
pub(crate) fn host_values(tensor: &Tensor) -> Result<Vec<f32>> {
    if !tensor.dtype().is_float() {
        bail!("weights must be floating point: {:?}", tensor.dtype())
    }
    tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}
