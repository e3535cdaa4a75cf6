//! Linear layers.

use candle_core::{Result, Tensor, bail};
use pinion_kernels::{Activations, PackedTensor, ops};

/// A linear layer over packed weights.
#[derive(Debug)]
pub struct Linear {
    /// Rows of the matrix, one after the other; several where a checkpoint stores them in several types.
    weights: Vec<PackedTensor>,
    bias: Option<Tensor>,
}

impl Linear {
    pub(crate) fn new(weight: PackedTensor, bias: Option<Tensor>) -> Self {
        Self { weights: vec![weight], bias }
    }

    /// A layer of which some output features are in one matrix and the others in further ones.
    pub(crate) fn of_several(weights: Vec<PackedTensor>, bias: Option<Tensor>) -> Self {
        Self { weights, bias }
    }

    /// `[num_tokens, in_dim]` to `[num_tokens, out_dim]`.
    pub fn forward(&self, x: &Activations) -> Result<Activations> {
        match self.weights.as_slice() {
            [weight] => ops::linear(x, weight, self.bias.as_ref()),
            weights => Activations::beside(&self.parts(x, weights)?),
        }
    }

    /// Adds the result to `residual` `[num_tokens, out_dim]`.
    pub fn add_to(&self, residual: &mut Activations, x: &Activations) -> Result<()> {
        match self.weights.as_slice() {
            [weight] => ops::add_linear(x, weight, self.bias.as_ref(), residual),
            _ => bail!("a layer in several types is added to nothing"),
        }
    }

    fn parts(&self, x: &Activations, weights: &[PackedTensor]) -> Result<Vec<Activations>> {
        let mut first = 0;
        let part = |weight: &PackedTensor| {
            let bias = self.bias.as_ref().map(|bias| bias.narrow(0, first, weight.rows()));
            first += weight.rows();
            ops::linear(x, weight, bias.transpose()?.as_ref())
        };
        weights.iter().map(part).collect()
    }
}
