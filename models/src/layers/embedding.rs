//! Token embedding.

use candle_core::{Result, Tensor};
use pinion_kernels::{Activations, PackedTensor, ops};

use super::Linear;

/// A table of one row per token.
#[derive(Debug)]
pub struct Embedding(PackedTensor);

impl Embedding {
    pub(crate) fn new(table: PackedTensor) -> Self {
        Self(table)
    }

    /// `[num_tokens]` ids to `[num_tokens, hidden]`.
    pub fn forward(&self, ids: &Tensor) -> Result<Activations> {
        ops::embedding(ids, &self.0)
    }

    /// The output layer of a model with tied embeddings; shares the table's memory.
    pub fn tied_linear(&self) -> Linear {
        Linear::new(self.0.clone(), None)
    }
}
