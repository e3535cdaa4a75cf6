//! The small JSON files beside the weights: what they say about special tokens, templates and sampling.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::files::{FileError, PackageFiles, join};
use crate::limits::LIMITS;

/// Sampling defaults of `generation_config.json`. A value that cannot be used is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GenerationDefaults {
    /// At least 0; 0, the most likely token always, where the file says `do_sample: false`.
    pub temperature: Option<f32>,
    /// Above 0, at most 1.
    pub top_p: Option<f32>,
    /// At least 1.
    pub top_k: Option<u32>,
    /// From 0 to 1.
    pub min_p: Option<f32>,
    /// Above 0.
    pub repetition_penalty: Option<f32>,
    /// Tokens of an answer.
    pub max_new_tokens: Option<u32>,
}

/// Special tokens by their text, from `tokenizer_config.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecialTokens {
    /// Before a text.
    pub bos: Option<String>,
    /// After a text.
    pub eos: Option<String>,
    /// Fills up batches; some templates print it.
    pub pad: Option<String>,
    /// Stands for what has no token.
    pub unk: Option<String>,
}

/// A chat template and its name in a list of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedTemplate {
    /// `default`, `tool_use` or any other.
    pub name: String,
    /// Jinja.
    pub template: String,
}

/// `tokenizer_config.json`, as far as it is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenizerConfig {
    /// Special tokens by their text.
    pub special: SpecialTokens,
    /// Its chat templates.
    pub templates: Vec<NamedTemplate>,
}

/// A small JSON file that is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// It could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is no JSON.
    #[error("file is not JSON: {source}: {file}")]
    Json {
        /// The file.
        file: String,
        /// Where and why.
        source: serde_json::Error,
    },
    /// It is JSON of another shape.
    #[error("`{key}` is not {expected}: {file}")]
    Shape {
        /// The file.
        file: String,
        /// What is wrong in it.
        key: &'static str,
        /// What it should be.
        expected: &'static str,
    },
}

impl MetadataError {
    /// A stable name of the cause.
    pub fn code(&self) -> &'static str {
        match self {
            Self::File(e) => e.code(),
            Self::Json { .. } | Self::Shape { .. } => "metadata_invalid",
        }
    }

    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::File(e) => e.hint(),
            Self::Json { .. } | Self::Shape { .. } => {
                Some("take the file again from where the weights came from")
            }
        }
    }
}

/// Reads a JSON object from `directory`, `None` where the file does not exist.
pub(crate) fn read_object(
    files: &PackageFiles,
    directory: &str,
    name: &str,
) -> Result<Option<Value>, MetadataError> {
    let file = join(directory, name);
    let Some(text) = files.read_text(&file, LIMITS.metadata_bytes)? else { return Ok(None) };
    let value: Value = serde_json::from_str(&text)
        .map_err(|source| MetadataError::Json { file: file.clone(), source })?;
    if value.is_object() {
        return Ok(Some(value));
    }
    Err(MetadataError::Shape { file, key: "the whole file", expected: "an object" })
}

/// Reads `tokenizer_config.json`; empty where it does not exist.
pub(crate) fn tokenizer_config(
    files: &PackageFiles,
    directory: &str,
) -> Result<TokenizerConfig, MetadataError> {
    const NAME: &str = "tokenizer_config.json";
    let Some(value) = read_object(files, directory, NAME)? else {
        return Ok(TokenizerConfig::default());
    };
    let shape = |key, expected| MetadataError::Shape { file: join(directory, NAME), key, expected };
    let token = |key| special(&value[key]).map_err(|()| shape(key, "a token"));
    let special = SpecialTokens {
        bos: token("bos_token")?,
        eos: token("eos_token")?,
        pad: token("pad_token")?,
        unk: token("unk_token")?,
    };
    let templates = templates(&value["chat_template"])
        .ok_or_else(|| shape("chat_template", "a template or a list of named templates"))?;
    Ok(TokenizerConfig { special, templates })
}

/// A token as text or as `{"content": text}`.
fn special(value: &Value) -> Result<Option<String>, ()> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        token => token["content"].as_str().map(|text| Some(text.to_owned())).ok_or(()),
    }
}

/// The value of a `chat_template` key: one template, or a list of named ones.
pub(crate) fn templates(value: &Value) -> Option<Vec<NamedTemplate>> {
    let default = |template: &str| NamedTemplate {
        name: "default".to_owned(),
        template: template.to_owned(),
    };
    match value {
        Value::Null => Some(Vec::new()),
        Value::String(template) => Some(vec![default(template)]),
        Value::Array(list) => list
            .iter()
            .map(|entry| {
                let name = entry.get("name")?.as_str()?.to_owned();
                Some(NamedTemplate { name, template: entry.get("template")?.as_str()?.to_owned() })
            })
            .collect(),
        _ => None,
    }
}

/// `eos_token_id` of a config: none, one or several.
pub(crate) fn eos_ids(config: &Value) -> Vec<u32> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Ids {
        One(u32),
        Many(Vec<u32>),
    }
    match Ids::deserialize(&config["eos_token_id"]) {
        Ok(Ids::One(id)) => vec![id],
        Ok(Ids::Many(ids)) => ids,
        Err(_) => Vec::new(),
    }
}

/// Sampling defaults, with a warning for each value that cannot be used.
#[expect(clippy::cast_sign_loss, reason = "every range that is cast begins at zero or above")]
pub(crate) fn generation_defaults(
    config: &Value,
    warnings: &mut Vec<String>,
) -> GenerationDefaults {
    let mut number = |key: &str, usable: fn(f64) -> bool| {
        let value = config[key].as_f64()?;
        if !usable(value) {
            warnings.push(format!("generation_config.json: `{key}` is ignored: {value}"));
            return None;
        }
        Some(value)
    };
    let greedy = config["do_sample"] == Value::Bool(false);
    GenerationDefaults {
        temperature: number("temperature", |v| (0.0..=100.0).contains(&v))
            .map(|v| v as f32)
            .filter(|_| !greedy)
            .or(greedy.then_some(0.0)),
        top_p: number("top_p", |v| v > 0.0 && v <= 1.0).map(|v| v as f32),
        // 0 is how the field writes "all".
        top_k: number("top_k", |v| v == 0.0 || (1.0..=1e6).contains(&v))
            .map(|v| v as u32)
            .filter(|&k| k > 0),
        min_p: number("min_p", |v| (0.0..=1.0).contains(&v)).map(|v| v as f32),
        repetition_penalty: number("repetition_penalty", |v| v > 0.0 && v <= 100.0)
            .map(|v| v as f32),
        max_new_tokens: number("max_new_tokens", |v| (1.0..=1e9).contains(&v)).map(|v| v as u32),
    }
}
