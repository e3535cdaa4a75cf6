//! Chat messages as templates expect them: contents are strings, arguments are objects.

use serde_json::{Map, Value};

use super::request::unsupported;
use crate::error::ApiError;
use crate::wire::fields::{Fields, wrong};

const ROLES: &str = "one of system, developer, user, assistant and tool";

/// Reads `messages`.
pub(super) fn normalized(body: &Fields<'_>) -> Result<Vec<Value>, ApiError> {
    let messages = body.array("messages")?.ok_or_else(|| body.missing("messages"))?;
    if messages.is_empty() {
        return Err(body.wrong("messages", "a list of at least one message"));
    }
    let read = |(index, value)| {
        let message = Fields::of(value, format!("messages[{index}]"))?;
        Ok(Value::Object(normalize(&message)?))
    };
    messages.iter().enumerate().map(read).collect()
}

fn normalize(message: &Fields<'_>) -> Result<Map<String, Value>, ApiError> {
    let mut out = message.map().clone();
    let role = match message.string("role")? {
        // Few templates know the newer name of the same role.
        Some("developer") => "system",
        Some(role @ ("system" | "user" | "assistant" | "tool")) => role,
        Some(_) => return Err(message.wrong("role", ROLES)),
        None => return Err(message.missing("role")),
    };
    out.insert("role".to_owned(), role.into());
    message.string("name")?;
    message.string("tool_call_id")?;
    if let Some(calls) = message.array("tool_calls")? {
        if role != "assistant" {
            return Err(message.wrong("tool_calls", "absent in messages of other roles"));
        }
        out.insert("tool_calls".to_owned(), tool_calls(calls, &message.path("tool_calls"))?);
    }
    let needs_content = role != "assistant" || message.get("tool_calls").is_none();
    match message.get("content") {
        None if needs_content => return Err(message.missing("content")),
        None => {}
        Some(content) => {
            let text = text_of(content, &message.path("content"))?;
            out.insert("content".to_owned(), text.into());
        }
    }
    Ok(out)
}

/// The text of a content, whose parts become its lines.
fn text_of(content: &Value, path: &str) -> Result<String, ApiError> {
    let parts = match content {
        Value::String(text) => return Ok(text.clone()),
        Value::Array(parts) => parts,
        _ => return Err(wrong(path, "a string or a list of text parts", content)),
    };
    let texts = parts.iter().enumerate();
    let texts = texts.map(|(index, part)| part_text(part, format!("{path}[{index}]")));
    Ok(texts.collect::<Result<Vec<_>, _>>()?.join("\n"))
}

fn part_text(part: &Value, path: String) -> Result<&str, ApiError> {
    let part = Fields::of(part, path)?;
    let name = match part.string("type")? {
        Some(kind @ ("text" | "refusal")) => kind,
        Some(kind) => {
            let message = format!("only text parts are supported: {kind}");
            return Err(unsupported(&part.path("type"), &message));
        }
        None => return Err(part.missing("type")),
    };
    part.string(name)?.ok_or_else(|| part.missing(name))
}

fn tool_calls(calls: &[Value], path: &str) -> Result<Value, ApiError> {
    let read = |(index, value): (usize, &Value)| {
        let call = Fields::of(value, format!("{path}[{index}]"))?;
        let function = call.object("function")?.ok_or_else(|| call.missing("function"))?;
        function.string("name")?.ok_or_else(|| function.missing("name"))?;
        let mut value = value.clone();
        if let Some(arguments) = arguments(&function)? {
            value["function"]["arguments"] = arguments;
        }
        Ok(value)
    };
    Ok(Value::Array(calls.iter().enumerate().map(read).collect::<Result<_, ApiError>>()?))
}

/// Clients send arguments as text; templates write them as JSON, which would quote the text again.
fn arguments(function: &Fields<'_>) -> Result<Option<Value>, ApiError> {
    match function.get("arguments") {
        None => Ok(None),
        Some(arguments @ Value::Object(_)) => Ok(Some(arguments.clone())),
        Some(Value::String(text)) => {
            let parsed = serde_json::from_str(text).ok().filter(Value::is_object);
            Ok(Some(parsed.unwrap_or_else(|| text.as_str().into())))
        }
        Some(_) => Err(function.wrong("arguments", "a string of JSON")),
    }
}
