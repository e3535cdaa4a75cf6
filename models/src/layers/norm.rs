//! Norms of rows.

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

    /// The norm that multiplies by one more than its weight.
    pub(crate) fn one_more(self) -> Result<Self> {
        Ok(Self { weight: (self.weight + 1.0)?, eps: self.eps })
    }

    /// Normalizes each row.
    pub fn forward(&self, x: &Activations) -> Result<Activations> {
        ops::rms_norm(x, &self.weight, self.eps)
    }

    /// Normalizes runs of columns of each row in place, each as wide as the weight.
    pub fn forward_columns(&self, x: &mut Activations, columns: Range<usize>) -> Result<()> {
        ops::rms_norm_columns(x, columns, &self.weight, self.eps)
    }
}

/// `(x - mean(x)) / std(x) * weight + bias` over the last dimension.
#[derive(Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f32,
}

impl LayerNorm {
    pub(crate) fn new(weight: Tensor, bias: Tensor, eps: f64) -> Self {
        Self { weight, bias, eps: eps as f32 }
    }

    /// Normalizes each row.
    pub fn forward(&self, x: &Activations) -> Result<Activations> {
        ops::layer_norm(x, &self.weight, &self.bias, self.eps)
    }
}

/// What a decoder normalizes with.
#[derive(Debug)]
pub enum Norm {
    /// By the root of the mean square.
    Rms(RmsNorm),
    /// By mean and deviation.
    Layer(LayerNorm),
}

impl Norm {
    /// Normalizes each row.
    pub fn forward(&self, x: &Activations) -> Result<Activations> {
        match self {
            Self::Rms(norm) => norm.forward(x),
            Self::Layer(norm) => norm.forward(x),
        }
    }
}

impl From<RmsNorm> for Norm {
    fn from(norm: RmsNorm) -> Self {
        Self::Rms(norm)
    }
}

impl From<LayerNorm> for Norm {
    fn from(norm: LayerNorm) -> Self {
        Self::Layer(norm)
    }
}
