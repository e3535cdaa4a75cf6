//! Paged attention of one layer.

use std::ops::Range;

use candle_core::Result;
use pinion_kernels::{Activations, AttentionParams};

use super::RotaryEmbedding;
use crate::ForwardCtx;

/// Holds sizes, asks the context for everything else.
#[derive(Debug)]
pub struct Attention {
    /// Layer index in the cache.
    pub layer: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key/value heads.
    pub num_kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Tokens a query sees, itself included, if the layer slides.
    pub sliding_window: Option<usize>,
}

impl Attention {
    /// The heads of queries and those of keys in the rows of a fused projection.
    pub fn query_and_key_heads(&self) -> (Range<usize>, Range<usize>) {
        (0..self.num_heads, self.num_heads..self.num_heads + self.num_kv_heads)
    }

    /// Rotates queries and keys of `qkv` by the position of each token.
    pub fn rotate(
        &self,
        cx: &ForwardCtx<'_>,
        rotary: &RotaryEmbedding,
        qkv: &mut Activations,
    ) -> Result<()> {
        rotary.forward(cx, qkv, (0..self.num_heads + self.num_kv_heads, self.head_dim))
    }

    /// Attends: `qkv` `[num_tokens, (q + k + v) * head_dim]` to `[num_tokens, q * head_dim]`.
    pub fn forward(&self, cx: &ForwardCtx<'_>, qkv: &Activations) -> Result<Activations> {
        let plain = AttentionParams::new(1.0 / (self.head_dim as f32).sqrt());
        let params = AttentionParams { sliding_window: self.sliding_window, ..plain };
        cx.attention.forward((cx.kv, &cx.batch.attn), self.layer, qkv, params)
    }
}
