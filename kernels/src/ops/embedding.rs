//! Token embedding: rows of a packed table.

use candle_core::{DType, Result, Tensor, bail};

use super::check_dtype;
use crate::cuda;
use crate::view::with_u32;
use crate::{Activations, PackedTensor};

/// Looks up rows: `ids` `[n]` u32 and `table` `[vocab, hidden]` give `[n, hidden]`.
///
/// The table is the one a tied output layer multiplies with; it exists once in memory.
///
/// # Errors
/// When an id is not below `vocab`.
pub fn embedding(ids: &Tensor, table: &PackedTensor) -> Result<Activations> {
    check_dtype("embedding", "ids", ids, DType::U32)?;
    if ids.rank() != 1 {
        bail!("embedding: ids must be one-dimensional: {:?}", ids.shape())
    }
    let (vocab, hidden) = (table.rows(), table.cols());
    let tensor = &ids.contiguous()?;
    with_u32(tensor, |ids| {
        if let Some(id) = ids.iter().find(|&&id| id as usize >= vocab) {
            bail!("embedding: token id {id} is not below the vocabulary size {vocab}")
        }
        if let Some(matrix) = table.device() {
            let rows = cuda::embedding(tensor, matrix.bytes, table.kind(), hidden)?;
            return Ok(Activations::on_device(rows, ids.len(), hidden));
        }
        let mut rows = Activations::uninit(ids.len(), hidden);
        for (&id, row) in ids.iter().zip(rows.values_mut().chunks_exact_mut(hidden)) {
            table.read_row(id as usize, row);
        }
        Ok(rows)
    })?
}
