//! The gated feed-forward block.

use candle_core::Result;
use pinion_kernels::{Activations, ops};

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

    /// Adds the result to `residual`, which has the shape of `x`: `[num_tokens, hidden]`.
    pub fn add_to(&self, residual: &mut Activations, x: &Activations) -> Result<()> {
        self.down_proj.add_to(residual, &ops::silu_mul(&self.gate_up_proj.forward(x)?)?)
    }
}
