//! `DeepSeek` V2 and V3, and Kimi K2: attention over a latent, and experts in groups beside a shared one.

mod config;

use std::sync::Arc;

use candle_core::{Result, Tensor};
use pinion_kernels::PackedTensor;
use pinion_kernels::ops::RouterParams;

use crate::fields::Sizes;
use crate::layers::{
    Decoder, DecoderLayer, ExpertGate, Experts, FeedForward, LatentAttention, Linear, Mixer, Mlp,
    QueryProjection, RotaryEmbedding, SharedExpert,
};
use crate::registry::Plan;
use crate::{CausalLm, ModelConfig, Weights};

use config::Config;
pub(crate) use config::Version;

pub(crate) fn plan(config: &ModelConfig, version: Version) -> Result<Box<dyn Plan>> {
    Ok(Box::new(config::read(config, version)?))
}

impl Plan for Config {
    fn build(&self, weights: &Weights) -> Result<Box<dyn CausalLm>> {
        let (rotated, len) = (self.fields.qk_rope_head_dim, self.sizes.max_model_len);
        let rotary = Arc::new(RotaryEmbedding::new(&self.rope, rotated, len)?);
        let layer = |index, weights: &Weights| self.layer(index, &rotary, weights);
        Ok(Box::new(Decoder::read(&self.sizes, weights, layer, Ok)?))
    }
}

impl Config {
    fn layer(
        &self,
        index: usize,
        rotary: &Arc<RotaryEmbedding>,
        weights: &Weights,
    ) -> Result<DecoderLayer> {
        let Sizes { hidden_size, intermediate_size, norm_eps, .. } = self.sizes;
        let norm = |name| weights.rms_norm(name, hidden_size, norm_eps);
        let attention_norm = norm("input_layernorm")?;
        let attention = Mixer::Latent(self.attention(index, rotary, &weights.at("self_attn"))?);
        let (mlp_norm, mlp) = (norm("post_attention_layernorm")?, weights.at("mlp"));
        let mlp = if index < self.first_sparse {
            let sizes = (hidden_size, intermediate_size);
            FeedForward::Dense(Mlp::gated(&mlp, sizes, false, self.activation)?)
        } else {
            FeedForward::Experts(self.experts(&mlp)?)
        };
        Ok(DecoderLayer::pre_norm((attention_norm, attention), (mlp_norm, mlp)))
    }

    fn attention(
        &self,
        layer: usize,
        rotary: &Arc<RotaryEmbedding>,
        weights: &Weights,
    ) -> Result<LatentAttention> {
        let Sizes { hidden_size: hidden, num_heads, .. } = self.sizes;
        let fields = &self.fields;
        let (plain, rotated, rank) =
            (fields.qk_nope_head_dim, fields.qk_rope_head_dim, fields.kv_lora_rank);
        // Inner norms have the default of their class, not the model's own.
        let inner_norm = |name, size| weights.rms_norm(name, size, 1e-6);
        let query = match fields.q_lora_rank {
            None => QueryProjection::Full(self.query(weights, "q_proj", hidden)?),
            Some(rank) => QueryProjection::LowRank {
                down: weights.linear("q_a_proj", hidden, rank, false)?,
                norm: inner_norm("q_a_layernorm", rank)?,
                up: self.query(weights, "q_b_proj", rank)?,
            },
        };
        let latent = self.latent(weights)?;
        let norm = inner_norm("kv_a_layernorm", rank)?;
        let (key_heads, value_heads) = self.heads(weights)?;
        Ok(LatentAttention {
            layer,
            num_heads,
            query_dims: (plain, rotated),
            rank,
            scale: self.scale,
            query,
            latent,
            norm,
            key_heads,
            value_heads,
            rotary: Arc::clone(rotary),
            o_proj: weights.linear("o_proj", num_heads * fields.v_head_dim, hidden, false)?,
        })
    }

    /// Rows of rotated elements `[heads * rotated, cols]` in the order that rotates halves.
    fn halves(&self, rows: &Tensor) -> Result<Tensor> {
        if !self.interleaved {
            return Ok(rows.clone());
        }
        let (count, cols) = rows.dims2()?;
        let rotated = self.fields.qk_rope_head_dim;
        let pairs = rows.contiguous()?.reshape((count / rotated, rotated / 2, 2, cols))?;
        pairs.transpose(1, 2)?.contiguous()?.reshape((count, cols))
    }

    /// Stored head by head; run as all first parts, then all rotated parts.
    fn query(&self, weights: &Weights, name: &str, in_dim: usize) -> Result<Linear> {
        let (plain, rotated) = (self.fields.qk_nope_head_dim, self.fields.qk_rope_head_dim);
        let (heads, width) = (self.sizes.num_heads, plain + rotated);
        let name = format!("{name}.weight");
        let wanted = [(weights.key(&name), vec![heads * width, in_dim])];
        let weight = weights.made(&name, [heads * width, in_dim], &wanted, &|parts| {
            let heads = parts[0].reshape((heads, width, in_dim))?;
            let part = |first, len| heads.narrow(1, first, len)?.contiguous()?.flatten(0, 1);
            Tensor::cat(&[part(0, plain)?, self.halves(&part(plain, rotated)?)?], 0)
        })?;
        Ok(Linear::new(weight, None))
    }

    /// The latent's rows, then those of the rotated part of the key.
    fn latent(&self, weights: &Weights) -> Result<Linear> {
        let (rank, rotated) = (self.fields.kv_lora_rank, self.fields.qk_rope_head_dim);
        let shape = [rank + rotated, self.sizes.hidden_size];
        let name = "kv_a_proj_with_mqa.weight";
        let wanted = [(weights.key(name), shape.to_vec())];
        let weight = weights.made(name, shape, &wanted, &|parts| {
            let rotating = self.halves(&parts[0].narrow(0, rank, rotated)?)?;
            Tensor::cat(&[parts[0].narrow(0, 0, rank)?, rotating], 0)
        })?;
        Ok(Linear::new(weight, None))
    }

    /// What expands the latent to a head's key, transposed, and to its value.
    fn heads(&self, weights: &Weights) -> Result<(Vec<PackedTensor>, Vec<PackedTensor>)> {
        let (rank, plain) = (self.fields.kv_lora_rank, self.fields.qk_nope_head_dim);
        let (value, heads) = (self.fields.v_head_dim, self.sizes.num_heads);
        let shape = vec![heads * (plain + value), rank];
        let stored = weights.stacked(&[(weights.key("kv_b_proj.weight"), shape)]);
        let rows = |head: usize, first: usize, len: usize| {
            move |parts: &[Tensor]| parts[0].narrow(0, head * (plain + value) + first, len)
        };
        let mut both = (Vec::with_capacity(heads), Vec::with_capacity(heads));
        for head in 0..heads {
            let key = rows(head, 0, plain);
            let name = |kind| format!("kv_b_proj.{head}.{kind}");
            let make = |parts: &[Tensor]| key(parts)?.t();
            both.0.push(stored.matrix(&name("key"), [rank, plain], &make)?);
            let make = rows(head, plain, value);
            both.1.push(stored.matrix(&name("value"), [value, rank], &make)?);
        }
        Ok(both)
    }

    fn experts(&self, weights: &Weights) -> Result<Experts> {
        let (hidden, ff) = (self.sizes.hidden_size, self.fields.moe_intermediate_size);
        let router = weights.router("gate", hidden, self.num_experts, false)?;
        let bias = || weights.parameter("gate.e_score_correction_bias", self.num_experts);
        let bias = (self.version == Version::Three).then(bias).transpose()?;
        let bias = bias.map(|bias| bias.to_vec1()).transpose()?;
        let experts = |make: &dyn Fn(&Weights) -> Result<_>| {
            (0..self.num_experts).map(|e| make(&weights.at("experts").at(e))).collect::<Result<_>>()
        };
        let parts = [("gate_proj", ff), ("up_proj", ff)];
        let gate_up = experts(&|e| e.group("gate_up_proj", &parts, hidden))?;
        let down = experts(&|e| e.group("down_proj", &[("down_proj", hidden)], ff))?;
        let shared = weights.at("shared_experts");
        let shared = Mlp::gated(&shared, (hidden, self.shared), false, self.activation)?;
        Ok(Experts {
            router,
            routing: RouterParams { bias, ..self.routing.clone() },
            gate_up,
            down,
            gate: ExpertGate::Plain(self.activation),
            shared: Some(SharedExpert { mlp: shared, gate: None }),
        })
    }
}
