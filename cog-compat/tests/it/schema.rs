//! The schema of a native package against those that Cog generates.
use std::collections::BTreeSet;

use pinion_cog_compat::manifest::InputAliases;
use pinion_cog_compat::prediction::{OutputShape, sorted};
use pinion_cog_compat::{InputValidator, Manifest, Schema};
use serde_json::{Value, json};

fn native() -> Schema {
    Schema::native("dev", &InputAliases::default())
}

#[test]
fn all_but_the_inputs_and_the_output_is_what_cog_generates() {
    let mut recorded = super::recorded_case("sse_streaming_metrics")["openapi"].clone();
    let document = native().document().clone();
    for name in ["Input", "Output"] {
        recorded["components"]["schemas"][name] = document["components"]["schemas"][name].clone();
    }
    assert_eq!(document.to_string(), recorded.to_string());
}

#[test]
fn the_output_is_a_text_to_be_joined() {
    let schema = native();
    assert!(schema.supports_streaming() && schema.is_concatenated() && !schema.has_training());
    assert_eq!(schema.output_shape(), OutputShape::List);
}

#[test]
fn the_inputs_have_the_names_and_defaults_of_llm_packages() {
    let validator = InputValidator::for_predictions(&native()).unwrap();
    let valid = validator.validate(&json!({"prompt": "hi"})).unwrap();
    let expected = json!({
        "frequency_penalty": 0.0, "max_new_tokens": null, "max_tokens": 512, "min_new_tokens": null, "min_tokens": 0,
        "presence_penalty": 0.0, "prompt": "hi", "prompt_template": null, "repetition_penalty": 1.0, "seed": null,
        "stop_sequences": null, "system_prompt": null, "temperature": 0.6, "top_k": 50, "top_p": 0.9,
    });
    assert_eq!(sorted(Value::Object(valid.complete)), expected);
}

#[test]
fn the_inputs_are_described_as_cog_describes_them() {
    let schema = native();
    let properties = &schema.component("Input").unwrap()["properties"];
    let orders: Vec<i64> =
        properties.as_object().unwrap().values().map(|p| p["x-order"].as_i64().unwrap()).collect();
    let distinct: BTreeSet<i64> = orders.into_iter().collect();
    assert_eq!(distinct, (0..15).collect());
    let top_p = json!({
        "default": 0.9, "description": "Share of the probability to choose from.", "maximum": 1.0, "minimum": 0.0,
        "title": "Top P", "type": "number", "x-order": 6,
    });
    assert_eq!(properties["top_p"].to_string(), top_p.to_string());
    assert_eq!(schema.component("Input").unwrap()["required"], json!(["prompt"]));
}

#[test]
fn the_names_of_the_package_are_inputs_too() {
    let manifest =
        Manifest::parse("pinion: {inputs: {prompt: text, max_tokens: [max_length]}}").unwrap();
    let schema = Schema::native("dev", &manifest.pinion.inputs);
    let validator = InputValidator::for_predictions(&schema).unwrap();
    let valid = validator.validate(&json!({"text": "hi", "max_length": 3})).unwrap();
    assert_eq!(valid.given, *json!({"text": "hi", "max_length": 3}).as_object().unwrap());
    let faults = validator.validate(&json!({"text": "hi", "max_length": 0})).unwrap_err();
    assert_eq!(faults.faults[0].message, "0 is less than the minimum of 1");
}

#[test]
fn a_document_without_inputs_is_no_schema() {
    assert_eq!(
        Schema::from_json("{}").unwrap_err().to_string(),
        "no components.schemas.Input in the schema"
    );
    assert!(Schema::from_json("{").unwrap_err().to_string().starts_with("not JSON"));
}
