//! Runs models without an engine: sequences in scattered blocks of a paged cache.

use candle_core::{DType, Device, Tensor};
use pinion_kernels::{
    AttentionBackend, AttnMetadata, Device as Place, KvCacheSpec, PagedAttention, PagedKvCache,
    ReferenceAttention,
};
use pinion_models::{CausalLm, ForwardBatch, ForwardCtx};

const BLOCK_SIZE: usize = 16;

/// Every attention backend that runs on this machine.
pub(crate) fn backends() -> Vec<Box<dyn AttentionBackend>> {
    vec![Box::new(ReferenceAttention), Box::new(PagedAttention)]
}

/// One model with its cache.
pub(crate) struct Runner<'a> {
    model: &'a dyn CausalLm,
    attention: &'a dyn AttentionBackend,
    kv: PagedKvCache,
    free: Vec<u32>,
}

/// Tokens that the cache holds, and where.
#[derive(Default)]
pub(crate) struct Sequence {
    len: usize,
    blocks: Vec<u32>,
}

impl<'a> Runner<'a> {
    pub(crate) fn new(model: &'a dyn CausalLm, attention: &'a dyn AttentionBackend) -> Self {
        Self::on(&Place::Cpu, DType::F32, model, attention)
    }

    /// With the cache on a device.
    pub(crate) fn on(
        place: &Place,
        dtype: DType,
        model: &'a dyn CausalLm,
        attention: &'a dyn AttentionBackend,
    ) -> Self {
        let spec = model.spec();
        let num_blocks = 64;
        let kv = KvCacheSpec {
            num_layers: spec.num_layers,
            num_kv_heads: spec.num_kv_heads,
            head_dim: spec.head_dim,
            block_size: BLOCK_SIZE,
            num_blocks,
            dtype,
        };
        let kv = PagedKvCache::allocate_on(&kv, place).unwrap();
        // Neighbours in a sequence are far apart in memory; 27 and 64 have no common divisor.
        let free = (1..num_blocks as u32).map(|i| i * 27 % 64).collect();
        Self { model, attention, kv, free }
    }

    /// Feeds tokens to each sequence in one step; returns the logits of all tokens, in order.
    pub(crate) fn step(&mut self, work: &mut [(&mut Sequence, &[u32])]) -> Vec<Vec<f32>> {
        let mut ids = Vec::new();
        let mut positions = Vec::new();
        let mut attn = AttnMetadata { cu_seqlens_q: vec![0], ..AttnMetadata::default() };
        for (sequence, tokens) in work {
            let range = sequence.len..sequence.len + tokens.len();
            while sequence.blocks.len() * BLOCK_SIZE < range.end {
                sequence.blocks.push(self.free.pop().unwrap());
            }
            ids.extend_from_slice(tokens);
            positions.extend(range.clone().map(|position| position as u32));
            attn.slot_mapping.extend(range.clone().map(|position| {
                sequence.blocks[position / BLOCK_SIZE] * BLOCK_SIZE as u32
                    + (position % BLOCK_SIZE) as u32
            }));
            attn.cu_seqlens_q.push(ids.len() as u32);
            attn.context_lens.push(range.end as u32);
            attn.block_tables.push(sequence.blocks.clone());
            sequence.len = range.end;
        }
        let device = &Device::Cpu;
        let batch = ForwardBatch {
            logits_indices: Tensor::arange(0, ids.len() as u32, device).unwrap(),
            input_ids: Tensor::new(ids, device).unwrap(),
            positions: Tensor::new(positions, device).unwrap(),
            attn,
        };
        self.attention.plan(&batch.attn).unwrap();
        let cx = ForwardCtx { batch: &batch, kv: &self.kv, attention: self.attention };
        self.model.forward(&cx).unwrap().into_tensor().unwrap().to_vec2().unwrap()
    }

    /// Feeds tokens to a new sequence in pieces of `chunk`, then decodes greedily.
    ///
    /// Returns the logits of every token, prompt and answer, and the answer.
    pub(crate) fn generate(
        &mut self,
        prompt: &[u32],
        chunk: usize,
        num_tokens: usize,
    ) -> (Vec<Vec<f32>>, Vec<u32>) {
        let mut sequence = Sequence::default();
        let mut logits = Vec::new();
        for tokens in prompt.chunks(chunk) {
            logits.extend(self.step(&mut [(&mut sequence, tokens)]));
        }
        let mut answer = Vec::new();
        for _ in 0..num_tokens {
            let token = argmax(logits.last().unwrap());
            answer.push(token);
            logits.extend(self.step(&mut [(&mut sequence, &[token])]));
        }
        self.free.extend(sequence.blocks);
        (logits, answer)
    }
}

/// The index of the largest value, the first of equals.
pub(crate) fn argmax(logits: &[f32]) -> u32 {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    logits.iter().position(|&value| best <= value).unwrap() as u32
}

/// The largest difference, as a part of the largest expected value.
pub(crate) fn relative_error(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = |values: &mut dyn Iterator<Item = f32>| values.fold(0f32, |a, b| a.max(b.abs()));
    let difference = largest(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    assert!(found.iter().all(|value| value.is_finite()));
    difference / largest(&mut expected.iter().copied())
}

/// How many different tokens a text has: a collapsed model proves nothing.
pub(crate) fn distinct(tokens: &[u32]) -> usize {
    tokens.iter().collect::<std::collections::HashSet<_>>().len()
}
