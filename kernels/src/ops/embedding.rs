//! Token embedding: rows of a packed table.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, bail};

use super::check_dtype;
use crate::PackedTensor;
use crate::view::u32_slice;

/// Looks up rows: `ids` `[n]` u32 and `table` `[vocab, hidden]` give `[n, hidden]` f32.
///
/// The table is the one a tied output layer multiplies with; it exists once in memory.
///
/// # Errors
/// When an id is not below `vocab`.
pub fn embedding(ids: &Tensor, table: &PackedTensor) -> Result<Tensor> {
    check_dtype("embedding", "ids", ids, DType::U32)?;
    if ids.rank() != 1 {
        bail!("embedding: ids must be one-dimensional: {:?}", ids.shape())
    }
    ids.contiguous()?.apply_op1_no_bwd(&Embedding { table })
}

struct Embedding<'a> {
    table: &'a PackedTensor,
}

impl CustomOp1 for Embedding<'_> {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn cpu_fwd(&self, ids: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let ids = u32_slice(ids, layout)?;
        let (vocab, hidden) = (self.table.rows(), self.table.cols());
        let mut rows = vec![0f32; ids.len() * hidden];
        for (&id, row) in ids.iter().zip(rows.chunks_exact_mut(hidden)) {
            if id as usize >= vocab {
                bail!("embedding: token id {id} is not below the vocabulary size {vocab}")
            }
            self.table.read_row(id as usize, row);
        }
        Ok((CpuStorage::F32(rows), Shape::from((ids.len(), hidden))))
    }
}
