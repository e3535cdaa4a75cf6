//! Attention over compressed keys and values (multi-head latent attention).
//!
//! The cache holds one row a token: the rotated part of its key and the latent from which every
//! head's key and value follow. The matrices that would expand it are applied to queries and results
//! instead, so heads share the row as they share keys in multi-query attention. The row is stored
//! twice, as key and as value.

use std::sync::Arc;

use candle_core::Result;
use pinion_kernels::{Activations, AttentionParams, PackedTensor, ops};

use super::{Linear, RmsNorm, RotaryEmbedding};
use crate::ForwardCtx;

/// How queries are made.
#[derive(Debug)]
pub enum QueryProjection {
    /// At once.
    Full(Linear),
    /// Through a narrow row of their own.
    LowRank {
        /// To the narrow row.
        down: Linear,
        /// Of the narrow row.
        norm: RmsNorm,
        /// To the heads.
        up: Linear,
    },
}

/// Heads that share a latent.
#[derive(Debug)]
pub struct LatentAttention {
    /// Layer index in the cache.
    pub layer: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Of a head of a query: what meets the latent, and what is rotated.
    pub query_dims: (usize, usize),
    /// Width of the latent.
    pub rank: usize,
    /// What scores are multiplied by.
    pub scale: f32,
    /// To all heads' first parts, then all heads' rotated parts.
    pub query: QueryProjection,
    /// To the latent, then the rotated part of the key.
    pub latent: Linear,
    /// Of the latent.
    pub norm: RmsNorm,
    /// For each head, from its query to what meets the latent: `[rank, query]`.
    pub key_heads: Vec<PackedTensor>,
    /// For each head, from the latent to its value: `[value, rank]`.
    pub value_heads: Vec<PackedTensor>,
    /// Angles of positions.
    pub rotary: Arc<RotaryEmbedding>,
    /// From heads back to rows.
    pub o_proj: Linear,
}

impl LatentAttention {
    /// Attends: rows `[num_tokens, hidden]` to heads `[num_tokens, num_heads * value]`.
    pub fn heads(&self, cx: &ForwardCtx<'_>, x: &Activations) -> Result<Activations> {
        let ((plain, rotated), rank, heads) = (self.query_dims, self.rank, self.num_heads);
        let query = match &self.query {
            QueryProjection::Full(linear) => linear.forward(x)?,
            QueryProjection::LowRank { down, norm, up } => {
                up.forward(&norm.forward(&down.forward(x)?)?)?
            }
        };
        let absorbed = ops::linear_heads(&query, (0, plain), &self.key_heads)?;
        let rotating = query.columns(heads * plain..heads * (plain + rotated))?;
        let query = Activations::beside_by_head(&[&rotating, &absorbed], heads)?;

        let mut latent = self.latent.forward(x)?;
        self.norm.forward_columns(&mut latent, 0..rank)?;
        let parts = [&latent.columns(rank..rank + rotated)?, &latent.columns(0..rank)?];
        let key = Activations::beside_by_head(&parts, 1)?;

        let mut qkv = Activations::beside_by_head(&[&query, &key, &key], 1)?;
        self.rotary.forward(cx, &mut qkv, (0..heads + 1, rotated + rank))?;
        let params = AttentionParams::new(self.scale);
        let out = cx.attention.forward((cx.kv, &cx.batch.attn), self.layer, &qkv, params)?;
        ops::linear_heads(&out, (rotated, rotated + rank), &self.value_heads)
    }
}
