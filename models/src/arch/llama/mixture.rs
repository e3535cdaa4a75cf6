//! Experts in place of the feed-forward block: Mixtral, Qwen2-MoE, Qwen3-MoE.

use candle_core::{Result, bail};
use pinion_kernels::ops::{RouterParams, Scoring};
use serde::Deserialize;

use crate::fields::{MAX_SIZE, Sizes, check, check_experts};
use crate::layers::{Activation, ExpertGate, Experts, FeedForward, Mlp, SharedExpert};
use crate::{ModelConfig, Weights};

/// What experts are called, and which there are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Mixtral,
    Qwen2,
    Qwen3,
}

#[derive(Debug)]
pub(crate) struct Mixture {
    kind: Kind,
    num_experts: usize,
    /// Of a routed expert, and of the shared one.
    intermediate: (usize, usize),
    routing: RouterParams,
    /// One a layer: whether it has experts.
    sparse: Vec<bool>,
    activation: Activation,
}

#[derive(Deserialize)]
struct Fields {
    num_local_experts: Option<usize>,
    num_experts: Option<usize>,
    num_experts_per_tok: Option<usize>,
    moe_intermediate_size: Option<usize>,
    shared_expert_intermediate_size: Option<usize>,
    norm_topk_prob: Option<bool>,
    decoder_sparse_step: Option<usize>,
    mlp_only_layers: Option<Vec<usize>>,
}

impl Mixture {
    pub(crate) fn read(
        config: &ModelConfig,
        kind: Kind,
        sizes: &Sizes,
        activation: Activation,
    ) -> Result<Self> {
        let fields: Fields = config.read()?;
        // The class in transformers knows both names of one field.
        let given = fields.num_experts.or(fields.num_local_experts);
        let (experts, top_k, ff, shared) = match kind {
            Kind::Mixtral => (8, 2, sizes.intermediate_size, 0),
            Kind::Qwen2 => (60, 4, 1408, 5632),
            Kind::Qwen3 => (128, 8, 768, 0),
        };
        let (mut intermediate, mut normalize) = ((ff, shared), true);
        if kind != Kind::Mixtral {
            intermediate.0 = fields.moe_intermediate_size.unwrap_or(ff);
            normalize = fields.norm_topk_prob.unwrap_or(false);
        }
        if kind == Kind::Qwen2 {
            intermediate.1 = fields.shared_expert_intermediate_size.unwrap_or(shared);
            check("shared_expert_intermediate_size", intermediate.1, MAX_SIZE)?;
        }
        check("moe_intermediate_size", intermediate.0, MAX_SIZE)?;
        let num_experts = given.unwrap_or(experts);
        check_experts(num_experts, sizes.num_layers)?;
        let routing = RouterParams {
            scoring: Scoring::Softmax,
            top_k: fields.num_experts_per_tok.unwrap_or(top_k),
            bias: None,
            groups: None,
            normalize,
            scale: 1.0,
        };
        routing.check(num_experts)?;
        let step = fields.decoder_sparse_step.filter(|_| kind != Kind::Mixtral).unwrap_or(1);
        if step == 0 {
            bail!("config.json: decoder_sparse_step must be at least 1: 0")
        }
        let dense = fields.mlp_only_layers.filter(|_| kind != Kind::Mixtral).unwrap_or_default();
        let sparse =
            (0..sizes.num_layers).map(|i| (i + 1).is_multiple_of(step) && !dense.contains(&i));
        let sparse = sparse.collect();
        Ok(Self { kind, num_experts, intermediate, routing, sparse, activation })
    }

    /// The experts of a layer, if it has any; `weights` are those of the layer.
    pub(crate) fn feed_forward(
        &self,
        layer: usize,
        hidden: usize,
        weights: &Weights,
    ) -> Result<Option<FeedForward>> {
        if !self.sparse[layer] {
            return Ok(None);
        }
        let (block, names) = match self.kind {
            Kind::Mixtral => ("block_sparse_moe", ["w1", "w3", "w2"]),
            Kind::Qwen2 | Kind::Qwen3 => ("mlp", ["gate_proj", "up_proj", "down_proj"]),
        };
        let (weights, [gate, up, down]) = (weights.at(block), names);
        let ff = self.intermediate.0;
        let router = weights.router("gate", hidden, self.num_experts, false)?;
        let experts = |make: &dyn Fn(&Weights) -> Result<_>| {
            (0..self.num_experts).map(|e| make(&weights.at("experts").at(e))).collect::<Result<_>>()
        };
        let gate_up = experts(&|e| e.group("gate_up_proj", &[(gate, ff), (up, ff)], hidden))?;
        let down = experts(&|e| e.group(down, &[(down, hidden)], ff))?;
        Ok(Some(FeedForward::Experts(Experts {
            router,
            routing: self.routing.clone(),
            gate_up,
            down,
            gate: ExpertGate::Plain(self.activation),
            shared: self.shared(hidden, &weights)?,
        })))
    }

    fn shared(&self, hidden: usize, weights: &Weights) -> Result<Option<SharedExpert>> {
        if self.kind != Kind::Qwen2 {
            return Ok(None);
        }
        let sizes = (hidden, self.intermediate.1);
        let mlp = Mlp::gated(&weights.at("shared_expert"), sizes, false, self.activation)?;
        let gate = weights.router("shared_expert_gate", hidden, 1, false)?;
        Ok(Some(SharedExpert { mlp, gate: Some(gate) }))
    }
}
