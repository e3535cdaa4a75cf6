//! Which template a package means: its manifest's, else the one beside the tokenizer.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::files::{PackageFiles, join};
use crate::limits::LIMITS;
use crate::metadata::{self, MetadataError, NamedTemplate, TokenizerConfig};

const JSON: &str = "chat_template.json";

/// Where a template was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TemplateOrigin {
    /// `pinion.prompt_template` in `cog.yaml`.
    Manifest,
    /// `chat_template.jinja`.
    JinjaFile,
    /// `chat_template.json`.
    JsonFile,
    /// `chat_template` in `tokenizer_config.json`.
    TokenizerConfig,
}

impl fmt::Display for TemplateOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Manifest => "pinion.prompt_template in cog.yaml",
            Self::JinjaFile => "chat_template.jinja",
            Self::JsonFile => "chat_template.json",
            Self::TokenizerConfig => "chat_template in tokenizer_config.json",
        })
    }
}

/// The text of a template, not yet compiled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateText {
    /// Where it comes from.
    pub origin: TemplateOrigin,
    /// One, called `default`, or several.
    pub templates: Vec<NamedTemplate>,
}

impl TemplateText {
    /// A single template.
    pub fn single(origin: TemplateOrigin, template: impl Into<String>) -> Self {
        let named = NamedTemplate { name: super::DEFAULT.to_owned(), template: template.into() };
        Self { origin, templates: vec![named] }
    }
}

/// Finds the template of a package, in the order of HF transformers after the manifest's own.
pub fn select(
    files: &PackageFiles,
    directory: &str,
    config: &TokenizerConfig,
    prompt_template: Option<&str>,
) -> Result<Option<TemplateText>, MetadataError> {
    if let Some(template) = prompt_template {
        return Ok(Some(TemplateText::single(TemplateOrigin::Manifest, template)));
    }
    let file = join(directory, "chat_template.jinja");
    if let Some(template) = files.read_text(&file, LIMITS.template_bytes)? {
        return Ok(Some(TemplateText::single(TemplateOrigin::JinjaFile, template)));
    }
    if let Some(value) = metadata::read_object(files, directory, JSON)? {
        let templates = metadata::templates(&value["chat_template"]).filter(|t| !t.is_empty());
        let templates = templates.ok_or_else(|| MetadataError::Shape {
            file: join(directory, JSON),
            key: "chat_template",
            expected: "a template or a list of named templates",
        })?;
        return Ok(Some(TemplateText { origin: TemplateOrigin::JsonFile, templates }));
    }
    if config.templates.is_empty() {
        return Ok(None);
    }
    let (origin, templates) = (TemplateOrigin::TokenizerConfig, config.templates.clone());
    Ok(Some(TemplateText { origin, templates }))
}
