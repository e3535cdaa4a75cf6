//! Dense feed-forward blocks.

use candle_core::{Result, bail};
use pinion_kernels::ops::Gelu;
use pinion_kernels::{Activations, ops};

use super::Linear;
use crate::Weights;

/// The curve between the two linears of a feed-forward block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// `x * Phi(x)`.
    Gelu(Gelu),
}

impl Activation {
    /// The names of gelu, by whatever formula.
    pub(crate) const GELUS: &[&str] = &["gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh"];

    /// The curve of this name in `config.json`.
    ///
    /// # Errors
    /// When it is none of `known`; the message names `field`.
    pub(crate) fn parse(field: &str, name: &str, known: &[&str]) -> Result<Self> {
        match name {
            _ if !known.contains(&name) => {
                let known = known.join(", ");
                bail!("config.json: {field} `{name}` is not supported, supported are: {known}")
            }
            "silu" | "swish" => Ok(Self::Silu),
            "gelu" => Ok(Self::Gelu(Gelu::Exact)),
            _ => Ok(Self::Gelu(Gelu::Tanh)),
        }
    }

    /// The curve of the first half of each row, times the second half.
    pub(crate) fn gate(self, gate_up: &Activations) -> Result<Activations> {
        match self {
            Self::Silu => ops::silu_mul(gate_up),
            Self::Gelu(kind) => ops::gelu_mul(gate_up, kind),
        }
    }
}

/// `down(act(gate(x)) * up(x))`, or `down(act(up(x)))` without a gate.
#[derive(Debug)]
pub struct Mlp {
    up: Linear,
    down: Linear,
    curve: Curve,
}

#[derive(Debug)]
enum Curve {
    Gate(Activation),
    Plain(Activation),
}

impl Mlp {
    /// Reads `gate_proj`, `up_proj` and `down_proj`.
    pub fn gated(
        weights: &Weights,
        (hidden, intermediate): (usize, usize),
        bias: bool,
        activation: Activation,
    ) -> Result<Self> {
        let parts = [("gate_proj", intermediate), ("up_proj", intermediate)];
        let up = weights.fused_linear("gate_up_proj", &parts, hidden, bias)?;
        let down = weights.linear("down_proj", intermediate, hidden, bias)?;
        Ok(Self { up, down, curve: Curve::Gate(activation) })
    }

    /// Linears that give a gate and what it gates beside one another.
    pub(crate) fn fused(gate_up: Linear, down: Linear, activation: Activation) -> Self {
        Self { up: gate_up, down, curve: Curve::Gate(activation) }
    }

    /// Linears without a gate.
    pub(crate) fn plain(up: Linear, down: Linear, activation: Activation) -> Self {
        Self { up, down, curve: Curve::Plain(activation) }
    }

    /// `[num_tokens, hidden]` to the same shape.
    pub fn forward(&self, x: &Activations) -> Result<Activations> {
        self.down.forward(&self.inner(x)?)
    }

    /// Adds the result to `residual`, which has the shape of `x`.
    pub fn add_to(&self, residual: &mut Activations, x: &Activations) -> Result<()> {
        self.down.add_to(residual, &self.inner(x)?)
    }

    fn inner(&self, x: &Activations) -> Result<Activations> {
        let mut h = self.up.forward(x)?;
        match self.curve {
            Curve::Gate(activation) => activation.gate(&h),
            Curve::Plain(Activation::Gelu(kind)) => {
                ops::gelu(&mut h, kind);
                Ok(h)
            }
            Curve::Plain(Activation::Silu) => bail!("silu without a gate is in no architecture"),
        }
    }
}
