//! Random models for tests and benches, the same in every process and on every machine.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use pinion_kernels::{AttnMetadata, KvCacheSpec, PagedKvCache, ReferenceAttention, WeightType};

use crate::{CausalLm, ForwardBatch, ForwardCtx, MapSource, ModelConfig, Weights, build};

/// A Llama of two layers and 97 tokens that answers up to 128 tokens and takes milliseconds.
pub fn tiny_llama() -> ModelConfig {
    ModelConfig::parse(
        r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 97, "hidden_size": 32,
        "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 128, "rms_norm_eps": 1e-5}"#,
    )
    .expect("the text above is a config")
}

/// Models as tiny as [`tiny_llama`] that do otherwise what a scheduler might upset: windows and soft
/// caps, experts, sinks, and one latent a token in place of keys and values.
pub fn tiny_others() -> Vec<ModelConfig> {
    let others = [
        r#""architectures": ["Gemma2ForCausalLM"], "num_key_value_heads": 2, "sliding_window": 9, "head_dim": 8,
        "query_pre_attn_scalar": 8, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 20.0,
        "tie_word_embeddings": false"#,
        r#""architectures": ["Qwen3MoeForCausalLM"], "num_key_value_heads": 2, "num_experts": 5, "num_experts_per_tok": 2,
        "moe_intermediate_size": 24, "head_dim": 16"#,
        r#""architectures": ["GptOssForCausalLM"], "num_key_value_heads": 2, "num_local_experts": 5, "num_experts_per_tok": 2,
        "sliding_window": 11, "head_dim": 16, "rope_scaling": {"rope_type": "default"}"#,
        r#""architectures": ["DeepseekV3ForCausalLM"], "n_routed_experts": 6, "n_group": 3,
        "topk_group": 2, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
        "first_k_dense_replace": 1, "q_lora_rank": 16, "kv_lora_rank": 24, "qk_nope_head_dim": 12,
        "qk_rope_head_dim": 4, "v_head_dim": 10"#,
    ];
    let parse = |fields: &str| {
        ModelConfig::parse(&format!(
            r#"{{"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48,
            "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128,
            {fields}}}"#
        ))
        .expect("the text above is a config")
    };
    others.into_iter().map(parse).collect()
}

/// Builds the model of a config with weights of [`random_source`].
///
/// # Errors
/// As [`build`].
pub fn random_model(
    config: &ModelConfig,
    seed: u64,
    kind: Option<WeightType>,
) -> Result<Box<dyn CausalLm>> {
    build(config, &Weights::new(Arc::new(random_source(config, seed)?), kind))
}

/// Logits of every token of a short text, computed in one step by the reference attention.
///
/// # Errors
/// As the model's forward pass.
pub fn logits(model: &dyn CausalLm, tokens: &[u32]) -> Result<Vec<Vec<f32>>> {
    let (spec, len, device) = (model.spec(), tokens.len() as u32, &Device::Cpu);
    // Block 0 is never used.
    let kv = PagedKvCache::allocate(
        &KvCacheSpec {
            num_layers: spec.num_layers,
            num_kv_heads: spec.num_kv_heads,
            head_dim: spec.head_dim,
            block_size: tokens.len(),
            num_blocks: 2,
            dtype: DType::F32,
        },
        device,
    )?;
    let batch = ForwardBatch {
        logits_indices: Tensor::arange(0, len, device)?,
        input_ids: Tensor::new(tokens, device)?,
        positions: Tensor::arange(0, len, device)?,
        attn: AttnMetadata {
            cu_seqlens_q: vec![0, len],
            context_lens: vec![len],
            slot_mapping: (len..2 * len).collect(),
            block_tables: vec![vec![1]],
        },
    };
    let attention = &ReferenceAttention;
    model.forward(&ForwardCtx { batch: &batch, kv: &kv, attention })?.into_tensor()?.to_vec2()
}

/// Every tensor that a config needs, in f32, filled by [`random_tensor`].
///
/// # Errors
/// As [`ModelConfig::tensors`].
pub fn random_source(config: &ModelConfig, seed: u64) -> Result<MapSource> {
    let tensors = config.tensors()?.into_iter().map(|tensor| {
        let values = random_tensor(&tensor.name, seed, &tensor.shape)?;
        Ok((tensor.name, values))
    });
    Ok(MapSource(tensors.collect::<Result<_>>()?))
}

/// A weight of which each element is a hash of the tensor's name, the seed and its index.
///
/// Norms are around one, biases up to a half, matrices scaled by the square root of their width:
/// enough for a varied text. `oracle/generate.py` has the same function, bit for bit.
///
/// # Errors
/// When memory cannot hold the shape.
pub fn random_tensor(name: &str, seed: u64, shape: &[usize]) -> Result<Tensor> {
    let start = fnv1a(name).wrapping_add(seed.wrapping_mul(GOLDEN_GAMMA));
    let width = shape.last().copied().unwrap_or(1);
    let scale = (3.0 / (width as f64).sqrt()) as f32;
    let owner = name.rsplit('.').nth(1).unwrap_or_default();
    let is_norm = owner.contains("norm") || owner.starts_with("ln_");
    let weight = |value: f32| {
        if is_norm && name.ends_with(".weight") {
            1.0 + value * 0.25
        } else if name.rsplit('.').next() == Some("bias") {
            value * 0.5
        } else if ["embed", "wte", "wpe"].iter().any(|part| name.contains(part)) {
            value
        } else {
            value * scale
        }
    };
    let count: usize = shape.iter().product();
    if name.ends_with("_blocks") {
        let values = (1..=count as u64).map(|i| byte(start, i)).collect::<Vec<_>>();
        return Tensor::from_vec(values, shape, &Device::Cpu);
    }
    if name.ends_with("_scales") {
        let values = (1..=count as u64).map(|i| 121 + byte(start, i) % 3).collect::<Vec<_>>();
        return Tensor::from_vec(values, shape, &Device::Cpu);
    }
    let values: Vec<f32> = (1..=count as u64).map(|i| weight(uniform(start, i))).collect();
    Tensor::from_vec(values, shape, &Device::Cpu)
}

const GOLDEN_GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// 64-bit FNV-1a.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |state, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    })
}

/// The number of the same state, as one of 256.
#[expect(clippy::cast_sign_loss, reason = "between 0 and 255")]
fn byte(start: u64, index: u64) -> u8 {
    ((uniform(start, index) + 1.0) * 128.0) as u8
}

/// A number in [-1, 1), a multiple of 2^-23: `SplitMix64`'s output for the `index`-th state.
fn uniform(start: u64, index: u64) -> f32 {
    let mut z = start.wrapping_add(index.wrapping_mul(GOLDEN_GAMMA));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    ((z >> 40) as f32 - 8_388_608.0) / 8_388_608.0
}
