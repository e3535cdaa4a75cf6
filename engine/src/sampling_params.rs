//! How a caller wants tokens picked, and what values make sense.

use std::fmt::Display;
use std::ops::RangeInclusive;

/// How to pick a token. The order in which the fields act is in `sampler.rs`.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits. Zero means greedy: the exact argmax, lowest token id on ties.
    pub temperature: f32,
    /// The smallest set of most probable tokens with this cumulative probability is kept; 1 is off.
    pub top_p: f32,
    /// This many most probable tokens are kept; `None` is off.
    pub top_k: Option<usize>,
    /// Tokens less probable than this share of the most probable one are dropped; 0 is off.
    pub min_p: f32,
    /// With the position of a token, fixes every random choice.
    pub seed: u64,
    /// Divides positive and multiplies negative logits of tokens in prompt or output; 1 is off.
    pub repetition_penalty: f32,
    /// Subtracted once from the logit of a token in the output; 0 is off.
    pub presence_penalty: f32,
    /// Subtracted from the logit of a token for each time it is in the output; 0 is off.
    pub frequency_penalty: f32,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// Whether log probabilities are of what bias, penalties and temperature make of the logits,
    /// where a temperature of zero counts as one, instead of the model's own.
    pub processed_logprobs: bool,
}

/// A sampling parameter that has no meaning.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` must be {allowed}: {value}")]
pub struct ParamError {
    /// Name of the field in [`SamplingParams`] or [`StopCriteria`](crate::StopCriteria).
    pub field: &'static str,
    /// What it was.
    pub value: String,
    /// What it may be, as text.
    pub allowed: String,
}

const TEMPERATURE: RangeInclusive<f32> = 0.0..=100.0;
const PROBABILITY: RangeInclusive<f32> = 0.0..=1.0;
const REPETITION_PENALTY: RangeInclusive<f32> = 0.01..=100.0;
const PENALTY: RangeInclusive<f32> = -2.0..=2.0;
const LOGIT_BIAS: RangeInclusive<f32> = -100.0..=100.0;

impl SamplingParams {
    /// Exact argmax, nothing else.
    pub fn greedy() -> Self {
        Self {
            temperature: 0.0,
            top_p: 1.0,
            top_k: None,
            min_p: 0.0,
            seed: 0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            processed_logprobs: false,
        }
    }

    /// Checks every field against its range and token ids against `vocab_size`.
    pub fn validate(&self, vocab_size: usize) -> Result<(), ParamError> {
        in_range("temperature", self.temperature, &TEMPERATURE)?;
        in_range("top_p", self.top_p, &PROBABILITY)?;
        in_range("min_p", self.min_p, &PROBABILITY)?;
        in_range("repetition_penalty", self.repetition_penalty, &REPETITION_PENALTY)?;
        in_range("presence_penalty", self.presence_penalty, &PENALTY)?;
        in_range("frequency_penalty", self.frequency_penalty, &PENALTY)?;
        if self.top_k == Some(0) {
            return Err(ParamError::new("top_k", 0, "at least 1"));
        }
        for &(token, bias) in &self.logit_bias {
            in_vocabulary("logit_bias", token, vocab_size)?;
            in_range("logit_bias", bias, &LOGIT_BIAS)?;
        }
        Ok(())
    }

    /// Whether earlier tokens change the logits.
    pub(crate) fn has_penalties(&self) -> bool {
        (self.repetition_penalty, self.presence_penalty, self.frequency_penalty) != (1.0, 0.0, 0.0)
    }
}

impl ParamError {
    pub(crate) fn new(
        field: &'static str,
        value: impl Display,
        allowed: impl Into<String>,
    ) -> Self {
        Self { field, value: value.to_string(), allowed: allowed.into() }
    }
}

pub(crate) fn in_vocabulary(
    field: &'static str,
    token: u32,
    vocab_size: usize,
) -> Result<(), ParamError> {
    if vocab_size <= token as usize {
        return Err(ParamError::new(field, token, format!("a token id below {vocab_size}")));
    }
    Ok(())
}

fn in_range(
    field: &'static str,
    value: f32,
    range: &RangeInclusive<f32>,
) -> Result<(), ParamError> {
    if range.contains(&value) {
        return Ok(());
    }
    let allowed = format!("between {} and {}", range.start(), range.end());
    Err(ParamError::new(field, value, allowed))
}

#[cfg(test)]
mod tests;
