//! Llama, and the decoders that differ from it in numbers, names and the places of norms: Mistral,
//! Qwen2, Qwen3, Phi-3, `OLMo` 2, Granite, `SmolLM3`; and with experts, Mixtral, Qwen2-MoE, Qwen3-MoE.

mod config;
mod family;
mod mixture;

use std::sync::Arc;

use candle_core::Result;

use crate::layers::{
    Attention, Decoder, DecoderLayer, FeedForward, Mixer, Mlp, QueryKeyNorm, RotaryEmbedding,
};
use crate::registry::Plan;
use crate::{CausalLm, ModelConfig, Weights};

use config::Config;
pub(crate) use family::{
    Family, GRANITE, LLAMA, MISTRAL, MIXTRAL, OLMO2, PHI3, QWEN2, QWEN2_MOE, QWEN3, QWEN3_MOE,
    SMOLLM3,
};
use family::{Names, Norms, QkNorm};

pub(crate) fn plan(config: &ModelConfig, family: &Family) -> Result<Box<dyn Plan>> {
    Ok(Box::new(Config::new(config, family)?))
}

impl Plan for Config {
    fn build(&self, weights: &Weights) -> Result<Box<dyn CausalLm>> {
        let (head_dim, len) = (self.sizes.head_dim, self.sizes.max_model_len);
        let rotary = Arc::new(RotaryEmbedding::new(&self.rope, head_dim, len)?);
        let layer = |index, weights: &Weights| self.layer(index, &rotary, weights);
        Ok(Box::new(Decoder {
            embedding_scale: self.multipliers.embedding,
            logit_scale: self.multipliers.logits,
            ..Decoder::read(&self.sizes, weights, layer, Ok)?
        }))
    }
}

impl Config {
    fn layer(
        &self,
        index: usize,
        rotary: &Arc<RotaryEmbedding>,
        weights: &Weights,
    ) -> Result<DecoderLayer> {
        let norm = |name| weights.rms_norm(name, self.sizes.hidden_size, self.sizes.norm_eps);
        let residual_scale = self.multipliers.residual;
        match self.norms {
            Norms::Before => {
                let attention_norm = norm("input_layernorm")?;
                let attention = self.attention(index, rotary, &weights.at("self_attn"))?;
                let mlp_norm = norm("post_attention_layernorm")?;
                let mlp = self.feed_forward(index, weights)?;
                let layer = DecoderLayer::pre_norm((attention_norm, attention), (mlp_norm, mlp));
                Ok(DecoderLayer { residual_scale, ..layer })
            }
            Norms::After => Ok(DecoderLayer {
                attention_norm: None,
                attention: self.attention(index, rotary, &weights.at("self_attn"))?,
                attention_out_norm: Some(norm("post_attention_layernorm")?.into()),
                mlp_norm: None,
                mlp: self.feed_forward(index, weights)?,
                mlp_out_norm: Some(norm("post_feedforward_layernorm")?.into()),
                residual_scale,
                parallel: false,
            }),
        }
    }

    fn attention(
        &self,
        layer: usize,
        rotary: &Arc<RotaryEmbedding>,
        weights: &Weights,
    ) -> Result<Mixer> {
        let sizes = &self.sizes;
        let (q_dim, kv_dim, head_dim) = (sizes.q_dim(), sizes.kv_dim(), sizes.head_dim);
        let apart = [("q_proj", q_dim), ("k_proj", kv_dim), ("v_proj", kv_dim)];
        let fused = [("qkv_proj", q_dim + 2 * kv_dim)];
        let parts = match self.names {
            Names::Apart => apart.as_slice(),
            Names::Fused => &fused,
        };
        let qkv_proj =
            weights.fused_linear("qkv_proj", parts, sizes.hidden_size, self.biases.qkv)?;
        let norm = |name, size| weights.rms_norm(name, size, sizes.norm_eps);
        let norm = match self.qk_norm {
            QkNorm::Never => None,
            QkNorm::Head => Some((norm("q_norm", head_dim)?, norm("k_norm", head_dim)?)),
            QkNorm::Row => Some((norm("q_norm", q_dim)?, norm("k_norm", kv_dim)?)),
        };
        let plain = 1.0 / (head_dim as f32).sqrt();
        Ok(Mixer::Attention(Attention {
            layer,
            num_heads: sizes.num_heads,
            num_kv_heads: sizes.num_kv_heads,
            head_dim,
            scale: self.multipliers.attention.unwrap_or(plain),
            sliding_window: self.windows[layer],
            soft_cap: None,
            sinks: None,
            qkv_proj,
            norm: norm.map(|(query, key)| QueryKeyNorm { query, key }),
            rotary: self.rotated[layer].then(|| Arc::clone(rotary)),
            o_proj: weights.linear("o_proj", q_dim, sizes.hidden_size, self.biases.o)?,
        }))
    }

    fn feed_forward(&self, index: usize, weights: &Weights) -> Result<FeedForward> {
        if let Some(mixture) = &self.mixture
            && let Some(experts) = mixture.feed_forward(index, self.sizes.hidden_size, weights)?
        {
            return Ok(experts);
        }
        Ok(FeedForward::Dense(self.mlp(&weights.at("mlp"))?))
    }

    fn mlp(&self, weights: &Weights) -> Result<Mlp> {
        let (hidden, ff) = (self.sizes.hidden_size, self.sizes.intermediate_size);
        match self.names {
            Names::Apart => Mlp::gated(weights, (hidden, ff), self.biases.mlp, self.activation),
            Names::Fused => Ok(Mlp::fused(
                weights.linear("gate_up_proj", hidden, 2 * ff, false)?,
                weights.linear("down_proj", ff, hidden, false)?,
                self.activation,
            )),
        }
    }
}
