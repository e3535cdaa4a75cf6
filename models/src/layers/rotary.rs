//! Rotary position embedding of a model.

use std::ops::Range;

use candle_core::Result;
use pinion_kernels::{Activations, RopeTable, ops};

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

    /// Rotates some heads, each of the given width, by the position of each token.
    pub fn forward(
        &self,
        cx: &ForwardCtx<'_>,
        x: &mut Activations,
        heads: (Range<usize>, usize),
    ) -> Result<()> {
        ops::rope(x, heads, &cx.batch.positions, &self.0)
    }
}
