//! The fields of `config.json` that hold positions, in the layouts of transformers 4 and 5.

use std::ops::RangeInclusive;

use candle_core::{Result, bail};
use serde::Deserialize;

use super::scaling::{Llama3, LongRope, RopeScaling, Yarn};
use super::{MAX_POSITIONS, RopeConfig};

/// What `rope_type` may be.
const TYPES: &str = "default, linear, dynamic, llama3, yarn, longrope";

/// What the class in transformers takes where a config says nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RopeDefaults {
    pub(crate) theta: f64,
    /// The share of a head that is rotated, where there may be less than all.
    pub(crate) partial: Option<f64>,
    pub(crate) original: Option<usize>,
}

impl RopeDefaults {
    pub(crate) const fn theta(theta: f64) -> Self {
        Self { theta, partial: None, original: None }
    }
}

#[derive(Deserialize)]
pub(crate) struct RopeFields {
    max_position_embeddings: usize,
    rope_theta: Option<f64>,
    /// The name of the base in GPT-NeoX.
    rotary_emb_base: Option<f64>,
    partial_rotary_factor: Option<f64>,
    /// Likewise.
    rotary_pct: Option<f64>,
    original_max_position_embeddings: Option<usize>,
    /// Of layers that slide.
    rope_local_base_freq: Option<f64>,
    rope_scaling: Option<Parameters>,
    rope_parameters: Option<Parameters>,
}

#[derive(Default, Deserialize)]
struct Parameters {
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
    full_attention: Option<Box<Parameters>>,
    sliding_attention: Option<Box<Parameters>>,
}

impl RopeFields {
    /// Whether they say how angles are scaled, if not at all.
    pub(crate) fn is_scaled(&self) -> bool {
        self.rope_scaling.is_some() || self.rope_parameters.is_some()
    }

    /// The angles they ask for.
    pub(crate) fn resolve(self, defaults: RopeDefaults) -> Result<RopeConfig> {
        // transformers lets `rope_scaling` win over `rope_parameters`.
        let fields = self;
        let given = fields.rope_scaling.or(fields.rope_parameters).unwrap_or_default();
        let max_positions = length("max_position_embeddings", fields.max_position_embeddings)?;
        if given.full_attention.is_some() || given.sliding_attention.is_some() {
            bail!("config.json: rope parameters by layer type are not supported")
        }
        let partial = given.partial_rotary_factor.or(fields.partial_rotary_factor);
        let partial = partial.or(fields.rotary_pct).or(defaults.partial).unwrap_or(1.0);
        if defaults.partial.is_none() && (partial - 1.0).abs() > f64::EPSILON {
            bail!("config.json: partial_rotary_factor is not supported: {partial}")
        }
        let partial = in_range("partial_rotary_factor", Some(partial), 1e-9..=1.0)?;
        let theta = given.rope_theta.or(fields.rope_theta).or(fields.rotary_emb_base);
        let theta = theta.unwrap_or(defaults.theta);
        let theta = in_range("rope_theta", Some(theta), 1.0..=1e15)?;
        // Here the outer field wins, as in transformers.
        let original = fields
            .original_max_position_embeddings
            .or(defaults.original)
            .or(given.original_max_position_embeddings)
            .unwrap_or(max_positions);
        let original = length("original_max_position_embeddings", original)?;
        let scaling = given.scaling(max_positions, original)?;
        Ok(RopeConfig { theta, scaling, max_positions, partial })
    }
}

impl RopeFields {
    /// The angles of layers that see everything, and of those that slide; with the base that each
    /// has where the config says nothing.
    pub(crate) fn resolve_by_type(
        self,
        full: f64,
        sliding: f64,
    ) -> Result<(RopeConfig, RopeConfig)> {
        let mut given = self.rope_parameters.unwrap_or_default();
        if given.rope_type.is_some() || given.r#type.is_some() || given.rope_theta.is_some() {
            bail!("config.json: rope_parameters must be by layer type")
        }
        let of = |theta, partial, parameters| {
            let fields = Self {
                max_position_embeddings: self.max_position_embeddings,
                rope_theta: theta,
                rotary_emb_base: None,
                rotary_pct: None,
                partial_rotary_factor: partial,
                original_max_position_embeddings: self.original_max_position_embeddings,
                rope_local_base_freq: None,
                rope_scaling: parameters,
                rope_parameters: None,
            };
            fields.resolve(RopeDefaults::theta(full))
        };
        let scaling = self.rope_scaling.or(given.full_attention.take().map(|given| *given));
        let local = given.sliding_attention.take().map(|given| *given);
        let local_theta = self.rope_local_base_freq.or(Some(sliding));
        Ok((
            of(self.rope_theta, self.partial_rotary_factor, scaling)?,
            of(local_theta, self.partial_rotary_factor, local)?,
        ))
    }
}

impl Parameters {
    fn scaling(self, max_positions: usize, original: usize) -> Result<RopeScaling> {
        let ratio = max_positions as f64 / original as f64;
        match self.rope_type.as_deref().or(self.r#type.as_deref()).unwrap_or("default") {
            "default" => Ok(RopeScaling::Default),
            "linear" => Ok(RopeScaling::Linear { factor: positive("factor", self.factor)? }),
            "dynamic" => Ok(RopeScaling::Dynamic),
            "llama3" => Ok(RopeScaling::Llama3(Llama3 {
                factor: positive("factor", self.factor)?,
                low_freq_factor: positive("low_freq_factor", self.low_freq_factor)?,
                high_freq_factor: positive("high_freq_factor", self.high_freq_factor)?,
                original,
            })),
            "yarn" => self.yarn(ratio, original).map(RopeScaling::Yarn),
            "longrope" | "su" => self.longrope(ratio, original).map(RopeScaling::LongRope),
            other => {
                bail!("config.json: rope type `{other}` is not supported, supported are: {TYPES}")
            }
        }
    }

    fn yarn(&self, ratio: f64, original: usize) -> Result<Yarn> {
        let factor = positive("factor", self.factor.or(Some(ratio)))?;
        let attention_factor = self.attention_factor.unwrap_or_else(|| {
            Yarn::default_attention_factor(factor, self.mscale, self.mscale_all_dim)
        });
        let beta = |given: Option<f64>, default| {
            Some(given.filter(|&beta| beta != 0.0).unwrap_or(default))
        };
        Ok(Yarn {
            factor,
            attention_factor: positive("attention_factor", Some(attention_factor))?,
            beta_fast: positive("beta_fast", beta(self.beta_fast, 32.0))?,
            beta_slow: positive("beta_slow", beta(self.beta_slow, 1.0))?,
            truncate: self.truncate.unwrap_or(true),
            mscale_all_dim: self.mscale_all_dim,
            original,
        })
    }

    fn longrope(self, ratio: f64, original: usize) -> Result<LongRope> {
        let factor = self.factor.unwrap_or(ratio);
        let attention_factor = self
            .attention_factor
            .unwrap_or_else(|| LongRope::default_attention_factor(factor, original));
        Ok(LongRope {
            short_factor: all_positive("short_factor", self.short_factor)?,
            long_factor: all_positive("long_factor", self.long_factor)?,
            attention_factor: positive("attention_factor", Some(attention_factor))?,
            original,
        })
    }
}

fn length(name: &str, value: usize) -> Result<usize> {
    if value == 0 || MAX_POSITIONS < value {
        bail!("config.json: {name} is out of range: {value}")
    }
    Ok(value)
}

fn positive(name: &str, value: Option<f64>) -> Result<f64> {
    in_range(name, value, 1e-9..=1e9)
}

fn all_positive(name: &str, values: Option<Vec<f64>>) -> Result<Vec<f64>> {
    let Some(values) = values else { bail!("config.json: rope {name} is missing") };
    values.into_iter().map(|value| positive(name, Some(value))).collect()
}

fn in_range(name: &str, value: Option<f64>, range: RangeInclusive<f64>) -> Result<f64> {
    match value {
        Some(value) if range.contains(&value) => Ok(value),
        Some(value) => bail!("config.json: rope {name} is out of range: {value}"),
        None => bail!("config.json: rope {name} is missing"),
    }
}
