//! Whole models with arbitrary weights, from token to token.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Result;
use candle_core::{DType, Device as Host, Tensor};
use half::bf16;
use pinion_kernels::{AttnMetadata, Device, KvCacheSpec, PagedKvCache, SampleRow, sample};
use pinion_models::{
    CausalLm, ForwardBatch, ForwardCtx, ModelConfig, TensorSource, Weights, build,
};

use super::{Line, Report, time};

const BLOCK: usize = 16;
/// Tokens before the first measured one.
const CONTEXT: usize = 512;

const QWEN3_0_6B: &str = r#"{"architectures": ["Qwen3ForCausalLM"], "vocab_size": 151936,
    "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "head_dim": 128,
    "num_attention_heads": 16, "num_key_value_heads": 8, "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-6, "rope_theta": 1000000, "tie_word_embeddings": true}"#;
const LLAMA_8B: &str = r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 128256,
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "head_dim": 128,
    "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5, "rope_theta": 500000}"#;
const SMALL: &str = r#"{"architectures": ["Qwen3ForCausalLM"], "vocab_size": 500,
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 32,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024}"#;

pub(super) fn measure(device: &Device, small: bool, report: &mut Report) -> Result<()> {
    let all = [("Qwen3 0.6B", QWEN3_0_6B), ("Llama 3.1 8B", LLAMA_8B)];
    let models = if small { &[("small", SMALL)][..] } else { &all[..] };
    for (name, config) in models {
        for kind in ["bf16", "q8_0", "q4_k"] {
            let config = ModelConfig::parse(config)?;
            let source = Arc::new(Arbitrary::new(&config)?);
            let model = build(&config, &Weights::new(source, Some(kind.parse()?)).on(device))?;
            let (batches, steps) = if small { (&[1, 3][..], 2) } else { (&[1, 16, 64][..], 32) };
            for &seqs in batches {
                let name = format!("{name} {kind}, {seqs} sequences");
                report.add(&decode(device, name, &*model, (seqs, steps))?)?;
            }
        }
    }
    Ok(())
}

fn decode(
    device: &Device,
    name: String,
    model: &dyn CausalLm,
    (seqs, steps): (usize, usize),
) -> Result<Line> {
    let Device::Gpu(gpu) = device else { anyhow::bail!("not a gpu") };
    let spec = model.spec();
    let blocks = (CONTEXT + steps + 1).div_ceil(BLOCK);
    let kv = KvCacheSpec {
        num_layers: spec.num_layers,
        num_kv_heads: spec.num_kv_heads,
        head_dim: spec.head_dim,
        block_size: BLOCK,
        num_blocks: seqs * blocks + 1,
        dtype: DType::BF16,
    };
    let (kv_bytes, cache) = (kv.block_bytes(), PagedKvCache::allocate_on(&kv, device)?);
    let attention = device.attention();
    let mut tokens = vec![1u32; seqs];
    let mut position = CONTEXT as u32;
    let seconds = time(gpu, steps as u32 - 1, || {
        let first = |seq: usize| (seq * blocks + 1) as u32;
        let slot = |seq| first(seq) * BLOCK as u32 + position;
        let batch = ForwardBatch {
            input_ids: Tensor::new(tokens.as_slice(), &Host::Cpu)?,
            positions: Tensor::new(vec![position; seqs], &Host::Cpu)?,
            logits_indices: Tensor::arange(0, seqs as u32, &Host::Cpu)?,
            attn: AttnMetadata {
                cu_seqlens_q: (0..=seqs as u32).collect(),
                context_lens: vec![position + 1; seqs],
                slot_mapping: (0..seqs).map(slot).collect(),
                block_tables: (0..seqs)
                    .map(|seq| (first(seq)..first(seq) + blocks as u32).collect())
                    .collect(),
            },
        };
        attention.plan(&batch.attn)?;
        let cx = ForwardCtx { batch: &batch, kv: &cache, attention: &*attention };
        let found = sample(&model.forward(&cx)?, &vec![greedy(); seqs], &[])?;
        tokens = found.into_iter().map(Option::unwrap_or_default).collect();
        position += 1;
        Ok(())
    })?;
    let context = (seqs * CONTEXT / BLOCK * kv_bytes) as f64;
    Ok(Line {
        name,
        seconds,
        bytes: spec.weight_bytes as f64 + context,
        operations: 0.0,
        tokens: seqs as f64,
    })
}

fn greedy() -> SampleRow {
    SampleRow {
        seed: 0,
        position: 0,
        temperature: 0.0,
        top_p: 1.0,
        min_p: 0.0,
        repetition: 1.0,
        frequency: 0.0,
        presence: 0.0,
        top_k: 0,
        padding: 0,
    }
}

/// Tensors cut from one run of small numbers.
struct Arbitrary {
    shapes: HashMap<String, Vec<usize>>,
    values: Tensor,
}

impl Arbitrary {
    fn new(config: &ModelConfig) -> Result<Self> {
        let tensors = config.tensors()?;
        let longest = tensors.iter().map(|tensor| tensor.shape.iter().product()).max();
        let values = (0..longest.unwrap_or(0)).map(|i: usize| {
            bf16::from_f32(((i.wrapping_mul(2_654_435_761) >> 13) % 255) as f32 / 3000.0 - 0.0425)
        });
        let values = Tensor::from_iter(values, &Host::Cpu)?;
        let shapes = tensors.into_iter().map(|tensor| (tensor.name, tensor.shape));
        Ok(Self { shapes: shapes.collect(), values })
    }
}

impl TensorSource for Arbitrary {
    fn load(&self, name: &str) -> candle_core::Result<Option<Tensor>> {
        let Some(shape) = self.shapes.get(name) else { return Ok(None) };
        if shape.len() == 1 {
            return Tensor::ones(shape.as_slice(), DType::F32, &Host::Cpu).map(Some);
        }
        self.values.narrow(0, 0, shape.iter().product())?.reshape(shape.as_slice()).map(Some)
    }
}
