//! The gated feed-forward block.

use candle_core::{Result, Tensor};
use pinion_kernels::ops;

use super::Linear;
use crate::Weights;

/// `down(silu(gate(x)) * up(x))`.
#[derive(Debug)]
pub struct GatedMlp {
    gate_up_proj: Linear,
    down_proj: Linear,
}

impl GatedMlp {
    /// Reads `gate_proj`, `up_proj` and `down_proj`.
    pub fn new(weights: &Weights, hidden: usize, intermediate: usize, bias: bool) -> Result<Self> {
        let parts = [("gate_proj", intermediate), ("up_proj", intermediate)];
        Ok(Self {
            gate_up_proj: weights.fused_linear("gate_up_proj", &parts, hidden, bias)?,
            down_proj: weights.linear("down_proj", intermediate, hidden, bias)?,
        })
    }

    /// `[num_tokens, hidden]` to `[num_tokens, hidden]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.down_proj.forward(&ops::silu_mul(&self.gate_up_proj.forward(x)?)?)
    }
}
