//! Attention over a paged KV cache.

mod metadata;
mod paged;
mod reference;
mod softmax;
#[cfg(test)]
mod tests;
mod tile;

use candle_core::{DType, Result, Tensor, bail};

use crate::PagedKvCache;

pub use metadata::AttnMetadata;
pub use paged::PagedAttention;
pub use reference::ReferenceAttention;

/// Constants of one layer.
#[derive(Clone, Copy, Debug)]
pub struct AttentionParams {
    /// Usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// Attend to this many last tokens only, the query's own included.
    pub sliding_window: Option<usize>,
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
    /// `q` is `[num_tokens, num_heads, head_dim]` f32, `k` and `v` have `num_kv_heads`; returns
    /// `[num_tokens, num_heads * head_dim]`. A query attends to the keys up to its own position.
    ///
    /// # Errors
    /// When shapes, types or the metadata do not fit the cache.
    fn forward(
        &self,
        cx: (&PagedKvCache, &AttnMetadata),
        layer: usize,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        params: AttentionParams,
    ) -> Result<Tensor>;
}

/// Refuses queries that do not fit the cache and the metadata.
fn check_queries(cache: &PagedKvCache, meta: &AttnMetadata, q: &Tensor) -> Result<()> {
    let (num_tokens, num_heads, head_dim) = q.dims3()?;
    let spec = cache.spec();
    if q.dtype() != DType::F32 {
        bail!("attention: q must be F32: {:?}", q.dtype())
    }
    if head_dim != spec.head_dim || num_heads == 0 || num_heads % spec.num_kv_heads != 0 {
        bail!(
            "attention: {num_heads} query heads of {head_dim} do not fit {} kv heads of {}",
            spec.num_kv_heads,
            spec.head_dim
        )
    }
    meta.check(spec, num_tokens)
}
