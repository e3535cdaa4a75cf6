//! Validation of inputs against a package's schema, with Cog's own answers.
use std::collections::BTreeSet;

use jsonschema::error::ValidationErrorKind;
use serde_json::{Map, Value, json};

use crate::schema::{Schema, SchemaError};

/// The most values of a schema after its references are resolved.
const MAX_VALUES: usize = 100_000;

/// A compiled validator for the inputs of one package.
#[derive(Debug)]
pub struct InputValidator {
    validator: jsonschema::Validator,
    properties: Map<String, Value>,
    required: Vec<String>,
}

/// Inputs that are valid.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidInput {
    /// What the caller gave, without unknown inputs.
    pub given: Map<String, Value>,
    /// The same with the schema's defaults, and null for optional inputs that were not given.
    pub complete: Map<String, Value>,
    /// The names of unknown inputs, which were left out.
    pub stripped: Vec<String>,
}

/// What is wrong with one input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputFault {
    /// The input, or `__root__` for all of them.
    pub field: String,
    /// What is wrong, in Cog's words.
    pub message: String,
    /// Whether it is missing.
    pub missing: bool,
}

/// Inputs that are not valid: everything that is wrong, by name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid input: {}", .faults.iter().map(|f| format!("{}: {}", f.field, f.message)).collect::<Vec<_>>().join("; "))]
pub struct InvalidInput {
    /// At least one.
    pub faults: Vec<InputFault>,
}

impl InputValidator {
    /// A validator for predictions.
    pub fn for_predictions(schema: &Schema) -> Result<Self, SchemaError> {
        Self::new(schema, "Input")
    }

    /// A validator for trainings.
    pub fn for_trainings(schema: &Schema) -> Result<Self, SchemaError> {
        Self::new(schema, "TrainingInput")
    }

    fn new(schema: &Schema, component: &'static str) -> Result<Self, SchemaError> {
        let inputs = schema.component(component).ok_or(SchemaError::Missing(component))?;
        let none = Map::new();
        let mut inliner = Inliner {
            components: schema.components().unwrap_or(&none),
            open: Vec::new(),
            values: 0,
        };
        let inlined = inliner.inline(inputs)?;
        let validator = jsonschema::validator_for(&inlined)
            .map_err(|error| SchemaError::Invalid(error.to_string()))?;
        let properties =
            inlined.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
        let required =
            inlined.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
        let required = required.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        Ok(Self { validator, properties, required })
    }

    /// Leaves unknown inputs out, checks the rest, and fills in defaults.
    pub fn validate(&self, input: &Value) -> Result<ValidInput, InvalidInput> {
        let (given, stripped): (Map<_, _>, Map<_, _>) = match input {
            Value::Object(input) => {
                let entries = input.iter().map(|(name, value)| (name.clone(), value.clone()));
                entries.partition(|(name, _)| self.properties.contains_key(name))
            }
            _ => return Err(self.refuse(input)),
        };
        let instance = Value::Object(given);
        if !self.validator.is_valid(&instance) {
            return Err(self.refuse(&instance));
        }
        let Value::Object(given) = instance else { return Err(self.refuse(&instance)) };
        let complete = self.complete(&given);
        Ok(ValidInput {
            given,
            complete,
            stripped: stripped.into_iter().map(|(name, _)| name).collect(),
        })
    }

    fn complete(&self, given: &Map<String, Value>) -> Map<String, Value> {
        let mut complete = given.clone();
        for (name, schema) in &self.properties {
            let nullable = schema.get("nullable").and_then(Value::as_bool).unwrap_or_default();
            let absent = match schema.get("default") {
                Some(default) => default.clone(),
                None if nullable && !self.required.contains(name) => Value::Null,
                None => continue,
            };
            complete.entry(name.clone()).or_insert(absent);
        }
        complete
    }

    fn refuse(&self, instance: &Value) -> InvalidInput {
        let mut missing = BTreeSet::new();
        let mut faults = Vec::new();
        for error in self.validator.iter_errors(instance) {
            if let ValidationErrorKind::Required { property } = error.kind() {
                missing.extend(property.as_str().map(str::to_owned));
                continue;
            }
            let path = error.instance_path().to_string();
            let field = path.trim_start_matches('/');
            let field = if field.is_empty() { "__root__" } else { field }.to_owned();
            faults.push(InputFault { field, message: message(&error), missing: false });
        }
        let missing = missing.into_iter().map(|field| InputFault {
            field,
            message: "Field required".to_owned(),
            missing: true,
        });
        faults.extend(missing);
        if faults.is_empty() {
            let message = format!("{instance} is not of type \"object\"");
            faults.push(InputFault { field: "__root__".to_owned(), message, missing: false });
        }
        faults.sort_by(|a, b| a.field.cmp(&b.field));
        InvalidInput { faults }
    }
}

impl InvalidInput {
    /// The body of the 422.
    pub fn body(&self) -> Value {
        let detail: Vec<Value> = self.faults.iter().map(InputFault::detail).collect();
        json!({"detail": detail})
    }
}

impl InputFault {
    fn detail(&self) -> Value {
        let kind = if self.missing { "value_error.missing" } else { "value_error" };
        json!({"loc": ["body", "input", self.field], "msg": self.message, "type": kind})
    }
}

/// The words of the validator that Cog has, which lists the values of an enumeration as JSON.
fn message(error: &jsonschema::ValidationError<'_>) -> String {
    match error.kind() {
        ValidationErrorKind::Enum { options } => {
            format!("{} is not one of {options}", error.instance())
        }
        _ => error.to_string(),
    }
}

/// Puts referenced components in place of `$ref`. A reference into itself becomes a schema that takes everything.
struct Inliner<'s> {
    components: &'s Map<String, Value>,
    open: Vec<String>,
    values: usize,
}

impl Inliner<'_> {
    fn inline(&mut self, value: &Value) -> Result<Value, SchemaError> {
        self.values += 1;
        if self.values > MAX_VALUES || self.open.len() > 64 {
            return Err(SchemaError::TooLarge(MAX_VALUES));
        }
        match value {
            Value::Object(map) => match self.target(map) {
                Some((name, _)) if self.open.contains(&name) => Ok(json!({})),
                Some((name, target)) => {
                    self.open.push(name);
                    let inlined = self.inline(&target);
                    self.open.pop();
                    inlined
                }
                None => {
                    let entries =
                        map.iter().map(|(key, value)| Ok((key.clone(), self.inline(value)?)));
                    entries.collect::<Result<Map<_, _>, _>>().map(Value::Object)
                }
            },
            Value::Array(items) => items.iter().map(|item| self.inline(item)).collect(),
            other => Ok(other.clone()),
        }
    }

    fn target(&self, map: &Map<String, Value>) -> Option<(String, Value)> {
        let name = map.get("$ref")?.as_str()?.strip_prefix("#/components/schemas/")?;
        Some((name.to_owned(), self.components.get(name)?.clone()))
    }
}
