//! Rotary position embedding of a model.

use candle_core::{Result, Tensor};
use pinion_kernels::{RopeTable, ops};

use super::RopeConfig;
use crate::ForwardCtx;

/// The angles of a model, shared by all its layers.
#[derive(Debug)]
pub struct RotaryEmbedding(RopeTable);

impl RotaryEmbedding {
    /// Angles for positions below `max_model_len`, over whole heads of `head_dim`.
    pub fn new(config: &RopeConfig, head_dim: usize, max_model_len: usize) -> Result<Self> {
        let (frequencies, attention_factor) =
            config.inverse_frequencies(head_dim, max_model_len)?;
        Ok(Self(RopeTable::new(&frequencies, attention_factor, max_model_len)))
    }

    /// Rotates `[num_tokens, heads, head_dim]` by each token's position.
    pub fn forward(&self, cx: &ForwardCtx<'_>, x: &Tensor) -> Result<Tensor> {
        ops::rope(x, &cx.batch.positions, &self.0)
    }
}
