//! The `OpenAPI` document of a package: what it takes and what it gives.
mod native;

use serde_json::{Map, Value};

use crate::prediction::OutputShape;

/// The `OpenAPI` 3.0.2 document that Cog serves at `/openapi.json`, of a container or of a native package.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    document: Value,
}

/// Why a document is no schema of a package.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// It is no JSON.
    #[error("not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// It has no such component.
    #[error("no components.schemas.{0} in the schema")]
    Missing(&'static str),
    /// Its references expand without end, or nearly.
    #[error("the schema grows over {0} values when its references are resolved")]
    TooLarge(usize),
    /// The validator does not take it.
    #[error("not a JSON schema: {0}")]
    Invalid(String),
}

impl Schema {
    /// Reads a document, for example that of a container.
    pub fn from_json(text: &str) -> Result<Self, SchemaError> {
        Self::from_value(serde_json::from_str(text)?)
    }

    /// Takes a document over; it must describe inputs.
    pub fn from_value(document: Value) -> Result<Self, SchemaError> {
        let schema = Self { document };
        schema
            .component("Input")
            .and_then(Value::as_object)
            .ok_or(SchemaError::Missing("Input"))?;
        Ok(schema)
    }

    /// The document.
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// A component by name.
    pub fn component(&self, name: &str) -> Option<&Value> {
        self.components()?.get(name)
    }

    pub(crate) fn components(&self) -> Option<&Map<String, Value>> {
        self.document.get("components")?.get("schemas")?.as_object()
    }

    /// Whether predictions can be streamed as events.
    pub fn supports_streaming(&self) -> bool {
        let post = self.document.pointer("/paths/~1predictions/post/x-cog-streaming");
        post.and_then(Value::as_bool).unwrap_or_default()
    }

    /// Whether the package can be trained.
    pub fn has_training(&self) -> bool {
        self.component("TrainingInput").is_some()
    }

    /// What the output of a prediction is in JSON.
    pub fn output_shape(&self) -> OutputShape {
        let output = self.component("Output").and_then(|output| output.get("type"));
        if output.and_then(Value::as_str) == Some("array") {
            OutputShape::List
        } else {
            OutputShape::Single
        }
    }

    /// Whether a client is meant to join the outputs into one text.
    pub fn is_concatenated(&self) -> bool {
        let display = self.component("Output").and_then(|output| output.get("x-cog-array-display"));
        display.and_then(Value::as_str) == Some("concatenate")
    }
}
