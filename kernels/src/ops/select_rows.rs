//! Some rows of activations.

use candle_core::{DType, Result, Tensor, bail};

use super::check_dtype;
use crate::Activations;
use crate::cuda;
use crate::view::with_u32;

/// The rows of `x` `[n, d]` that `indices` `[m]` u32 name, in that order: `[m, d]`.
///
/// # Errors
/// When an index is not below `n`.
pub fn select_rows(x: &Activations, indices: &Tensor) -> Result<Activations> {
    check_dtype("select_rows", "indices", indices, DType::U32)?;
    let tensor = &indices.contiguous()?;
    with_u32(tensor, |indices| {
        let Some(buffer) = x.device() else { return gather_rows(x, indices) };
        let num_rows = x.rows();
        if let Some(index) = indices.iter().find(|&&index| index as usize >= num_rows) {
            bail!("select_rows: index {index} is not below the number of rows {num_rows}")
        }
        let out = buffer.gpu().allocate(indices.len() * x.width() * size_of::<f32>())?;
        let shape = (indices.len(), x.width());
        cuda::copy_rows(buffer, shape, Some(tensor), &out, (0, x.width()))?;
        Ok(Activations::on_device(out, indices.len(), x.width()))
    })?
}

/// As [`select_rows`].
pub(super) fn gather_rows(x: &Activations, indices: &[u32]) -> Result<Activations> {
    let (rows, num_rows) = (x.view(), x.rows());
    let mut out = Activations::uninit(indices.len(), x.width());
    for (&index, out) in indices.iter().zip(out.values_mut().chunks_exact_mut(x.width())) {
        if index as usize >= num_rows {
            bail!("select_rows: index {index} is not below the number of rows {num_rows}")
        }
        out.copy_from_slice(rows.row(index as usize));
    }
    Ok(out)
}
