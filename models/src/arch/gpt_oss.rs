//! gpt-oss: sinks, windows on every other layer, experts with biases and a clamped gate, stored as
//! bf16 or in MXFP4.

use std::sync::Arc;

use candle_core::{Result, Tensor, bail};
use pinion_kernels::ops::{GroupWeight, RouterParams, Scoring};
use serde::Deserialize;

use crate::fields::{
    MAX_SIZE, SizeDefaults, Sizes, check, check_experts, check_window, positive, windows_of_types,
};
use crate::layers::{
    Attention, Decoder, DecoderLayer, ExpertGate, Experts, FeedForward, Mixer, RopeConfig,
    RopeDefaults, RopeFields, RotaryEmbedding,
};
use crate::registry::Plan;
use crate::{CausalLm, ModelConfig, Weights};

#[derive(Deserialize)]
struct Fields {
    num_local_experts: Option<usize>,
    num_experts_per_tok: Option<usize>,
    hidden_act: Option<String>,
    attention_bias: Option<bool>,
    sliding_window: Option<usize>,
    layer_types: Option<Vec<String>>,
    swiglu_alpha: Option<f64>,
    swiglu_limit: Option<f64>,
}

#[derive(Debug)]
struct Config {
    sizes: Sizes,
    rope: RopeConfig,
    /// One a layer: the tokens it sees, if it slides.
    windows: Vec<Option<usize>>,
    attention_bias: bool,
    num_experts: usize,
    routing: RouterParams,
    gate: ExpertGate,
    /// Whether experts are stored in blocks of MXFP4.
    mxfp4: bool,
}

pub(crate) fn plan(config: &ModelConfig) -> Result<Box<dyn Plan>> {
    let fields: Fields = config.read()?;
    let rope: RopeFields = config.read()?;
    if !rope.is_scaled() {
        bail!("config.json: rope_scaling is missing")
    }
    let rope = rope.resolve(RopeDefaults::theta(150_000.0))?;
    let defaults = SizeDefaults { head_dim: Some(64), norm_eps: 1e-5, ..SizeDefaults::PLAIN };
    let sizes = Sizes::read(config, defaults, &rope)?;
    if let Some(act) = fields.hidden_act.as_deref().filter(|act| *act != "silu") {
        bail!("config.json: hidden_act `{act}` is not supported, supported are: silu")
    }
    let num_experts = fields.num_local_experts.unwrap_or(128);
    check_experts(num_experts, sizes.num_layers)?;
    let routing = RouterParams {
        // Shares of the chosen ones only: the others' cancel.
        scoring: Scoring::Softmax,
        top_k: fields.num_experts_per_tok.unwrap_or(4),
        bias: None,
        groups: None,
        normalize: true,
        scale: 1.0,
    };
    routing.check(num_experts)?;
    let given = config.has("sliding_window");
    let window = check_window(if given { fields.sliding_window } else { Some(128) })?;
    let alternating = || {
        let types = ["sliding_attention", "full_attention"].map(str::to_owned);
        types.into_iter().cycle().take(sizes.num_layers).collect()
    };
    let types = fields.layer_types.unwrap_or_else(alternating);
    let mxfp4 = config.quant_method().is_some();
    if mxfp4 && !(sizes.hidden_size | sizes.intermediate_size).is_multiple_of(32) {
        bail!("config.json: mxfp4 needs sizes that are multiples of 32")
    }
    check("intermediate_size", sizes.intermediate_size, MAX_SIZE / 2)?;
    Ok(Box::new(Config {
        windows: windows_of_types(&types, sizes.num_layers, window)?,
        attention_bias: fields.attention_bias.unwrap_or(true),
        gate: ExpertGate::Clamped {
            alpha: positive("swiglu_alpha", fields.swiglu_alpha.unwrap_or(1.702))?,
            limit: positive("swiglu_limit", fields.swiglu_limit.unwrap_or(7.0))?,
        },
        sizes,
        rope,
        num_experts,
        routing,
        mxfp4,
    }))
}

impl Plan for Config {
    fn build(&self, weights: &Weights) -> Result<Box<dyn CausalLm>> {
        let (head_dim, len) = (self.sizes.head_dim, self.sizes.max_model_len);
        let rotary = Arc::new(RotaryEmbedding::new(&self.rope, head_dim, len)?);
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
        let Sizes { hidden_size: hidden, num_heads, num_kv_heads, head_dim, norm_eps, .. } =
            self.sizes;
        let norm = |name| weights.rms_norm(name, hidden, norm_eps);
        let (attention_norm, attn) = (norm("input_layernorm")?, weights.at("self_attn"));
        let (q_dim, kv_dim, bias) = (self.sizes.q_dim(), self.sizes.kv_dim(), self.attention_bias);
        let parts = [("q_proj", q_dim), ("k_proj", kv_dim), ("v_proj", kv_dim)];
        let attention = Attention {
            layer: index,
            num_heads,
            num_kv_heads,
            head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
            sliding_window: self.windows[index],
            soft_cap: None,
            sinks: Some(attn.parameter("sinks", num_heads)?.to_vec1()?),
            qkv_proj: attn.fused_linear("qkv_proj", &parts, hidden, bias)?,
            norm: None,
            rotary: Some(Arc::clone(rotary)),
            o_proj: attn.linear("o_proj", q_dim, hidden, bias)?,
        };
        let mlp_norm = norm("post_attention_layernorm")?;
        let experts = FeedForward::Experts(self.experts(&weights.at("mlp"))?);
        let attention = (attention_norm, Mixer::Attention(attention));
        Ok(DecoderLayer::pre_norm(attention, (mlp_norm, experts)))
    }

    fn experts(&self, weights: &Weights) -> Result<Experts> {
        let (hidden, ff) = (self.sizes.hidden_size, self.sizes.intermediate_size);
        let router = weights.router("router", hidden, self.num_experts, true)?;
        let experts = weights.at("experts");
        Ok(Experts {
            router,
            routing: self.routing.clone(),
            gate_up: self.stack(&experts, "gate_up_proj", [2 * ff, hidden], true)?,
            down: self.stack(&experts, "down_proj", [hidden, ff], false)?,
            gate: self.gate,
            shared: None,
        })
    }

    /// The same linear of all experts, stored as one tensor. Outputs that go in pairs are put apart.
    fn stack(
        &self,
        weights: &Weights,
        name: &str,
        [out_dim, in_dim]: [usize; 2],
        pairs: bool,
    ) -> Result<Vec<GroupWeight>> {
        let count = self.num_experts;
        let apart = |rows: Tensor| if pairs { evens_then_odds(&rows) } else { Ok(rows) };
        let key = |kind: &str| weights.key(&format!("{name}{kind}"));
        let biases = weights.stacked(&[(key("_bias"), vec![count, out_dim])]);
        let blocks = [count, out_dim, in_dim / 32, 16];
        let stored = if self.mxfp4 {
            weights.stacked_bytes(&[
                (key("_blocks"), blocks.to_vec()),
                (key("_scales"), blocks[..3].to_vec()),
            ])
        } else {
            weights.stacked(&[(key(""), vec![count, in_dim, out_dim])])
        };
        let expert = |index: usize| {
            let full = format!("{index}.{name}");
            let weight = if self.mxfp4 {
                let part = |part: &Tensor| apart(part.get(index)?.contiguous()?);
                stored.mxfp4(&format!("{full}.weight"), [out_dim, in_dim], &|parts| {
                    Ok([part(&parts[0])?, part(&parts[1])?])
                })?
            } else {
                let make = |parts: &[Tensor]| apart(parts[0].get(index)?.t()?.contiguous()?);
                stored.matrix(&format!("{full}.weight"), [out_dim, in_dim], &make)?
            };
            let make = |parts: &[Tensor]| apart(parts[0].get(index)?);
            let bias = Some(biases.vector(&format!("{full}.bias"), out_dim, &make)?);
            Ok(GroupWeight { weight, bias })
        };
        (0..count).map(expert).collect()
    }
}

/// Rows 0, 2, 4, …, then rows 1, 3, 5, ….
fn evens_then_odds(rows: &Tensor) -> Result<Tensor> {
    let shape = rows.dims().to_vec();
    let pairs = rows.reshape((shape[0] / 2, 2, ()))?;
    pairs.transpose(0, 1)?.contiguous()?.reshape(shape)
}
