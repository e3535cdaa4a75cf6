//! Paged attention of one layer.

use candle_core::{Result, Tensor};
use pinion_kernels::AttentionParams;

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
    /// Splits a fused `[num_tokens, q + k + v]` into `[num_tokens, heads, head_dim]` each.
    pub fn split(&self, qkv: &Tensor) -> Result<(Tensor, Tensor, Tensor)> {
        // Views of the fused rows: kernels read them where they are.
        let (q, kv) = (self.num_heads, self.num_kv_heads);
        let heads = qkv.reshape((qkv.dim(0)?, q + 2 * kv, self.head_dim))?;
        Ok((heads.narrow(1, 0, q)?, heads.narrow(1, q, kv)?, heads.narrow(1, q + kv, kv)?))
    }

    /// Attends; returns `[num_tokens, num_heads * head_dim]`.
    pub fn forward(
        &self,
        cx: &ForwardCtx<'_>,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
    ) -> Result<Tensor> {
        let params = AttentionParams {
            scale: 1.0 / (self.head_dim as f32).sqrt(),
            sliding_window: self.sliding_window,
        };
        cx.attention.forward((cx.kv, &cx.batch.attn), self.layer, q, k, v, params)
    }
}
