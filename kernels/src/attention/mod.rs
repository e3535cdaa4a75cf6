//! Attention over a paged KV cache.

mod metadata;
mod paged;
mod reference;
mod single;
mod softmax;
#[cfg(test)]
mod tests;
mod tile;

use candle_core::{Result, bail};

use crate::view::Rows;
use crate::{Activations, KvCacheSpec, PagedKvCache};

pub use metadata::AttnMetadata;
pub use paged::PagedAttention;
pub use reference::ReferenceAttention;

/// Constants of one layer.
#[derive(Clone, Copy, Debug)]
pub struct AttentionParams<'a> {
    /// Usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// Attend to this many last tokens only, the query's own included.
    pub sliding_window: Option<usize>,
    /// Scores `s` become `cap * tanh(s / cap)`.
    pub soft_cap: Option<f32>,
    /// A score for each query head that takes part in its softmax and has no value.
    pub sinks: Option<&'a [f32]>,
}

impl AttentionParams<'_> {
    /// Plain causal attention.
    pub const fn new(scale: f32) -> Self {
        Self { scale, sliding_window: None, soft_cap: None, sinks: None }
    }
}

/// The one seam between model code and attention kernels.
pub trait AttentionBackend: Send + Sync {
    /// Name for logs and metrics.
    fn name(&self) -> &'static str;

    /// Called once per step, before the first layer.
    fn plan(&self, _meta: &AttnMetadata) -> Result<()> {
        Ok(())
    }

    /// Stores K/V of the step, then attends.
    ///
    /// `qkv` is `[num_tokens, (num_heads + 2 * num_kv_heads) * head_dim]`: the query heads, the key
    /// heads and the value heads of each token, as a fused projection gives them. Returns
    /// `[num_tokens, num_heads * head_dim]`. A query attends to the keys up to its own position.
    ///
    /// # Errors
    /// When shapes or the metadata do not fit the cache.
    fn forward(
        &self,
        cx: (&PagedKvCache, &AttnMetadata),
        layer: usize,
        qkv: &Activations,
        params: AttentionParams<'_>,
    ) -> Result<Activations>;
}

/// Queries, keys and values of a step, checked against cache and metadata.
struct StepHeads<'a> {
    num_heads: usize,
    q: Rows<'a>,
    k: Rows<'a>,
    v: Rows<'a>,
}

impl<'a> StepHeads<'a> {
    fn new(
        (cache, meta): (&PagedKvCache, &AttnMetadata),
        qkv: &'a Activations,
        params: AttentionParams<'_>,
    ) -> Result<Self> {
        let KvCacheSpec { num_kv_heads: kv, head_dim, .. } = *cache.spec();
        let (width, all) = (qkv.width(), qkv.width() / head_dim);
        if !width.is_multiple_of(head_dim) || all <= 2 * kv || !all.is_multiple_of(kv) {
            bail!("attention: rows of {width} are no query heads for {kv} kv heads of {head_dim}")
        }
        meta.check(cache.spec(), qkv.rows())?;
        let num_heads = all - 2 * kv;
        if let Some(sinks) = params.sinks.filter(|sinks| sinks.len() != num_heads) {
            bail!("attention: {num_heads} query heads need as many sinks: {}", sinks.len())
        }
        Ok(Self {
            num_heads,
            q: qkv.heads(0..num_heads, head_dim),
            k: qkv.heads(num_heads..num_heads + kv, head_dim),
            v: qkv.heads(num_heads + kv..all, head_dim),
        })
    }
}
