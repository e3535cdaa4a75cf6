//! How angles are changed to reach a longer context.
//!
//! The formulas, and f32 where they round to f32, are those of `modeling_rope_utils.py` in
//! transformers. A wave is the reciprocal of a frequency.

use std::f32::consts::PI;

use candle_core::{Result, bail};

/// `rope_type` and its parameters, named as in transformers.
#[derive(Clone, Debug)]
pub(super) enum RopeScaling {
    /// Not at all.
    Default,
    /// All frequencies divided.
    Linear {
        factor: f64,
    },
    /// Plain within the original context, which is all that is served.
    Dynamic,
    Llama3(Llama3),
    Yarn(Yarn),
    LongRope(LongRope),
}

/// Llama 3.1: low frequencies divided, with a smooth border.
#[derive(Clone, Debug)]
pub(super) struct Llama3 {
    pub(super) factor: f64,
    pub(super) low_freq_factor: f64,
    pub(super) high_freq_factor: f64,
    pub(super) original: usize,
}

/// Low frequencies divided by their number of turns, and attention sharpened.
#[derive(Clone, Debug)]
pub(super) struct Yarn {
    pub(super) factor: f64,
    pub(super) attention_factor: f64,
    pub(super) beta_fast: f64,
    pub(super) beta_slow: f64,
    pub(super) truncate: bool,
    pub(super) mscale_all_dim: Option<f64>,
    pub(super) original: usize,
}

/// A divisor for each frequency.
#[derive(Clone, Debug)]
pub(super) struct LongRope {
    pub(super) short_factor: Vec<f64>,
    pub(super) long_factor: Vec<f64>,
    pub(super) attention_factor: f64,
    pub(super) original: usize,
}

impl RopeScaling {
    /// One frequency a wave.
    pub(super) fn frequencies(
        &self,
        waves: &[f32],
        theta: f64,
        max_model_len: usize,
    ) -> Result<Vec<f32>> {
        let plain = waves.iter().map(|wave| 1.0 / wave);
        match self {
            Self::Default | Self::Dynamic => Ok(plain.collect()),
            Self::Linear { factor } => Ok(plain.map(|f| f / *factor as f32).collect()),
            Self::Llama3(llama3) => Ok(plain.map(|f| llama3.frequency(f)).collect()),
            Self::Yarn(yarn) => Ok(yarn.frequencies(waves, theta)),
            Self::LongRope(longrope) => longrope.frequencies(waves, max_model_len),
        }
    }

    /// What cosines and sines are multiplied by.
    pub(super) fn attention_factor(&self) -> f32 {
        match self {
            Self::Yarn(yarn) => yarn.attention_factor as f32,
            Self::LongRope(longrope) => longrope.attention_factor as f32,
            _ => 1.0,
        }
    }
}

impl Llama3 {
    fn frequency(&self, frequency: f32) -> f32 {
        let (factor, original) = (self.factor as f32, self.original as f32);
        let (low, high) = (self.low_freq_factor as f32, self.high_freq_factor as f32);
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
}

impl Yarn {
    /// The square of what sharpens attention in all dimensions.
    pub(super) fn score_factor(&self) -> f64 {
        let mscale = self.mscale_all_dim.filter(|&mscale| mscale != 0.0);
        let grown = |mscale| 0.1 * mscale * self.factor.max(1.0).ln() + 1.0;
        mscale.map_or(1.0, grown).powi(2)
    }

    /// The attention factor where the config gives none.
    pub(super) fn default_attention_factor(
        factor: f64,
        mscale: Option<f64>,
        mscale_all_dim: Option<f64>,
    ) -> f64 {
        let of = |mscale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 };
        let given = |mscale: Option<f64>| mscale.filter(|&mscale| mscale != 0.0);
        match (given(mscale), given(mscale_all_dim)) {
            (Some(mscale), Some(all_dim)) => of(mscale) / of(all_dim),
            _ => of(1.0),
        }
    }

    fn frequencies(&self, waves: &[f32], theta: f64) -> Vec<f32> {
        let (low, high) = self.border(2 * waves.len(), theta);
        let factor = self.factor as f32;
        let blend = |(i, wave): (usize, &f32)| {
            let divided = ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
            1.0 / (factor * wave) * divided + 1.0 / wave * (1.0 - divided)
        };
        waves.iter().enumerate().map(blend).collect()
    }

    /// Between which pairs of a head frequencies go from plain to divided.
    fn border(&self, head_dim: usize, theta: f64) -> (f64, f64) {
        let pair_of = |rotations: f64| {
            let turns = self.original as f64 / (rotations * 2.0 * std::f64::consts::PI);
            head_dim as f64 * turns.ln() / (2.0 * theta.ln())
        };
        let (mut low, mut high) = (pair_of(self.beta_fast), pair_of(self.beta_slow));
        if self.truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        let (low, high) = (low.max(0.0), high.min((head_dim - 1) as f64));
        let point = (high - low).abs() < f64::EPSILON;
        (low, if point { high + 0.001 } else { high })
    }
}

impl LongRope {
    /// The attention factor where the config gives none.
    pub(super) fn default_attention_factor(factor: f64, original: usize) -> f64 {
        if factor <= 1.0 {
            return 1.0;
        }
        (1.0 + factor.ln() / (original as f64).ln()).sqrt()
    }

    fn frequencies(&self, waves: &[f32], max_model_len: usize) -> Result<Vec<f32>> {
        let long = self.original < max_model_len;
        let factors = if long { &self.long_factor } else { &self.short_factor };
        if factors.len() != waves.len() {
            let (found, expected) = (factors.len(), waves.len());
            bail!("config.json: longrope has {found} factors, its heads have {expected}")
        }
        Ok(factors.iter().zip(waves).map(|(&f, wave)| 1.0 / (f as f32 * wave)).collect())
    }
}
