//! Root-mean-square norm.

use std::ops::Range;

use candle_core::{Result, Tensor};
use pinion_kernels::{Activations, ops};

/// `x / rms(x) * weight` over the last dimension.
#[derive(Debug)]
pub struct RmsNorm {
    weight: Tensor,
    eps: f32,
}

impl RmsNorm {
    pub(crate) fn new(weight: Tensor, eps: f64) -> Self {
        Self { weight, eps: eps as f32 }
    }

    /// Normalizes each row.
    pub fn forward(&self, x: &Activations) -> Result<Activations> {
        ops::rms_norm(x, &self.weight, self.eps)
    }

    /// Normalizes some heads of each row in place.
    pub fn forward_heads(&self, x: &mut Activations, heads: Range<usize>) -> Result<()> {
        ops::rms_norm_heads(x, heads, &self.weight, self.eps)
    }
}
