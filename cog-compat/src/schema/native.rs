//! The schema of a native text package: the inputs that LLM packages of Cog have, and a streamed text as output.
use serde_json::{Map, Value, json};

use super::Schema;
use crate::inputs::BUILT_IN_ALIASES;
use crate::manifest::{InputAliases, InputName};
use crate::prediction::sorted;

impl Schema {
    /// The schema of a native text package. `version` is that of the server, `aliases` the package's own input names.
    pub fn native(version: &str, aliases: &InputAliases) -> Self {
        let mut schemas = envelope_schemas();
        schemas.insert("Input".to_owned(), input(aliases));
        schemas.insert("Output".to_owned(), output());
        let document = json!({
            "components": {"schemas": schemas},
            "info": {"title": "Cog", "version": version},
            "openapi": "3.0.2",
            "paths": paths(),
        });
        Self { document: sorted(document) }
    }
}

/// Name, type and limits, default, description; without a default an input is optional.
fn properties() -> [(InputName, Value); 13] {
    use InputName as I;
    let optional = |description, schema: Value| {
        with(schema, &json!({"description": description, "nullable": true}))
    };
    let default = |default: Value, description, schema: Value| {
        with(schema, &json!({"default": default, "description": description}))
    };
    let text = || json!({"type": "string"});
    let integer = || json!({"type": "integer"});
    let from = |minimum: i64| json!({"type": "integer", "minimum": minimum});
    let between = |minimum: f64, maximum: f64| json!({"type": "number", "minimum": minimum, "maximum": maximum});
    let stop = || json!({"anyOf": [text(), {"items": text(), "type": "array"}]});
    [
        (I::Prompt, with(text(), &json!({"description": "Text to answer or to continue."}))),
        (I::SystemPrompt, optional("Instructions that come before the prompt.", text())),
        (
            I::PromptTemplate,
            optional(
                "Format of the whole prompt: holds {prompt}, may hold {system_prompt}.",
                text(),
            ),
        ),
        (I::MaxTokens, default(512.into(), "The most tokens to generate.", from(1))),
        (
            I::MinTokens,
            default(0.into(), "The fewest tokens to generate; -1 or 0 for no limit.", from(-1)),
        ),
        (
            I::Temperature,
            default(
                0.6.into(),
                "Randomness; 0 always takes the likeliest token.",
                between(0.0, 5.0),
            ),
        ),
        (
            I::TopP,
            default(0.9.into(), "Share of the probability to choose from.", between(0.0, 1.0)),
        ),
        (I::TopK, default(50.into(), "How many tokens to choose from; -1 or 0 for all.", from(-1))),
        (
            I::PresencePenalty,
            default(0.0.into(), "Makes tokens that occurred less likely.", between(-2.0, 2.0)),
        ),
        (
            I::FrequencyPenalty,
            default(0.0.into(), "Makes frequent tokens less likely.", between(-2.0, 2.0)),
        ),
        (
            I::RepetitionPenalty,
            default(1.0.into(), "Divides the score of repeated tokens.", between(0.01, 10.0)),
        ),
        (
            I::StopSequences,
            optional("Texts that end the output: a list, or one string with commas.", stop()),
        ),
        (
            I::Seed,
            optional("Makes the output repeatable; 0, -1 or none for a random one.", integer()),
        ),
    ]
}

fn input(aliases: &InputAliases) -> Value {
    let known = properties();
    let mut properties = Map::new();
    for (input, schema) in &known {
        add(&mut properties, input.name(), schema.clone());
    }
    for (input, schema) in &known {
        let built_in =
            BUILT_IN_ALIASES.iter().filter(|(meaning, _)| meaning == input).map(|(_, name)| *name);
        for alias in aliases.of(*input).chain(built_in) {
            let description = format!("Another name for {}.", input.name());
            let mut schema =
                with(schema.clone(), &json!({"description": description, "nullable": true}));
            if let Value::Object(schema) = &mut schema {
                schema.shift_remove("default");
            }
            add(&mut properties, alias, schema);
        }
    }
    let mut schema = json!({"properties": properties, "title": "Input", "type": "object"});
    if aliases.of(InputName::Prompt).next().is_none() {
        schema["required"] = json!(["prompt"]);
    }
    schema
}

fn add(properties: &mut Map<String, Value>, name: &str, schema: Value) {
    let order = properties.len();
    if !properties.contains_key(name) {
        properties.insert(
            name.to_owned(),
            with(schema, &json!({"title": title(name), "x-order": order})),
        );
    }
}

/// `top_p` as `Top P`.
fn title(name: &str) -> String {
    let capital = |word: &str| {
        let mut chars = word.chars();
        chars
            .next()
            .map(|first| first.to_uppercase().chain(chars).collect::<String>())
            .unwrap_or_default()
    };
    name.split('_').map(capital).collect::<Vec<_>>().join(" ")
}

fn with(mut schema: Value, more: &Value) -> Value {
    if let (Value::Object(schema), Value::Object(more)) = (&mut schema, more) {
        schema.extend(more.clone());
    }
    schema
}

fn output() -> Value {
    json!({
        "items": {"type": "string"},
        "title": "Output",
        "type": "array",
        "x-cog-array-display": "concatenate",
        "x-cog-array-type": "iterator",
    })
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn envelope_schemas() -> Map<String, Value> {
    let text = |title| json!({"title": title, "type": "string"});
    let time = |title| json!({"format": "date-time", "title": title, "type": "string"});
    let object = |title, properties: Value| json!({"properties": properties, "title": title, "type": "object"});
    let part = json!({"anyOf": [{"type": "string"}, {"type": "integer"}]});
    let detail = json!({"items": reference("ValidationError"), "title": "Detail", "type": "array"});
    let schemas = json!({
        "HTTPValidationError": object("HTTPValidationError", json!({"detail": detail})),
        "PredictionRequest": object("PredictionRequest", json!({"id": text("Id"), "input": reference("Input")})),
        "PredictionResponse": object("PredictionResponse", json!({
            "completed_at": time("Completed At"),
            "created_at": time("Created At"),
            "error": text("Error"),
            "id": text("Id"),
            "input": reference("Input"),
            "logs": text("Logs"),
            "metrics": {"title": "Metrics", "type": "object"},
            "output": reference("Output"),
            "started_at": time("Started At"),
            "status": text("Status"),
            "version": text("Version"),
        })),
        "Status": {
            "description": "An enumeration.",
            "enum": ["starting", "processing", "succeeded", "canceled", "failed"],
            "title": "Status",
            "type": "string",
        },
        "ValidationError": with(
            object("ValidationError", json!({
                "loc": {"items": part, "title": "Location", "type": "array"},
                "msg": text("Message"),
                "type": text("Error Type"),
            })),
            &json!({"required": ["loc", "msg", "type"]}),
        ),
    });
    if let Value::Object(schemas) = schemas { schemas } else { Map::new() }
}

fn paths() -> Value {
    let json_body = |schema: Value| json!({"application/json": {"schema": schema}});
    let ok =
        |schema: Value| json!({"content": json_body(schema), "description": "Successful Response"});
    let invalid = json!({"content": json_body(reference("HTTPValidationError")), "description": "Validation Error"});
    let read = |id: &str, summary: &str| json!({"get": {"operationId": id, "responses": {"200": ok(json!({}))}, "summary": summary}});
    let id = json!({
        "in": "path",
        "name": "prediction_id",
        "required": true,
        "schema": {"title": "Prediction Id", "type": "string"},
    });
    json!({
        "/": read("root__get", "Root"),
        "/health-check": read("healthcheck_health_check_get", "Healthcheck"),
        "/predictions": {"post": {
            "description": "Run a single prediction on the model",
            "operationId": "predict_predictions_post",
            "requestBody": {"content": json_body(reference("PredictionRequest"))},
            "responses": {"200": ok(reference("PredictionResponse")), "422": invalid},
            "summary": "Predict",
            "x-cog-streaming": true,
        }},
        "/predictions/{prediction_id}/cancel": {"post": {
            "operationId": "cancel_predictions__prediction_id__cancel_post",
            "parameters": [id],
            "responses": {"200": ok(json!({})), "422": invalid},
            "summary": "Cancel",
        }},
    })
}
