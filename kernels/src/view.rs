//! Host slices of activations and candle tensors.

use std::ops::Range;

use candle_core::{CpuStorage, Layout, Result, Storage, Tensor, bail};

/// Rows of `f32` values, each dense.
///
/// The heads of a fused projection are such rows, so reading them needs no copy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows<'a> {
    data: &'a [f32],
    outer: (usize, usize),
    inner: (usize, usize),
    width: usize,
}

impl<'a> Rows<'a> {
    /// Rows one after the other.
    pub(crate) fn dense(data: &'a [f32], width: usize) -> Self {
        let rows = data.len().checked_div(width).unwrap_or(0);
        Self { data, outer: (rows, width), inner: (1, 0), width }
    }

    /// Some heads of rows that are `stride` wide.
    pub(crate) fn heads(
        data: &'a [f32],
        stride: usize,
        heads: Range<usize>,
        head_dim: usize,
    ) -> Self {
        let tokens = data.len().checked_div(stride).unwrap_or(0);
        let data = data.get(heads.start * head_dim..).unwrap_or_default();
        Self { data, outer: (tokens, stride), inner: (heads.len(), head_dim), width: head_dim }
    }

    /// Some columns of rows that are `stride` wide.
    pub(crate) fn columns(data: &'a [f32], stride: usize, first: usize, width: usize) -> Self {
        let rows = data.len().checked_div(stride).unwrap_or(0);
        let data = data.get(first..).unwrap_or_default();
        Self { data, outer: (rows, stride), inner: (1, 0), width }
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.outer.0 * self.inner.0
    }

    /// Elements of a row.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Row `index`, counting over all tokens and heads.
    pub(crate) fn row(&self, index: usize) -> &'a [f32] {
        let (outer, inner) = (index / self.inner.0, index % self.inner.0);
        let start = outer * self.outer.1 + inner * self.inner.1;
        &self.data[start..start + self.width]
    }
}

/// Calls `run` with the values of a contiguous `f32` tensor on the CPU.
pub(crate) fn with_f32<R>(tensor: &Tensor, run: impl FnOnce(&[f32]) -> R) -> Result<R> {
    with_storage(tensor, |storage, layout| match storage {
        CpuStorage::F32(values) => Ok(run(contiguous(values, layout)?)),
        _ => bail!("expected f32 values"),
    })
}

/// Calls `run` with the values of a contiguous `u32` tensor on the CPU.
pub(crate) fn with_u32<R>(tensor: &Tensor, run: impl FnOnce(&[u32]) -> R) -> Result<R> {
    with_storage(tensor, |storage, layout| match storage {
        CpuStorage::U32(values) => Ok(run(contiguous(values, layout)?)),
        _ => bail!("expected u32 values"),
    })
}

/// Calls `run` with what is behind a tensor on the CPU.
pub(crate) fn with_storage<R>(
    tensor: &Tensor,
    run: impl FnOnce(&CpuStorage, &Layout) -> Result<R>,
) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => run(storage, layout),
        _ => bail!("expected a tensor on the CPU: {:?}", tensor.device().location()),
    }
}

fn contiguous<'a, T>(values: &'a [T], layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&values[start..end]),
        None => bail!("expected contiguous values: {layout:?}"),
    }
}
