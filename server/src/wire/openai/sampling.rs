//! Sampling parameters, which both endpoints share.

use std::hash::{BuildHasher, RandomState};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::request;
use crate::config::MAX_SPECULATIVE_TOKENS;
use crate::error::ApiError;
use crate::ipc::GenerationParams;
use crate::wire::fields::{Fields, wrong};

const MAX_STOP_STRINGS: usize = 64;
const MAX_STOP_BYTES: usize = 1024;
const MAX_STOP_TOKENS: usize = 64;
const MAX_LOGIT_BIASES: usize = 1024;
const MAX_TOP_LOGPROBS: u32 = 20;
/// The older endpoint's limit.
const MAX_COMPLETION_LOGPROBS: u32 = 5;
/// Seeds stay exact in clients that keep numbers as doubles.
const SEED_BITS: u32 = 53;

/// Reads everything but `logprobs`, which the endpoints write differently. `min_max_tokens` is the
/// least number of tokens that may be asked for.
pub(super) fn params(body: &Fields<'_>, min_max_tokens: u32) -> Result<GenerationParams, ApiError> {
    let defaults = GenerationParams::default();
    let penalty = |name| body.number(name, -2.0..=2.0);
    let max_tokens = max_tokens(body, min_max_tokens)?;
    Ok(GenerationParams {
        max_tokens,
        min_tokens: min_tokens(body, max_tokens)?,
        temperature: body.number("temperature", 0.0..=2.0)?,
        top_p: positive(body, "top_p", 1.0)?,
        // -1 and 0 both mean off; the latter is what the engine calls it.
        top_k: body.integer("top_k", -1..=u32::MAX.into())?.map(|k| k.try_into().unwrap_or(0)),
        min_p: body.number("min_p", 0.0..=1.0)?.unwrap_or(defaults.min_p),
        seed: request::seed(body)?,
        repetition_penalty: positive(body, "repetition_penalty", 100.0)?
            .unwrap_or(defaults.repetition_penalty),
        presence_penalty: penalty("presence_penalty")?.unwrap_or(defaults.presence_penalty),
        frequency_penalty: penalty("frequency_penalty")?.unwrap_or(defaults.frequency_penalty),
        logit_bias: logit_bias(body)?,
        stop: stop(body)?,
        stop_token_ids: stop_token_ids(body)?,
        ignore_eos: body.flag("ignore_eos")?,
        include_stop: body.flag("include_stop_str_in_output")? || body.flag("no_stop_trim")?,
        logprobs: None,
        processed_logprobs: processed_logprobs(body)?,
        echo: false,
        speculative_tokens: body.count("speculative_tokens", 0..=MAX_SPECULATIVE_TOKENS)?,
        cache_salt: cache_salt(body)?,
        keep_special_tokens: body.boolean("skip_special_tokens")? == Some(false),
        urgency: defaults.urgency,
    })
}

/// `logprobs` and `top_logprobs` of a chat request.
pub(super) fn chat_logprobs(body: &Fields<'_>) -> Result<Option<u32>, ApiError> {
    let wanted = body.flag("logprobs")?;
    let top = body.count("top_logprobs", 0..=MAX_TOP_LOGPROBS)?;
    match (wanted, top) {
        (false, Some(1..)) => {
            let message = "`top_logprobs` needs `logprobs` to be true";
            Err(ApiError::invalid("invalid_value", message).at("top_logprobs"))
        }
        (false, _) => Ok(None),
        (true, top) => Ok(Some(top.unwrap_or(0))),
    }
}

/// `logprobs` of a request of the completions endpoint. Routers add `false`.
pub(super) fn completion_logprobs(body: &Fields<'_>) -> Result<Option<u32>, ApiError> {
    if body.get("logprobs") == Some(&Value::Bool(false)) {
        return Ok(None);
    }
    body.count("logprobs", 0..=MAX_COMPLETION_LOGPROBS)
}

/// Which distribution log probabilities are of: the model's own unless asked otherwise.
fn processed_logprobs(body: &Fields<'_>) -> Result<bool, ApiError> {
    match body.string("logprobs_mode")? {
        None | Some("raw_logprobs") => Ok(false),
        Some("processed_logprobs") => Ok(true),
        Some(_) => Err(body.wrong("logprobs_mode", "raw_logprobs or processed_logprobs")),
    }
}

/// A seed for a request that names none.
pub(super) fn draw_seed() -> u64 {
    RandomState::new().hash_one(()) >> (u64::BITS - SEED_BITS)
}

fn max_tokens(body: &Fields<'_>, least: u32) -> Result<Option<u32>, ApiError> {
    let newer = body.count("max_completion_tokens", least..=u32::MAX)?;
    let older = body.count("max_tokens", least..=u32::MAX)?;
    Ok(newer.or(older))
}

fn min_tokens(body: &Fields<'_>, max_tokens: Option<u32>) -> Result<u32, ApiError> {
    Ok(body.count("min_tokens", 0..=max_tokens.unwrap_or(u32::MAX))?.unwrap_or(0))
}

fn positive(body: &Fields<'_>, name: &str, most: f64) -> Result<Option<f32>, ApiError> {
    let value = body.number(name, 0.0..=most)?;
    if value == Some(0.0) {
        return Err(body.wrong(name, &format!("a number above 0 and up to {most}")));
    }
    Ok(value)
}

fn logit_bias(body: &Fields<'_>) -> Result<Vec<(u32, f32)>, ApiError> {
    let Some(biases) = body.object("logit_bias")? else { return Ok(Vec::new()) };
    if MAX_LOGIT_BIASES < biases.map().len() {
        let message = format!(
            "`logit_bias` may name {MAX_LOGIT_BIASES} tokens at most: {}",
            biases.map().len()
        );
        return Err(ApiError::invalid("invalid_value", message).at("logit_bias"));
    }
    let read = |(id, _): (&String, &Value)| {
        let token: u32 = id.parse().map_err(|_not_a_number| {
            let id = Value::from(id.as_str());
            wrong("logit_bias", "an object whose keys are token ids", &id)
        })?;
        let bias = biases.number(id, -100.0..=100.0)?;
        Ok((token, bias.ok_or_else(|| biases.wrong(id, "a number from -100 to 100"))?))
    };
    biases.map().iter().map(read).collect()
}

fn stop(body: &Fields<'_>) -> Result<Vec<String>, ApiError> {
    let one = |value: &Value, path: &str| match value.as_str() {
        Some(text) if (1..=MAX_STOP_BYTES).contains(&text.len()) => Ok(text.to_owned()),
        _ => Err(wrong(path, &format!("a string of 1 to {MAX_STOP_BYTES} bytes"), value)),
    };
    match body.get("stop") {
        None => Ok(Vec::new()),
        Some(Value::Array(values)) if values.len() <= MAX_STOP_STRINGS => {
            let read = |(index, value)| one(value, &format!("stop[{index}]"));
            values.iter().enumerate().map(read).collect()
        }
        Some(value @ Value::String(_)) => Ok(vec![one(value, "stop")?]),
        Some(_) => {
            Err(body.wrong("stop", &format!("a string or up to {MAX_STOP_STRINGS} strings")))
        }
    }
}

fn stop_token_ids(body: &Fields<'_>) -> Result<Vec<u32>, ApiError> {
    let ids = body.token_ids("stop_token_ids")?.unwrap_or_default();
    if MAX_STOP_TOKENS < ids.len() {
        return Err(body.wrong("stop_token_ids", &format!("up to {MAX_STOP_TOKENS} token ids")));
    }
    Ok(ids)
}

/// `prompt_cache_key` is a hint for whoever routes requests among nodes: it must be text, and
/// requests of one tenant share prefixes whatever it says.
fn cache_salt(body: &Fields<'_>) -> Result<[u64; 2], ApiError> {
    body.string("prompt_cache_key")?;
    Ok(body.string("cache_salt")?.map_or([0; 2], |salt| salt_of(&[salt.as_bytes()])))
}

/// A salt that nobody finds who does not know all parts.
pub(super) fn salt_of(parts: &[&[u8]]) -> [u64; 2] {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    let digest = digest.finalize();
    [first_word(&digest), first_word(&digest[8..])]
}

/// The first eight bytes of a digest.
pub(crate) fn first_word(digest: &[u8]) -> u64 {
    digest.iter().take(8).fold(0, |word, byte| word << 8 | u64::from(*byte))
}
