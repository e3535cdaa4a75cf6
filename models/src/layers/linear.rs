//! Linear layers.

use candle_core::{Result, Tensor};
use pinion_kernels::{Activations, PackedTensor, ops};

/// A linear layer over packed weights.
#[derive(Debug)]
pub struct Linear {
    weight: PackedTensor,
    bias: Option<Tensor>,
}

impl Linear {
    pub(crate) fn new(weight: PackedTensor, bias: Option<Tensor>) -> Self {
        Self { weight, bias }
    }

    /// `[num_tokens, in_dim]` to `[num_tokens, out_dim]`.
    pub fn forward(&self, x: &Activations) -> Result<Activations> {
        ops::linear(x, &self.weight, self.bias.as_ref())
    }

    /// Adds the result to `residual` `[num_tokens, out_dim]`.
    pub fn add_to(&self, residual: &mut Activations, x: &Activations) -> Result<()> {
        ops::add_linear(x, &self.weight, self.bias.as_ref(), residual)
    }
}
