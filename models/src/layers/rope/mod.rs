//! Which angles a checkpoint's positions have: `rope_theta`, `rope_scaling`, `rope_parameters`.
//!
//! Two types need a choice that depends in transformers on the length of the running batch, which
//! would make a text depend on its neighbours; here the length is the model's own:
//!
//! - `dynamic` grows its base with the text, while cached keys keep their old angles. It is plain
//!   rope up to `max_position_embeddings`, and refused beyond.
//! - `longrope` has one set of factors for texts within the original context and one for longer
//!   texts. `max_model_len` decides for all positions: the short set unless a length beyond the
//!   original context is asked for.

mod fields;
mod scaling;

use candle_core::{Result, bail};

pub(crate) use fields::{RopeDefaults, RopeFields};
use scaling::RopeScaling;

/// Positions beyond this are taken for a damaged file.
const MAX_POSITIONS: usize = 1 << 26;

/// Base and scaling of the angles.
#[derive(Clone, Debug)]
pub struct RopeConfig {
    theta: f64,
    scaling: RopeScaling,
    max_positions: usize,
    partial: f64,
}

impl RopeConfig {
    /// The longest sequence, given what the caller asks for.
    ///
    /// # Errors
    /// When more is asked for than the positions reach.
    pub fn max_model_len(&self, asked: Option<usize>) -> Result<usize> {
        let (default, limit) = self.reach();
        let Some(asked) = asked else { return Ok(default) };
        if asked == 0 {
            bail!("max_model_len must be at least 1: 0")
        }
        if asked <= limit {
            return Ok(asked);
        }
        if matches!(self.scaling, RopeScaling::Dynamic) {
            bail!(
                "max_model_len must be at most {limit}: {asked}; dynamic rope scaling depends on \
                 the other texts of a batch beyond the original context and is refused there"
            )
        }
        bail!("max_model_len must be at most {limit}, where the model's positions end: {asked}")
    }

    /// Whether angles are plain, or those of longrope.
    pub(crate) fn is_plain_or_longrope(&self) -> bool {
        matches!(self.scaling, RopeScaling::Default | RopeScaling::LongRope(_))
    }

    /// What scores are multiplied by, beside what their heads ask for: in some models that stretch
    /// their context.
    pub(crate) fn score_factor(&self) -> f32 {
        match &self.scaling {
            RopeScaling::Yarn(yarn) => yarn.score_factor() as f32,
            _ => 1.0,
        }
    }

    /// Elements of a head that are rotated.
    #[expect(clippy::cast_sign_loss, reason = "a share of a size")]
    pub fn rotary_dim(&self, head_dim: usize) -> usize {
        (head_dim as f64 * self.partial) as usize
    }

    /// One frequency for each rotated pair of a head, and the factor of cosines and sines.
    ///
    /// # Errors
    /// When a head has no even width, or factors do not fit it.
    pub fn inverse_frequencies(
        &self,
        head_dim: usize,
        max_model_len: usize,
    ) -> Result<(Vec<f32>, f32)> {
        let head_dim = self.rotary_dim(head_dim);
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            bail!("config.json: rotary positions need an even head_dim: {head_dim}")
        }
        let theta = self.theta as f32;
        let waves: Vec<f32> =
            (0..head_dim).step_by(2).map(|i| theta.powf(i as f32 / head_dim as f32)).collect();
        let frequencies = self.scaling.frequencies(&waves, self.theta, max_model_len)?;
        Ok((frequencies, self.scaling.attention_factor()))
    }

    /// The longest sequence if nothing is asked for, and the longest that may be asked for.
    fn reach(&self) -> (usize, usize) {
        let max = self.max_positions;
        let stretched = |len, factor| scaled(len, factor).clamp(max, MAX_POSITIONS);
        match &self.scaling {
            RopeScaling::Default | RopeScaling::Dynamic | RopeScaling::Llama3(_) => (max, max),
            RopeScaling::Linear { factor } => (max, stretched(max, *factor)),
            RopeScaling::Yarn(yarn) => {
                let reach = stretched(yarn.original, yarn.factor);
                (reach, reach)
            }
            RopeScaling::LongRope(longrope) => (longrope.original.min(max), max),
        }
    }
}

#[expect(clippy::cast_sign_loss, reason = "factors are positive")]
fn scaled(len: usize, factor: f64) -> usize {
    (len as f64 * factor) as usize
}
