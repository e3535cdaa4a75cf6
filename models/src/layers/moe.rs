//! A feed-forward block of experts, of which each token uses a few.

use candle_core::Result;
use pinion_kernels::Activations;
use pinion_kernels::ops::{self, GroupWeight, RouterParams};

use super::{Activation, Linear, Mlp};

/// The curve between the two linears of an expert.
#[derive(Clone, Copy, Debug)]
pub enum ExpertGate {
    /// A curve times the other half.
    Plain(Activation),
    /// That of gpt-oss.
    Clamped {
        /// Slope of the sigmoid.
        alpha: f32,
        /// Where both halves are cut.
        limit: f32,
    },
}

/// An expert that every token uses.
#[derive(Debug)]
pub struct SharedExpert {
    /// The expert.
    pub mlp: Mlp,
    /// A logit for each token, whose sigmoid the result is multiplied by.
    pub gate: Option<Linear>,
}

/// Routed experts, and perhaps one that is shared.
#[derive(Debug)]
pub struct Experts {
    /// A logit for each expert.
    pub router: Linear,
    /// What becomes of the logits.
    pub routing: RouterParams,
    /// `[2 * ff, hidden]` each: gates, then what they gate.
    pub gate_up: Vec<GroupWeight>,
    /// `[hidden, ff]` each.
    pub down: Vec<GroupWeight>,
    /// Between the two.
    pub gate: ExpertGate,
    /// Used by all.
    pub shared: Option<SharedExpert>,
}

impl Experts {
    /// Adds the results to `residual`, which has the shape of `x`: `[num_tokens, hidden]`.
    pub fn add_to(&self, residual: &mut Activations, x: &Activations) -> Result<()> {
        let routes = ops::route(&self.router.forward(x)?, &self.routing)?;
        let rows = routes.gather(x)?;
        let gate_up = ops::grouped_linear(&rows, routes.ends(), &self.gate_up)?;
        let h = match self.gate {
            ExpertGate::Plain(activation) => activation.gate(&gate_up)?,
            ExpertGate::Clamped { alpha, limit } => ops::clamped_swiglu(&gate_up, alpha, limit)?,
        };
        let results = ops::grouped_linear(&h, routes.ends(), &self.down)?;
        routes.add_to(residual, &results)?;
        let Some(shared) = &self.shared else { return Ok(()) };
        let Some(gate) = &shared.gate else { return shared.mlp.add_to(residual, x) };
        let mut result = shared.mlp.forward(x)?;
        ops::scale_by_sigmoid(&mut result, &gate.forward(x)?)?;
        ops::add_scaled(residual, &result, 1.0)
    }
}
