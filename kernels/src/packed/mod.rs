//! Pinion's own weight storage: matrices in the order in which kernels read them.
//!
//! A matrix `[rows, cols]` is cut into panels of [`PANEL_ROWS`] rows; a panel is stored column by
//! column, so that a product with a vector streams one contiguous run of memory. The last panel is
//! padded with zero rows. Inside one column of a panel:
//!
//! - `f32`: the 64 rows in order;
//! - `bf16`: two groups of 32 rows; each group is 16 little-endian words of 32 bits, word `j` holds
//!   row `j` in its low half and row `j + 16` in its high half. One shift and one mask widen a word
//!   vector to two vectors of `f32`.

mod storage;
#[cfg(test)]
mod tests;
mod weight_type;

use std::ops::Range;

use candle_core::{DType, Device, Result, Tensor, bail};
use half::bf16;

use crate::gemm::{Ahead, Panel, Right};

pub use storage::{AlignedBytes, Storage};
pub use weight_type::WeightType;

/// Rows of one panel.
pub(crate) const PANEL_ROWS: usize = 64;

/// Rows of one group of a panel: what the smallest kernels compute at once.
pub(crate) const GROUP_ROWS: usize = 32;

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
        let mut bytes = AlignedBytes::zeroed(Self::packed_len(kind, rows, cols)?);
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
        rows.checked_next_multiple_of(PANEL_ROWS)
            .and_then(|rows| rows.checked_mul(cols))
            .and_then(|elements| elements.checked_mul(kind.size_in_bytes()))
            .filter(|&bytes| isize::try_from(bytes).is_ok())
            .ok_or_else(|| {
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

    /// The packed image, padding included.
    pub fn bytes(&self) -> &[u8] {
        self.storage.bytes()
    }

    /// The matrix as an `f32` tensor `[rows, cols]` on the CPU.
    pub fn unpack(&self) -> Result<Tensor> {
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

    /// Some columns of panel `index`.
    pub(crate) fn panel(&self, index: usize, cols: Range<usize>) -> Right<'_> {
        let stride = self.kind.column_words();
        let base = index * self.cols;
        let words = (base + cols.start) * stride..(base + cols.end) * stride;
        let panel = match self.kind {
            WeightType::F32 => Panel::F32(&self.storage.floats()[words]),
            WeightType::Bf16 => Panel::Bf16(&self.storage.words()[words]),
        };
        Right { panel, stride, ahead: Ahead::NOTHING }
    }

    /// Writes row `row` to `values`, which has `cols` elements.
    pub(crate) fn read_row(&self, row: usize, values: &mut [f32]) {
        let place = Place::of(self.kind, self.cols, row);
        let words = self.storage.words();
        for (col, value) in values.iter_mut().enumerate() {
            let word = words[place.word + col * place.stride];
            *value = match self.kind {
                WeightType::F32 => f32::from_bits(word),
                WeightType::Bf16 => f32::from_bits((word >> place.shift) << 16),
            };
        }
    }
}

/// Where one row lies in the words of a packed matrix.
struct Place {
    word: usize,
    stride: usize,
    shift: u32,
}

impl Place {
    fn of(kind: WeightType, cols: usize, row: usize) -> Self {
        let stride = kind.column_words();
        let (panel, lane) = (row / PANEL_ROWS, row % PANEL_ROWS);
        let base = panel * cols * stride;
        match kind {
            WeightType::F32 => Self { word: base + lane, stride, shift: 0 },
            WeightType::Bf16 => {
                let (group, lane) = (lane / GROUP_ROWS, lane % GROUP_ROWS);
                let word = base + group * GROUP_ROWS / 2 + lane % 16;
                Self { word, stride, shift: if lane < 16 { 0 } else { 16 } }
            }
        }
    }
}

fn write_row(kind: WeightType, cols: usize, words: &mut [u32], row: usize, values: &[f32]) {
    let place = Place::of(kind, cols, row);
    for (col, &value) in values.iter().enumerate() {
        let word = &mut words[place.word + col * place.stride];
        match kind {
            WeightType::F32 => *word = value.to_bits(),
            WeightType::Bf16 => {
                *word |= u32::from(bf16::from_f32(value).to_bits()) << place.shift;
            }
        }
    }
}

fn host_values(tensor: &Tensor) -> Result<Vec<f32>> {
    if !tensor.dtype().is_float() {
        bail!("weights must be floating point: {:?}", tensor.dtype())
    }
    tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}
