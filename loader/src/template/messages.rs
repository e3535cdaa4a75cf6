//! Messages of a request in the form that a template expects.

use minijinja::value::Value;
use serde_json::Value as Json;

use super::TemplateError;

/// How a template reads `content`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ContentFormat {
    /// As one string.
    Text,
    /// As a string or as parts, whichever it finds.
    Either,
    /// As parts only.
    Parts,
}

impl ContentFormat {
    /// Judged by whether the template has a loop over `content`, and whether it asks for a string first.
    pub(super) fn of(source: &str) -> Self {
        if !loops_over_content(source) {
            return Self::Text;
        }
        let asks = source.contains("is string") || source.contains("is not string");
        if asks { Self::Either } else { Self::Parts }
    }
}

/// The template's view of the messages.
pub(super) fn prepare(messages: &[Json], format: ContentFormat) -> Result<Value, TemplateError> {
    let prepare = |(index, message): (usize, &Json)| {
        one(message, format).map_err(|reason| TemplateError::Message { index, reason })
    };
    messages.iter().enumerate().map(prepare).collect()
}

/// The text of a message's content, parts joined by line breaks.
pub(super) fn text(content: &Json) -> Result<String, String> {
    match content {
        Json::Null => Ok(String::new()),
        Json::String(text) => Ok(text.clone()),
        Json::Array(parts) => {
            let texts: Result<Vec<&str>, String> = parts.iter().map(part_text).collect();
            Ok(texts?.join("\n"))
        }
        _ => Err("content is neither a string nor a list of parts".to_owned()),
    }
}

/// JSON as a template value.
pub(super) fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(flag) => Value::from(*flag),
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => items.iter().map(value).collect(),
        Json::Object(map) => {
            Value::from_pairs(map.iter().map(|(key, item)| (key.as_str(), value(item))))
        }
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), ..) => Value::from(number),
            (_, Some(number), _) => Value::from(number),
            (.., number) => Value::from(number.unwrap_or(f64::NAN)),
        },
    }
}

fn one(message: &Json, format: ContentFormat) -> Result<Value, String> {
    let Json::Object(map) = message else { return Err("not an object".to_owned()) };
    if !map.get("role").is_some_and(Json::is_string) {
        return Err("role is not a string".to_owned());
    }
    let mut map = map.clone();
    if let Some(content) = map.get_mut("content") {
        *content = formatted(content, format)?;
    }
    if let Some(Json::Array(calls)) = map.get_mut("tool_calls") {
        calls.iter_mut().for_each(parse_arguments);
    }
    Ok(value(&Json::Object(map)))
}

fn formatted(content: &Json, format: ContentFormat) -> Result<Json, String> {
    match (content, format) {
        (Json::Null, _) => Ok(Json::Null),
        (Json::String(text), ContentFormat::Parts) => {
            Ok(serde_json::json!([{"type": "text", "text": text}]))
        }
        (Json::Array(parts), ContentFormat::Either | ContentFormat::Parts) => {
            for part in parts {
                part_text(part)?;
            }
            Ok(content.clone())
        }
        _ => text(content).map(Json::String),
    }
}

fn part_text(part: &Json) -> Result<&str, String> {
    if let Json::String(text) = part {
        return Ok(text);
    }
    let kind = part.get("type").and_then(Json::as_str).unwrap_or("text");
    match part.get("text").and_then(Json::as_str) {
        Some(text) if matches!(kind, "text" | "input_text" | "output_text") => Ok(text),
        _ => Err(format!("content part is not text, and this model takes only text: {kind}")),
    }
}

/// Clients send arguments as a string of JSON; templates expect the object.
fn parse_arguments(call: &mut Json) {
    let place = if call.get("function").is_some() { &mut call["function"] } else { call };
    let Some(arguments) = place.get_mut("arguments") else { return };
    if let Json::String(text) = arguments
        && let Ok(object @ Json::Object(_)) = serde_json::from_str(text)
    {
        *arguments = object;
    }
}

/// Whether there is a `for … in …content…` (`message.content`, `message['content']`, `content`).
fn loops_over_content(source: &str) -> bool {
    source.split("{%").skip(1).any(|tag| {
        let tag = tag.split("%}").next().unwrap_or_default();
        let tag = tag.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        let Some((_, iterated)) = tag.strip_prefix("for ").and_then(|t| t.split_once(" in "))
        else {
            return false;
        };
        let iterated: String = iterated.split_whitespace().next().unwrap_or_default().to_owned();
        iterated == "content"
            || iterated.ends_with(".content")
            || iterated.ends_with("['content']")
            || iterated.ends_with("[\"content\"]")
    })
}
