//! Attention in plain tensor code: slow, right, and the oracle of every faster backend.

use candle_core::{D, DType, Device, Result, Tensor};

use super::{AttentionBackend, AttentionParams, AttnMetadata, StepHeads};
use crate::{Activations, PagedKvCache};

/// Gathers the keys of each sequence and attends with candle's own operations.
#[derive(Debug, Default)]
pub struct ReferenceAttention;

impl AttentionBackend for ReferenceAttention {
    fn name(&self) -> &'static str {
        "reference"
    }

    fn forward(
        &self,
        (cache, meta): (&PagedKvCache, &AttnMetadata),
        layer: usize,
        qkv: &Activations,
        params: AttentionParams<'_>,
    ) -> Result<Activations> {
        let heads = StepHeads::new((cache, meta), qkv, params)?;
        cache.store(layer, heads.k, heads.v, &meta.slot_mapping)?;
        let (num_heads, head_dim) = (heads.num_heads, cache.spec().head_dim);
        let values: Vec<f32> =
            (0..heads.q.len()).flat_map(|row| heads.q.row(row).to_vec()).collect();
        let q = Tensor::from_vec(values, (qkv.rows(), num_heads, head_dim), &Device::Cpu)?;
        let mut outputs = Vec::with_capacity(meta.num_seqs());
        for seq in 0..meta.num_seqs() {
            let (start, len) = meta.queries(seq);
            let (k, v) = gather(cache, layer, meta, seq)?;
            outputs.push(attend(&q.narrow(0, start, len)?, &k, &v, params)?);
        }
        if outputs.is_empty() {
            return Ok(Activations::uninit(0, num_heads * head_dim));
        }
        Activations::from_tensor(&Tensor::cat(&outputs, 0)?)
    }
}

/// K and V of a sequence, `[context, num_kv_heads, head_dim]` f32.
fn gather(
    cache: &PagedKvCache,
    layer: usize,
    meta: &AttnMetadata,
    seq: usize,
) -> Result<(Tensor, Tensor)> {
    let layer = cache.layer(layer)?;
    let blocks = Tensor::new(meta.block_tables[seq].as_slice(), layer.k.device())?;
    let slots = |blocks: Tensor| -> Result<Tensor> {
        let slots = blocks.contiguous()?.flatten(0, 1)?;
        slots.narrow(0, 0, meta.context_lens[seq] as usize)?.to_dtype(DType::F32)
    };
    let k = layer.k.index_select(&blocks, 0)?.permute((0, 3, 1, 2))?;
    let v = layer.v.index_select(&blocks, 0)?.permute((0, 2, 1, 3))?;
    Ok((slots(k)?, slots(v)?))
}

fn attend(q: &Tensor, k: &Tensor, v: &Tensor, params: AttentionParams<'_>) -> Result<Tensor> {
    let (q_len, num_heads, head_dim) = q.dims3()?;
    let (kv_len, num_kv_heads, _) = k.dims3()?;
    let groups = num_heads / num_kv_heads;
    let spread = |t: &Tensor| -> Result<Tensor> {
        t.unsqueeze(2)?
            .expand((kv_len, num_kv_heads, groups, head_dim))?
            .reshape((kv_len, num_heads, head_dim))?
            .transpose(0, 1)?
            .contiguous()
    };
    let q = q.transpose(0, 1)?.contiguous()?;
    let mut scores = (q.matmul(&spread(k)?.t()?)? * f64::from(params.scale))?;
    if let Some(cap) = params.soft_cap.map(f64::from) {
        scores = ((scores / cap)?.tanh()? * cap)?;
    }
    let offset = kv_len - q_len;
    let window = params.sliding_window.unwrap_or(usize::MAX);
    let mask: Vec<f32> = (0..q_len)
        .flat_map(|i| {
            let now = i + offset;
            (0..kv_len).map(
                move |j| {
                    if j <= now && now - j < window { 0.0 } else { f32::NEG_INFINITY }
                },
            )
        })
        .collect();
    let mask = Tensor::from_vec(mask, (1, q_len, kv_len), q.device())?.to_dtype(q.dtype())?;
    let mut scores = scores.broadcast_add(&mask)?;
    if let Some(sinks) = params.sinks {
        let sinks = Tensor::new(sinks, q.device())?.reshape((num_heads, 1, 1))?;
        scores = Tensor::cat(&[scores, sinks.expand((num_heads, q_len, 1))?], D::Minus1)?;
    }
    let probs = candle_nn::ops::softmax(&scores, D::Minus1)?.narrow(D::Minus1, 0, kv_len)?;
    probs.contiguous()?.matmul(&spread(v)?)?.transpose(0, 1)?.reshape((q_len, num_heads * head_dim))
}
