//! `prompt_template` in Python's `str.format` form, as Cog's language models take it: `{prompt}`, `{system_prompt}`.

use serde_json::Value as Json;

use super::messages::text;
use super::{TemplateError, TemplateOrigin, TemplateText};

/// A format string, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PromptFormat(Vec<Piece>);

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Prompt,
    SystemPrompt,
}

impl PromptFormat {
    /// Only the manifest's template can be a format string, and only one that has `{prompt}` and no Jinja tag.
    pub(super) fn parse(text: &TemplateText) -> Result<Option<Self>, TemplateError> {
        let [named] = text.templates.as_slice() else { return Ok(None) };
        let template = named.template.as_str();
        let jinja = ["{%", "{#", "{{"].iter().any(|open| template.contains(open));
        let escaped = template.contains("{{") && has_field(template) && !template.contains("{%");
        if text.origin != TemplateOrigin::Manifest || (jinja && !escaped) {
            return Ok(None);
        }
        pieces(template).map(|pieces| Some(Self(pieces)))
    }

    /// Puts the last user message and the system messages into their places.
    pub(super) fn render(&self, messages: &[Json]) -> Result<String, TemplateError> {
        let mut prompt = None;
        let mut system = Vec::new();
        for (index, message) in messages.iter().enumerate() {
            let refuse = |reason: String| TemplateError::Message { index, reason };
            let content = text(&message["content"]).map_err(refuse)?;
            match message["role"].as_str() {
                Some("system" | "developer") => system.push(content),
                Some("user") if prompt.is_none() => prompt = Some(content),
                _ => {
                    let reason =
                        "this package's prompt_template has place for one user message only";
                    return Err(refuse(reason.to_owned()));
                }
            }
        }
        let (prompt, system) = (prompt.unwrap_or_default(), system.join("\n"));
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Prompt => prompt.clone(),
            Piece::SystemPrompt => system.clone(),
        };
        Ok(self.0.iter().map(piece).collect())
    }
}

/// Whether `{prompt}` stands there as a field, not inside double braces.
fn has_field(template: &str) -> bool {
    pieces(template).is_ok_and(|pieces| pieces.contains(&Piece::Prompt))
}

fn pieces(template: &str) -> Result<Vec<Piece>, TemplateError> {
    let invalid = |reason: &str| TemplateError::Format { reason: reason.to_owned() };
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        literal.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("{{").or_else(|| rest.strip_prefix("}}")) {
            literal.push_str(&rest[..1]);
            rest = after;
            continue;
        }
        let field = rest.strip_prefix('{').and_then(|field| field.split_once('}'));
        let Some((field, after)) = field else { return Err(invalid("a brace stands alone")) };
        pieces.push(Piece::Text(std::mem::take(&mut literal)));
        pieces.push(match field {
            "prompt" => Piece::Prompt,
            "system_prompt" => Piece::SystemPrompt,
            other => return Err(invalid(&format!("unknown field {{{other}}}"))),
        });
        rest = after;
    }
    literal.push_str(rest);
    pieces.push(Piece::Text(literal));
    if pieces.contains(&Piece::Prompt) { Ok(pieces) } else { Err(invalid("it has no {prompt}")) }
}
