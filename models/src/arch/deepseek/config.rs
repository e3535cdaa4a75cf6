//! What a `config.json` of `DeepSeek` says, validated.

use candle_core::{Result, bail};
use pinion_kernels::ops::{RouterGroups, RouterParams, Scoring};
use serde::Deserialize;

use crate::ModelConfig;
use crate::fields::{MAX_SIZE, SizeDefaults, Sizes, check, check_experts, positive};
use crate::layers::{Activation, RopeConfig, RopeDefaults, RopeFields};

/// Which of the two.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Version {
    Two,
    Three,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Fields {
    pub(super) q_lora_rank: Option<usize>,
    pub(super) kv_lora_rank: usize,
    pub(super) qk_nope_head_dim: usize,
    pub(super) qk_rope_head_dim: usize,
    pub(super) v_head_dim: usize,
    pub(super) hidden_act: Option<String>,
    pub(super) attention_bias: Option<bool>,
    pub(super) mlp_bias: Option<bool>,
    pub(super) rope_interleave: Option<bool>,
    pub(super) first_k_dense_replace: Option<usize>,
    pub(super) moe_layer_freq: Option<usize>,
    pub(super) n_routed_experts: Option<usize>,
    pub(super) n_shared_experts: Option<usize>,
    pub(super) moe_intermediate_size: usize,
    pub(super) num_experts_per_tok: Option<usize>,
    pub(super) n_group: Option<usize>,
    pub(super) topk_group: Option<usize>,
    pub(super) topk_method: Option<String>,
    pub(super) scoring_func: Option<String>,
    pub(super) norm_topk_prob: Option<bool>,
    pub(super) routed_scaling_factor: Option<f64>,
}

#[derive(Debug)]
pub(super) struct Config {
    pub(super) version: Version,
    pub(super) sizes: Sizes,
    pub(super) fields: Fields,
    pub(super) num_experts: usize,
    /// Of the shared expert.
    pub(super) shared: usize,
    pub(super) first_sparse: usize,
    pub(super) routing: RouterParams,
    pub(super) activation: Activation,
    pub(super) interleaved: bool,
    pub(super) scale: f32,
    pub(super) rope: RopeConfig,
}

/// Reads and validates.
pub(super) fn read(config: &ModelConfig, version: Version) -> Result<Config> {
    let fields: Fields = config.read()?;
    fields.check(version)?;
    let rope = config.read::<RopeFields>()?.resolve(RopeDefaults::theta(10_000.0))?;
    let (plain, rotated) = (fields.qk_nope_head_dim, fields.qk_rope_head_dim);
    let defaults = SizeDefaults { head_dim: Some(rotated), grouped: false, ..SizeDefaults::PLAIN };
    let sizes = Sizes::read(config, defaults, &rope)?;
    // A token has one row in the cache, whatever the number of heads.
    let sizes = Sizes { num_kv_heads: 1, head_dim: fields.kv_lora_rank + rotated, ..sizes };
    sizes.check()?;
    let three = version == Version::Three;
    let num_experts = fields.n_routed_experts.unwrap_or(if three { 256 } else { 64 });
    check_experts(num_experts, sizes.num_layers)?;
    let routing = fields.routing(version)?;
    routing.check(num_experts)?;
    let shared = fields.n_shared_experts.unwrap_or(if three { 1 } else { 2 });
    let shared = shared.saturating_mul(fields.moe_intermediate_size);
    check("n_shared_experts", shared, MAX_SIZE)?;
    let act = fields.hidden_act.as_deref().unwrap_or("silu");
    Ok(Config {
        activation: Activation::parse("hidden_act", act, &["silu", "swish"])?,
        first_sparse: fields.first_k_dense_replace.unwrap_or(if three { 3 } else { 0 }),
        interleaved: !three || fields.rope_interleave.unwrap_or(true),
        scale: rope.score_factor() / ((plain + rotated) as f32).sqrt(),
        version,
        sizes,
        fields,
        num_experts,
        shared,
        routing,
        rope,
    })
}

impl Fields {
    /// Refuses what is no size, and what neither class in transformers does.
    fn check(&self, version: Version) -> Result<()> {
        for (name, size) in [
            ("kv_lora_rank", self.kv_lora_rank),
            ("qk_nope_head_dim", self.qk_nope_head_dim),
            ("qk_rope_head_dim", self.qk_rope_head_dim),
            ("v_head_dim", self.v_head_dim),
            ("q_lora_rank", self.q_lora_rank.unwrap_or(1)),
            ("moe_intermediate_size", self.moe_intermediate_size),
        ] {
            check(name, size, 1 << 16)?;
        }
        if !self.qk_rope_head_dim.is_multiple_of(2) {
            bail!("config.json: qk_rope_head_dim must be even: {}", self.qk_rope_head_dim)
        }
        for (name, given) in [("attention_bias", self.attention_bias), ("mlp_bias", self.mlp_bias)]
        {
            if given == Some(true) {
                bail!("config.json: {name} is not supported by this architecture: true")
            }
        }
        if self.moe_layer_freq.is_some_and(|freq| freq != 1) {
            bail!("config.json: moe_layer_freq is not supported: {:?}", self.moe_layer_freq)
        }
        if version == Version::Two && self.norm_topk_prob == Some(true) {
            bail!("config.json: norm_topk_prob is not supported by this architecture: true")
        }
        let (scoring, methods): (_, &[_]) = match version {
            Version::Two => ("softmax", &["greedy", "group_limited_greedy"]),
            Version::Three => ("sigmoid", &["noaux_tc"]),
        };
        if let Some(other) = self.scoring_func.as_deref().filter(|given| *given != scoring) {
            bail!("config.json: scoring_func `{other}` is not supported, supported are: {scoring}")
        }
        if let Some(other) = self.topk_method.as_deref().filter(|given| !methods.contains(given)) {
            let known = methods.join(", ");
            bail!("config.json: topk_method `{other}` is not supported, supported are: {known}")
        }
        Ok(())
    }

    fn routing(&self, version: Version) -> Result<RouterParams> {
        let three = version == Version::Three;
        let (count, kept) = (self.n_group, self.topk_group);
        let groups = match (version, self.topk_method.as_deref()) {
            (Version::Three, _) => {
                Some(RouterGroups { count: count.unwrap_or(8), kept: kept.unwrap_or(4), best: 2 })
            }
            (Version::Two, Some("group_limited_greedy")) => {
                let (Some(count), Some(kept)) = (count, kept) else {
                    bail!("config.json: group_limited_greedy needs n_group and topk_group")
                };
                Some(RouterGroups { count, kept, best: 1 })
            }
            (Version::Two, _) => None,
        };
        let scale = self.routed_scaling_factor.unwrap_or(if three { 2.5 } else { 1.0 });
        let Some(top_k) = self.num_experts_per_tok.or(three.then_some(8)) else {
            bail!("config.json: num_experts_per_tok is missing")
        };
        Ok(RouterParams {
            scoring: if three { Scoring::Sigmoid } else { Scoring::Softmax },
            top_k,
            bias: None,
            groups,
            normalize: three && self.norm_topk_prob.unwrap_or(true),
            scale: positive("routed_scaling_factor", scale)?,
        })
    }
}
