//! Gemma 2 and 3: norms before and after each block, windows on most layers, scores and logits with
//! soft caps (2) or normalized queries and angles by layer type (3).

use std::sync::Arc;

use candle_core::{Result, bail};
use serde::Deserialize;

use crate::fields::{SizeDefaults, Sizes, check_window, positive, windows_of_types};
use crate::layers::{
    Activation, Attention, Decoder, DecoderLayer, FeedForward, Mixer, Mlp, Norm, QueryKeyNorm,
    RmsNorm, RopeConfig, RopeDefaults, RopeFields, RotaryEmbedding,
};
use crate::registry::Plan;
use crate::{CausalLm, ModelConfig, Weights};

/// Which of the two.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Generation {
    Two,
    Three,
}

#[derive(Deserialize)]
struct Fields {
    hidden_activation: Option<String>,
    attention_bias: Option<bool>,
    query_pre_attn_scalar: Option<f64>,
    sliding_window: Option<usize>,
    sliding_window_pattern: Option<usize>,
    /// The same in checkpoints that were saved later, some of which have both.
    #[serde(rename = "_sliding_window_pattern")]
    saved_pattern: Option<usize>,
    layer_types: Option<Vec<String>>,
    final_logit_softcapping: Option<f64>,
    attn_logit_softcapping: Option<f64>,
    use_bidirectional_attention: Option<bool>,
}

#[derive(Debug)]
struct Config {
    sizes: Sizes,
    generation: Generation,
    attention_bias: bool,
    activation: Activation,
    scale: f32,
    attention_cap: Option<f32>,
    logit_cap: Option<f32>,
    /// One a layer: the tokens it sees, if it slides.
    windows: Vec<Option<usize>>,
    rope: RopeConfig,
    /// Of layers that slide.
    local_rope: RopeConfig,
}

pub(crate) fn plan(config: &ModelConfig, generation: Generation) -> Result<Box<dyn Plan>> {
    let fields: Fields = config.read()?;
    let rope: RopeFields = config.read()?;
    let (rope, local_rope) = match generation {
        Generation::Two => {
            let rope = rope.resolve(RopeDefaults::theta(10_000.0))?;
            (rope.clone(), rope)
        }
        Generation::Three => rope.resolve_by_type(1_000_000.0, 10_000.0)?,
    };
    let defaults =
        SizeDefaults { head_dim: Some(256), tie_word_embeddings: true, ..SizeDefaults::PLAIN };
    let sizes = Sizes::read(config, defaults, &rope)?;
    if fields.use_bidirectional_attention == Some(true) {
        bail!("config.json: use_bidirectional_attention is not supported: true")
    }
    if generation == Generation::Three && fields.attn_logit_softcapping.is_some() {
        bail!("config.json: attn_logit_softcapping is not supported by this architecture")
    }
    let cap = |field, default: Option<f64>, value: Option<f64>| {
        let value = if config.has(field) { value } else { default };
        value.map(|value| positive(field, value)).transpose()
    };
    let default = |value| (generation == Generation::Two).then_some(value);
    let act = fields.hidden_activation.as_deref().unwrap_or("gelu_pytorch_tanh");
    let scalar = positive("query_pre_attn_scalar", fields.query_pre_attn_scalar.unwrap_or(256.0))?;
    Ok(Box::new(Config {
        attention_bias: fields.attention_bias.unwrap_or(false),
        activation: Activation::parse("hidden_activation", act, &["gelu_pytorch_tanh", "gelu"])?,
        scale: 1.0 / scalar.sqrt(),
        attention_cap: cap("attn_logit_softcapping", default(50.0), fields.attn_logit_softcapping)?,
        logit_cap: cap("final_logit_softcapping", default(30.0), fields.final_logit_softcapping)?,
        windows: fields.windows(config, generation, sizes.num_layers)?,
        sizes,
        generation,
        rope,
        local_rope,
    }))
}

impl Fields {
    /// The window of each layer.
    fn windows(
        &self,
        config: &ModelConfig,
        generation: Generation,
        num_layers: usize,
    ) -> Result<Vec<Option<usize>>> {
        let given = config.has("sliding_window");
        let window = check_window(if given { self.sliding_window } else { Some(4096) })?;
        if let Some(types) = &self.layer_types {
            return windows_of_types(types, num_layers, window);
        }
        let pattern = match generation {
            Generation::Two => 2,
            Generation::Three => self.sliding_window_pattern.or(self.saved_pattern).unwrap_or(6),
        };
        if pattern == 0 || window.is_none() {
            bail!("config.json: layers slide but sliding_window or its pattern is missing")
        }
        Ok((1..=num_layers)
            .map(|layer| window.filter(|_| !layer.is_multiple_of(pattern)))
            .collect())
    }
}

impl Plan for Config {
    fn build(&self, weights: &Weights) -> Result<Box<dyn CausalLm>> {
        let (head_dim, len) = (self.sizes.head_dim, self.sizes.max_model_len);
        let rotary = |rope| RotaryEmbedding::new(rope, head_dim, len).map(Arc::new);
        let (rotary, local) = (rotary(&self.rope)?, rotary(&self.local_rope)?);
        let layer = |index: usize, weights: &Weights| {
            let rotary = if self.windows[index].is_some() { &local } else { &rotary };
            self.layer(index, rotary, weights)
        };
        Ok(Box::new(Decoder {
            embedding_scale: (self.sizes.hidden_size as f32).sqrt(),
            logit_cap: self.logit_cap,
            ..Decoder::read(&self.sizes, weights, layer, RmsNorm::one_more)?
        }))
    }
}

impl Config {
    fn norm(&self, weights: &Weights, name: &str) -> Result<Norm> {
        let Sizes { hidden_size, norm_eps, .. } = self.sizes;
        Ok(weights.rms_norm(name, hidden_size, norm_eps)?.one_more()?.into())
    }

    fn layer(
        &self,
        index: usize,
        rotary: &Arc<RotaryEmbedding>,
        weights: &Weights,
    ) -> Result<DecoderLayer> {
        let sizes = (self.sizes.hidden_size, self.sizes.intermediate_size);
        let mlp = || Mlp::gated(&weights.at("mlp"), sizes, false, self.activation);
        Ok(DecoderLayer {
            attention_norm: Some(self.norm(weights, "input_layernorm")?),
            attention: self.attention(index, rotary, &weights.at("self_attn"))?,
            attention_out_norm: Some(self.norm(weights, "post_attention_layernorm")?),
            mlp_norm: Some(self.norm(weights, "pre_feedforward_layernorm")?),
            mlp: FeedForward::Dense(mlp()?),
            mlp_out_norm: Some(self.norm(weights, "post_feedforward_layernorm")?),
            residual_scale: 1.0,
            parallel: false,
        })
    }

    fn attention(
        &self,
        layer: usize,
        rotary: &Arc<RotaryEmbedding>,
        weights: &Weights,
    ) -> Result<Mixer> {
        let Sizes { hidden_size, head_dim, norm_eps, .. } = self.sizes;
        let (q_dim, kv_dim) = (self.sizes.q_dim(), self.sizes.kv_dim());
        let parts = [("q_proj", q_dim), ("k_proj", kv_dim), ("v_proj", kv_dim)];
        let qkv_proj =
            weights.fused_linear("qkv_proj", &parts, hidden_size, self.attention_bias)?;
        let head_norm = |name| weights.rms_norm(name, head_dim, norm_eps)?.one_more();
        let norm = match self.generation {
            Generation::Two => None,
            Generation::Three => {
                Some(QueryKeyNorm { query: head_norm("q_norm")?, key: head_norm("k_norm")? })
            }
        };
        Ok(Mixer::Attention(Attention {
            layer,
            num_heads: self.sizes.num_heads,
            num_kv_heads: self.sizes.num_kv_heads,
            head_dim,
            scale: self.scale,
            sliding_window: self.windows[layer],
            soft_cap: self.attention_cap,
            sinks: None,
            qkv_proj,
            norm,
            rotary: Some(Arc::clone(rotary)),
            o_proj: weights.linear("o_proj", q_dim, hidden_size, self.attention_bias)?,
        }))
    }
}
