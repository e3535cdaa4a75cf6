//! Host slices of candle tensors.

use candle_core::{CpuStorage, Layout, Result, Tensor, bail};

/// Rows of `f32` values: the last dimension is dense, the leading ones may be strided.
///
/// A `[n, heads, d]` slice of a fused projection is such a view, so it needs no copy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows<'a> {
    data: &'a [f32],
    outer: (usize, usize),
    inner: (usize, usize),
    width: usize,
}

impl<'a> Rows<'a> {
    /// A view of `[.., width]`; anything that is not three-dimensional must be contiguous.
    pub(crate) fn new(storage: &'a CpuStorage, layout: &Layout) -> Result<Self> {
        let data = &f32_storage(storage)?[layout.start_offset()..];
        let (dims, strides) = (layout.dims(), layout.stride());
        let Some(&width) = dims.last() else { bail!("a scalar has no rows") };
        if layout.is_contiguous() {
            let rows = dims[..dims.len() - 1].iter().product();
            return Ok(Self { data, outer: (rows, width), inner: (1, 0), width });
        }
        let (outer, inner) = match (dims, strides) {
            (&[a, b, _], &[sa, sb, 1]) => ((a, sa), (b, sb)),
            (&[a, _], &[sa, 1]) => ((a, sa), (1, 0)),
            _ => bail!("rows are not dense in memory: {layout:?}"),
        };
        Ok(Self { data, outer, inner, width })
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.outer.0 * self.inner.0
    }

    /// Elements of a row.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Row `index`, counting over all leading dimensions.
    pub(crate) fn row(&self, index: usize) -> &'a [f32] {
        let (outer, inner) = (index / self.inner.0, index % self.inner.0);
        let start = outer * self.outer.1 + inner * self.inner.1;
        &self.data[start..start + self.width]
    }
}

/// The tensor, copied only if [`Rows`] cannot view it as it is.
pub(crate) fn dense_rows(x: &Tensor) -> Result<Tensor> {
    let (rank, dense) = (x.rank(), x.stride().last() == Some(&1));
    if matches!(rank, 2 | 3) && dense { Ok(x.clone()) } else { x.contiguous() }
}

/// The values of a contiguous `f32` tensor.
pub(crate) fn f32_slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    contiguous(f32_storage(storage)?, layout)
}

/// The values of a contiguous `u32` tensor.
pub(crate) fn u32_slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [u32]> {
    match storage {
        CpuStorage::U32(values) => contiguous(values, layout),
        _ => bail!("expected u32 values"),
    }
}

fn f32_storage(storage: &CpuStorage) -> Result<&[f32]> {
    match storage {
        CpuStorage::F32(values) => Ok(values),
        _ => bail!("expected f32 values"),
    }
}

fn contiguous<'a, T>(values: &'a [T], layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&values[start..end]),
        None => bail!("expected contiguous values: {layout:?}"),
    }
}
