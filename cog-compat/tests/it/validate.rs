//! The 422 answers of Cog's input validation.
use pinion_cog_compat::{InputValidator, Schema};
use serde_json::{Value, json};

fn validator(properties: &Value, required: &Value) -> InputValidator {
    let document = json!({"components": {"schemas": {
        "Input": {"properties": properties, "required": required, "title": "Input", "type": "object"},
        "style": {"description": "An enumeration.", "enum": ["plain", "loud"], "title": "style", "type": "string"},
        "loop": {"properties": {"next": {"$ref": "#/components/schemas/loop"}}, "type": "object"},
    }}});
    InputValidator::for_predictions(&Schema::from_value(document).unwrap()).unwrap()
}

fn message(property: Value, value: Value) -> String {
    let validator = validator(&json!({"x": property}), &json!([]));
    let faults = validator.validate(&json!({"x": value})).expect_err("refused");
    assert_eq!(faults.faults.len(), 1);
    faults.faults[0].message.clone()
}

#[test]
fn every_message_is_the_one_that_cog_gives() {
    let number = || json!({"type": "number", "minimum": 1, "maximum": 10});
    for (property, value, expected) in [
        (number(), json!(0), "0 is less than the minimum of 1"),
        (number(), json!(11), "11 is greater than the maximum of 10"),
        (number(), json!("x"), r#""x" is not of type "number""#),
        (json!({"type": "string", "minLength": 1}), json!(""), r#""" is shorter than 1 character"#),
        (
            json!({"allOf": [{"$ref": "#/components/schemas/style"}]}),
            json!("zzz"),
            r#""zzz" is not one of ["plain","loud"]"#,
        ),
        (
            json!({"type": "string", "pattern": "^[a-z]{3}$"}),
            json!("ABCD"),
            r#""ABCD" does not match "^[a-z]{3}$""#,
        ),
        (json!({"type": "integer"}), json!(2.5), r#"2.5 is not of type "integer""#),
        (
            json!({"type": "string", "nullable": true}),
            Value::Null,
            r#"null is not of type "string""#,
        ),
        (json!({"type": "boolean"}), json!(1), r#"1 is not of type "boolean""#),
        (
            json!({"anyOf": [{"type": "string"}, {"type": "integer"}]}),
            json!(true),
            "true is not valid under any of the schemas listed in the 'anyOf' keyword",
        ),
    ] {
        assert_eq!(message(property, value), expected);
    }
}

#[test]
fn all_faults_come_in_one_body_by_name() {
    let properties =
        json!({"b": {"type": "string"}, "a": {"type": "integer"}, "c": {"type": "string"}});
    let faults = validator(&properties, &json!(["c", "b"]))
        .validate(&json!({"a": "1", "unknown": 1}))
        .unwrap_err();
    let expected = r#"{"detail":[{"loc":["body","input","a"],"msg":"\"1\" is not of type \"integer\"","type":"value_error"},{"loc":["body","input","b"],"msg":"Field required","type":"value_error.missing"},{"loc":["body","input","c"],"msg":"Field required","type":"value_error.missing"}]}"#;
    assert_eq!(faults.body().to_string(), expected);
}

#[test]
fn an_input_that_is_no_object_is_refused_as_a_whole() {
    let faults = validator(&json!({}), &json!([])).validate(&json!([1])).unwrap_err();
    assert_eq!(
        (faults.faults[0].field.as_str(), faults.faults[0].message.as_str()),
        ("__root__", r#"[1] is not of type "object""#)
    );
}

#[test]
fn an_input_that_is_no_object_is_refused_even_if_the_schema_has_no_type() {
    let document = json!({"components": {"schemas": {"Input": {"properties": {}}}}});
    let schema = Schema::from_value(document).unwrap();
    let faults =
        InputValidator::for_predictions(&schema).unwrap().validate(&json!("x")).unwrap_err();
    assert_eq!(faults.faults[0].message, r#""x" is not of type "object""#);
}

#[test]
fn a_whole_float_is_an_integer_and_nothing_is_converted() {
    let validator = validator(&json!({"n": {"type": "integer"}}), &json!([]));
    assert!(validator.validate(&json!({"n": 3.0})).is_ok());
    assert!(validator.validate(&json!({"n": "3"})).is_err());
}

#[test]
fn defaults_and_nulls_are_filled_in_and_unknown_inputs_left_out() {
    let properties = json!({
        "given": {"type": "string", "default": "d"}, "absent": {"type": "string", "default": "d"},
        "optional": {"type": "string", "nullable": true}, "bare": {"type": "string"},
    });
    let valid =
        validator(&properties, &json!([])).validate(&json!({"given": "g", "other": 1})).unwrap();
    assert_eq!(Value::Object(valid.given), json!({"given": "g"}));
    assert_eq!(
        Value::Object(valid.complete),
        json!({"given": "g", "absent": "d", "optional": null})
    );
    assert_eq!(valid.stripped, ["other"]);
}

#[test]
fn a_schema_that_refers_to_itself_is_taken() {
    let validator = validator(&json!({"x": {"$ref": "#/components/schemas/loop"}}), &json!([]));
    assert!(validator.validate(&json!({"x": {"next": {"next": {}}}})).is_ok());
    assert!(validator.validate(&json!({"x": 1})).is_err());
}

#[test]
fn a_schema_that_grows_without_bound_is_refused() {
    let mut schemas = serde_json::Map::new();
    for level in 0..40 {
        let next = json!({"$ref": format!("#/components/schemas/s{}", level + 1)});
        schemas.insert(format!("s{level}"), json!({"anyOf": [next, next]}));
    }
    schemas.insert(
        "Input".to_owned(),
        json!({"properties": {"x": {"$ref": "#/components/schemas/s0"}}}),
    );
    let schema = Schema::from_value(json!({"components": {"schemas": schemas}})).unwrap();
    assert!(InputValidator::for_predictions(&schema).unwrap_err().to_string().contains("grows"));
}

#[test]
fn a_schema_with_a_broken_pattern_is_refused_and_not_trusted() {
    let input = json!({"properties": {"x": {"type": "string", "pattern": "("}}});
    let schema = Schema::from_value(json!({"components": {"schemas": {"Input": input}}})).unwrap();
    assert!(
        InputValidator::for_predictions(&schema)
            .unwrap_err()
            .to_string()
            .starts_with("not a JSON schema")
    );
}
