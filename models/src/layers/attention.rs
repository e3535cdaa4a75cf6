//! Paged attention of one layer, from its projections to its heads.

use std::sync::Arc;

use candle_core::Result;
use pinion_kernels::{Activations, AttentionParams};

use super::{Linear, RmsNorm, RotaryEmbedding};
use crate::ForwardCtx;

/// What queries and keys are normalized by before they are rotated.
#[derive(Debug)]
pub struct QueryKeyNorm {
    /// As wide as a head, or as all query heads together.
    pub query: RmsNorm,
    /// Likewise.
    pub key: RmsNorm,
}

/// Heads of their own, or shared by groups of queries.
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
    /// What scores are multiplied by.
    pub scale: f32,
    /// Tokens a query sees, itself included, if the layer slides.
    pub sliding_window: Option<usize>,
    /// What scores are bent towards.
    pub soft_cap: Option<f32>,
    /// A score without a value for each query head.
    pub sinks: Option<Vec<f32>>,
    /// Query, key and value heads of each token.
    pub qkv_proj: Linear,
    /// Norms of queries and keys.
    pub norm: Option<QueryKeyNorm>,
    /// Angles of positions; layers without any know order by the mask only.
    pub rotary: Option<Arc<RotaryEmbedding>>,
    /// From heads back to rows.
    pub o_proj: Linear,
}

impl Attention {
    /// Attends: rows `[num_tokens, hidden]` to heads `[num_tokens, num_heads * head_dim]`.
    pub fn heads(&self, cx: &ForwardCtx<'_>, x: &Activations) -> Result<Activations> {
        let mut qkv = self.qkv_proj.forward(x)?;
        let query = self.num_heads * self.head_dim;
        let key = query + self.num_kv_heads * self.head_dim;
        if let Some(norm) = &self.norm {
            norm.query.forward_columns(&mut qkv, 0..query)?;
            norm.key.forward_columns(&mut qkv, query..key)?;
        }
        if let Some(rotary) = &self.rotary {
            rotary.forward(cx, &mut qkv, (0..self.num_heads + self.num_kv_heads, self.head_dim))?;
        }
        let params = AttentionParams {
            scale: self.scale,
            sliding_window: self.sliding_window,
            soft_cap: self.soft_cap,
            sinks: self.sinks.as_deref(),
        };
        cx.attention.forward((cx.kv, &cx.batch.attn), self.layer, &qkv, params)
    }
}
