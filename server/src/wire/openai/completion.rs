//! The prompts of the completions endpoint.

use serde_json::Value;

use crate::error::ApiError;
use crate::ipc::Prompt;
use crate::wire::fields::{Fields, token_ids, wrong};

/// What OpenAI documents for requests that name no limit.
pub(super) const DEFAULT_MAX_TOKENS: u32 = 16;

const EXPECTED: &str = "a string, a list of strings, a list of token ids or a list of such lists";

/// Reads `prompt`.
pub(super) fn prompts(body: &Fields<'_>) -> Result<Vec<Prompt>, ApiError> {
    let values = match body.get("prompt") {
        None => return Err(body.missing("prompt")),
        Some(Value::String(text)) => return Ok(vec![Prompt::Text(text.clone())]),
        Some(Value::Array(values)) if !values.is_empty() => values,
        Some(_) => return Err(body.wrong("prompt", EXPECTED)),
    };
    if values[0].is_number() {
        return Ok(vec![Prompt::Tokens(token_ids(values, "prompt")?)]);
    }
    let read = |(index, value): (usize, &Value)| {
        let path = format!("prompt[{index}]");
        match value {
            Value::String(text) => Ok(Prompt::Text(text.clone())),
            Value::Array(ids) if !ids.is_empty() => Ok(Prompt::Tokens(token_ids(ids, &path)?)),
            _ => Err(wrong(&path, "a string or a list of token ids", value)),
        }
    };
    values.iter().enumerate().map(read).collect()
}
