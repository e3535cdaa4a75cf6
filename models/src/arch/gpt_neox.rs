//! GPT-NeoX and Pythia: layer norms, angles on a part of each head, both blocks side by side.

use std::sync::Arc;

use candle_core::{Result, Tensor, bail};
use serde::Deserialize;

use crate::fields::{SizeDefaults, Sizes};
use crate::layers::{
    Activation, Attention, Decoder, DecoderLayer, FeedForward, Linear, Mixer, Mlp, RopeConfig,
    RopeDefaults, RopeFields, RotaryEmbedding,
};
use crate::registry::Plan;
use crate::{CausalLm, ModelConfig, Weights};

#[derive(Deserialize)]
struct Fields {
    hidden_act: Option<String>,
    attention_bias: Option<bool>,
    use_parallel_residual: Option<bool>,
}

#[derive(Debug)]
struct Config {
    sizes: Sizes,
    rope: RopeConfig,
    activation: Activation,
    attention_bias: bool,
    parallel: bool,
}

pub(crate) fn plan(config: &ModelConfig) -> Result<Box<dyn Plan>> {
    let fields: Fields = config.read()?;
    let rope = RopeDefaults { theta: 10_000.0, partial: Some(0.25), original: None };
    let rope = config.read::<RopeFields>()?.resolve(rope)?;
    let defaults = SizeDefaults { grouped: false, norm_eps: 1e-5, ..SizeDefaults::PLAIN };
    let act = fields.hidden_act.as_deref().unwrap_or("gelu");
    let sizes = Sizes::read(config, defaults, &rope)?;
    if sizes.q_dim() != sizes.hidden_size {
        bail!("config.json: head_dim is not supported by this architecture: {}", sizes.head_dim)
    }
    Ok(Box::new(Config {
        sizes,
        rope,
        activation: Activation::parse("hidden_act", act, Activation::GELUS)?,
        attention_bias: fields.attention_bias.unwrap_or(true),
        parallel: fields.use_parallel_residual.unwrap_or(true),
    }))
}

impl Plan for Config {
    fn build(&self, weights: &Weights) -> Result<Box<dyn CausalLm>> {
        let Sizes { vocab_size, hidden_size, norm_eps, head_dim, max_model_len, .. } = self.sizes;
        let rotary = Arc::new(RotaryEmbedding::new(&self.rope, head_dim, max_model_len)?);
        let model = weights.at("gpt_neox");
        let embed_tokens = model.embedding("embed_in", vocab_size, hidden_size)?;
        let layers = (0..self.sizes.num_layers)
            .map(|index| self.layer(index, &rotary, &model.at("layers").at(index)))
            .collect::<Result<Vec<_>>>()?;
        let norm = model.layer_norm("final_layer_norm", hidden_size, norm_eps)?;
        let lm_head = if self.sizes.tie_word_embeddings {
            embed_tokens.tied_linear()
        } else {
            let weights = weights.or_named("lm_head.", "embed_out.");
            weights.linear("lm_head", hidden_size, vocab_size, false)?
        };
        let parts = (embed_tokens, layers);
        Ok(Box::new(Decoder::new(&self.sizes, weights, parts, norm, lm_head)))
    }
}

impl Config {
    fn layer(
        &self,
        index: usize,
        rotary: &Arc<RotaryEmbedding>,
        weights: &Weights,
    ) -> Result<DecoderLayer> {
        let Sizes { hidden_size: hidden, intermediate_size: ff, norm_eps, .. } = self.sizes;
        let norm = |name| weights.layer_norm(name, hidden, norm_eps);
        let (attention_norm, attn) = (norm("input_layernorm")?, weights.at("attention"));
        let attention = Attention {
            layer: index,
            num_heads: self.sizes.num_heads,
            num_kv_heads: self.sizes.num_heads,
            head_dim: self.sizes.head_dim,
            scale: 1.0 / (self.sizes.head_dim as f32).sqrt(),
            sliding_window: None,
            soft_cap: None,
            sinks: None,
            qkv_proj: self.query_key_value(&attn)?,
            norm: None,
            rotary: Some(Arc::clone(rotary)),
            o_proj: attn.linear("dense", hidden, hidden, self.attention_bias)?,
        };
        let (mlp_norm, mlp) = (norm("post_attention_layernorm")?, weights.at("mlp"));
        let mlp = Mlp::plain(
            mlp.linear("dense_h_to_4h", hidden, ff, true)?,
            mlp.linear("dense_4h_to_h", ff, hidden, true)?,
            self.activation,
        );
        let attention = (attention_norm, Mixer::Attention(attention));
        let layer = DecoderLayer::pre_norm(attention, (mlp_norm, FeedForward::Dense(mlp)));
        Ok(DecoderLayer { parallel: self.parallel, ..layer })
    }

    /// Stored head by head; run as all queries, all keys, all values.
    fn query_key_value(&self, weights: &Weights) -> Result<Linear> {
        let Sizes { hidden_size: hidden, num_heads, head_dim, .. } = self.sizes;
        let by_kind = |tensor: &Tensor| {
            let cols = tensor.elem_count() / (3 * hidden);
            let heads = tensor.reshape((num_heads, 3, head_dim, cols))?;
            heads.transpose(0, 1)?.contiguous()?.reshape((3 * hidden, cols))
        };
        let name = |part| format!("query_key_value.{part}");
        let wanted = [(weights.key(&name("weight")), vec![3 * hidden, hidden])];
        let make = |parts: &[Tensor]| by_kind(&parts[0]);
        let weight = weights.made(&name("weight"), [3 * hidden, hidden], &wanted, &make)?;
        let wanted = [(weights.key(&name("bias")), vec![3 * hidden])];
        let make = |parts: &[Tensor]| by_kind(&parts[0])?.flatten_all();
        let bias = || weights.made_vector(&name("bias"), 3 * hidden, &wanted, &make);
        Ok(Linear::new(weight, self.attention_bias.then(bias).transpose()?))
    }
}
