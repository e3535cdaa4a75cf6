//! Which angles a checkpoint's positions have: `rope_theta`, `rope_scaling`, `rope_parameters`.
//!
//! The formulas, and f32 where they round to f32, are those of `modeling_rope_utils.py` in
//! transformers. Two types need a choice there that depends on the length of the running batch,
//! which would make a text depend on its neighbours; here the length is the model's own:
//!
//! - `dynamic` grows its base with the text, while cached keys keep their old angles. It is plain
//!   rope up to `max_position_embeddings`, and refused beyond.
//! - `longrope` has one set of factors for texts within the original context and one for longer
//!   texts. `max_model_len` decides for all positions: the short set unless a length beyond the
//!   original context is asked for.

use std::f32::consts::PI;

use candle_core::{Result, bail};
use serde::Deserialize;

/// Base and scaling of the angles.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// `rope_theta`.
    pub theta: f64,
    /// `rope_type` and its parameters.
    pub scaling: RopeScaling,
    /// `max_position_embeddings`.
    pub max_positions: usize,
}

/// How angles are changed to reach a longer context.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "parameters are named as in transformers")]
pub enum RopeScaling {
    /// Not at all.
    Default,
    /// All frequencies divided.
    Linear { factor: f64 },
    /// Plain within the original context, which is all that is served.
    Dynamic,
    /// Llama 3.1: long wavelengths divided, with a smooth border.
    Llama3 { factor: f64, low_freq_factor: f64, high_freq_factor: f64, original: usize },
    /// Long wavelengths divided, and attention sharpened.
    Yarn {
        factor: f64,
        attention_factor: f64,
        beta_fast: f64,
        beta_slow: f64,
        truncate: bool,
        original: usize,
    },
    /// A divisor for each frequency.
    LongRope {
        short_factor: Vec<f64>,
        long_factor: Vec<f64>,
        attention_factor: f64,
        original: usize,
    },
}

/// The fields that hold positions, in the layouts of transformers 4 and 5.
#[derive(Deserialize)]
pub(crate) struct RopeFields {
    max_position_embeddings: usize,
    rope_theta: Option<f64>,
    partial_rotary_factor: Option<f64>,
    original_max_position_embeddings: Option<usize>,
    rope_scaling: Option<RopeParameters>,
    rope_parameters: Option<RopeParameters>,
}

#[derive(Clone, Default, Deserialize)]
struct RopeParameters {
    rope_type: Option<String>,
    r#type: Option<String>,
    rope_theta: Option<f64>,
    partial_rotary_factor: Option<f64>,
    factor: Option<f64>,
    original_max_position_embeddings: Option<usize>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    attention_factor: Option<f64>,
    beta_fast: Option<f64>,
    beta_slow: Option<f64>,
    mscale: Option<f64>,
    mscale_all_dim: Option<f64>,
    truncate: Option<bool>,
    short_factor: Option<Vec<f64>>,
    long_factor: Option<Vec<f64>>,
    full_attention: Option<serde_json::Value>,
    sliding_attention: Option<serde_json::Value>,
}

/// What `rope_type` may be.
const TYPES: &str = "default, linear, dynamic, llama3, yarn, longrope";

/// Positions beyond this are taken for a damaged file.
const MAX_POSITIONS: usize = 1 << 26;

impl RopeConfig {
    pub(crate) fn new(fields: RopeFields) -> Result<Self> {
        // transformers lets a non-empty `rope_scaling` win over `rope_parameters`.
        let given = fields.rope_scaling.or(fields.rope_parameters).unwrap_or_default();
        let max_positions = fields.max_position_embeddings;
        if max_positions == 0 || MAX_POSITIONS < max_positions {
            bail!("config.json: max_position_embeddings is out of range: {max_positions}")
        }
        if given.full_attention.is_some() || given.sliding_attention.is_some() {
            bail!("config.json: rope parameters by layer type are not supported")
        }
        let partial = given.partial_rotary_factor.or(fields.partial_rotary_factor).unwrap_or(1.0);
        if (partial - 1.0).abs() > f64::EPSILON {
            bail!("config.json: partial_rotary_factor is not supported: {partial}")
        }
        let theta = given.rope_theta.or(fields.rope_theta).unwrap_or(10_000.0);
        let theta = in_range("rope_theta", Some(theta), 1.0..=1e15)?;
        let original = fields
            .original_max_position_embeddings
            .or(given.original_max_position_embeddings)
            .unwrap_or(max_positions);
        if original == 0 || MAX_POSITIONS < original {
            bail!("config.json: original_max_position_embeddings is out of range: {original}")
        }
        let scaling = RopeScaling::new(given, max_positions, original)?;
        Ok(Self { theta, scaling, max_positions })
    }

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
        if self.scaling == RopeScaling::Dynamic {
            bail!(
                "max_model_len must be at most {limit}: {asked}; dynamic rope scaling depends on \
                 the other texts of a batch beyond the original context and is refused there"
            )
        }
        bail!("max_model_len must be at most {limit}, where the model's positions end: {asked}")
    }

    /// The longest sequence if nothing is asked for, and the longest that may be asked for.
    fn reach(&self) -> (usize, usize) {
        let max = self.max_positions;
        match self.scaling {
            RopeScaling::Default | RopeScaling::Dynamic | RopeScaling::Llama3 { .. } => (max, max),
            RopeScaling::Linear { factor } => (max, scaled(max, factor).clamp(max, MAX_POSITIONS)),
            RopeScaling::Yarn { factor, original, .. } => {
                let reach = scaled(original, factor).clamp(max, MAX_POSITIONS);
                (reach, reach)
            }
            RopeScaling::LongRope { original, .. } => (original.min(max), max),
        }
    }

    /// One frequency for each pair of a head, and the factor of cosines and sines.
    ///
    /// # Errors
    /// When a head has no even width, or factors do not fit it.
    pub fn inverse_frequencies(
        &self,
        head_dim: usize,
        max_model_len: usize,
    ) -> Result<(Vec<f32>, f32)> {
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            bail!("config.json: rotary positions need an even head_dim: {head_dim}")
        }
        let theta = self.theta as f32;
        let wave = |i: usize| theta.powf((2 * i) as f32 / head_dim as f32);
        let plain: Vec<f32> = (0..head_dim / 2).map(|i| 1.0 / wave(i)).collect();
        let mut attention = 1.0;
        let frequencies = match &self.scaling {
            RopeScaling::Default | RopeScaling::Dynamic => plain,
            RopeScaling::Linear { factor } => plain.iter().map(|f| f / *factor as f32).collect(),
            RopeScaling::Llama3 { .. } => plain.iter().map(|&f| self.scaling.llama3(f)).collect(),
            RopeScaling::Yarn { attention_factor, .. } => {
                attention = *attention_factor as f32;
                let (low, high) = self.yarn_range(head_dim);
                let blend = |(i, &f)| self.scaling.yarn(f, ramp(i, low, high));
                plain.iter().enumerate().map(blend).collect()
            }
            RopeScaling::LongRope { short_factor, long_factor, attention_factor, original } => {
                attention = *attention_factor as f32;
                let factors = if max_model_len <= *original { short_factor } else { long_factor };
                if factors.len() != plain.len() {
                    let (found, expected) = (factors.len(), plain.len());
                    bail!("config.json: longrope has {found} factors, its heads have {expected}")
                }
                factors.iter().enumerate().map(|(i, f)| 1.0 / (*f as f32 * wave(i))).collect()
            }
        };
        Ok((frequencies, attention))
    }

    /// Between which pairs yarn goes from plain to divided frequencies.
    fn yarn_range(&self, head_dim: usize) -> (f64, f64) {
        let RopeScaling::Yarn { beta_fast, beta_slow, truncate, original, .. } = self.scaling
        else {
            return (0.0, 0.0);
        };
        let pair_of = |rotations: f64| {
            let turns = original as f64 / (rotations * 2.0 * std::f64::consts::PI);
            head_dim as f64 * turns.ln() / (2.0 * self.theta.ln())
        };
        let (mut low, mut high) = (pair_of(beta_fast), pair_of(beta_slow));
        if truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        (low.max(0.0), high.min((head_dim - 1) as f64))
    }
}

impl RopeScaling {
    fn new(given: RopeParameters, max_positions: usize, original: usize) -> Result<Self> {
        let name = given.rope_type.as_deref().or(given.r#type.as_deref()).unwrap_or("default");
        let positive = |name, value| in_range(name, value, 1e-9..=1e9);
        let ratio = max_positions as f64 / original as f64;
        Ok(match name {
            "default" => Self::Default,
            "linear" => Self::Linear { factor: positive("factor", given.factor)? },
            "dynamic" => Self::Dynamic,
            "llama3" => Self::Llama3 {
                factor: positive("factor", given.factor)?,
                low_freq_factor: positive("low_freq_factor", given.low_freq_factor)?,
                high_freq_factor: positive("high_freq_factor", given.high_freq_factor)?,
                original,
            },
            "yarn" => {
                let factor = positive("factor", given.factor.or(Some(ratio)))?;
                let attention_factor = given.attention_factor.unwrap_or_else(|| {
                    yarn_attention_factor(factor, given.mscale, given.mscale_all_dim)
                });
                let beta = |value: Option<f64>, default| {
                    Some(value.filter(|&value| value != 0.0).unwrap_or(default))
                };
                Self::Yarn {
                    factor,
                    attention_factor: positive("attention_factor", Some(attention_factor))?,
                    beta_fast: positive("beta_fast", beta(given.beta_fast, 32.0))?,
                    beta_slow: positive("beta_slow", beta(given.beta_slow, 1.0))?,
                    truncate: given.truncate.unwrap_or(true),
                    original,
                }
            }
            "longrope" | "su" => {
                let factor = given.factor.unwrap_or(ratio);
                let attention_factor = given.attention_factor.unwrap_or_else(|| {
                    if factor <= 1.0 {
                        return 1.0;
                    }
                    (1.0 + factor.ln() / (original as f64).ln()).sqrt()
                });
                Self::LongRope {
                    short_factor: all_positive("short_factor", given.short_factor)?,
                    long_factor: all_positive("long_factor", given.long_factor)?,
                    attention_factor: positive("attention_factor", Some(attention_factor))?,
                    original,
                }
            }
            other => {
                bail!("config.json: rope type `{other}` is not supported, supported are: {TYPES}")
            }
        })
    }

    fn llama3(&self, frequency: f32) -> f32 {
        let Self::Llama3 { factor, low_freq_factor, high_freq_factor, original } = *self else {
            return frequency;
        };
        let (factor, original) = (factor as f32, original as f32);
        let (low, high) = (low_freq_factor as f32, high_freq_factor as f32);
        let wavelength = 2.0 * PI / frequency;
        if wavelength < original / high {
            return frequency;
        }
        if original / low < wavelength {
            return frequency / factor;
        }
        let smooth = (original / wavelength - low) / (high - low);
        (1.0 - smooth) * frequency / factor + smooth * frequency
    }

    fn yarn(&self, frequency: f32, divided: f32) -> f32 {
        let Self::Yarn { factor, .. } = *self else { return frequency };
        frequency / factor as f32 * divided + frequency * (1.0 - divided)
    }
}

#[expect(clippy::cast_sign_loss, reason = "factors are positive")]
fn scaled(len: usize, factor: f64) -> usize {
    (len as f64 * factor) as usize
}

fn ramp(i: usize, low: f64, high: f64) -> f32 {
    let high = if (high - low).abs() < f64::EPSILON { high + 0.001 } else { high };
    ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0)
}

fn yarn_attention_factor(factor: f64, mscale: Option<f64>, all_dim: Option<f64>) -> f64 {
    let of = |mscale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 };
    let given = |mscale: Option<f64>| mscale.filter(|&mscale| mscale != 0.0);
    match (given(mscale), given(all_dim)) {
        (Some(mscale), Some(all_dim)) => of(mscale) / of(all_dim),
        _ => of(1.0),
    }
}

fn in_range(name: &str, value: Option<f64>, range: std::ops::RangeInclusive<f64>) -> Result<f64> {
    match value {
        Some(value) if range.contains(&value) => Ok(value),
        Some(value) => bail!("config.json: rope {name} is out of range: {value}"),
        None => bail!("config.json: rope {name} is missing"),
    }
}

fn all_positive(name: &str, values: Option<Vec<f64>>) -> Result<Vec<f64>> {
    let Some(values) = values else { bail!("config.json: rope {name} is missing") };
    values.into_iter().map(|value| in_range(name, Some(value), 1e-9..=1e9)).collect()
}
