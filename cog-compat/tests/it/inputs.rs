//! What the inputs of a text package mean.
use pinion_cog_compat::inputs::render_template;
use pinion_cog_compat::{GenerationInputs, InputValidator, Manifest, Schema};
use serde_json::{Value, json};

fn read_with(input: Value, yaml: &str) -> Result<GenerationInputs, String> {
    let aliases = Manifest::parse(yaml).unwrap().pinion.inputs;
    let validator = InputValidator::for_predictions(&Schema::native("dev", &aliases)).unwrap();
    let valid = validator.validate(&input).map_err(|error| error.to_string())?;
    GenerationInputs::from_input(&valid.given, &aliases).map_err(|error| error.to_string())
}

fn read(input: Value) -> Result<GenerationInputs, String> {
    read_with(input, "")
}

#[test]
fn a_prompt_alone_takes_the_defaults_of_the_schema() {
    let aliases = Manifest::parse("").unwrap().pinion.inputs;
    let validator = InputValidator::for_predictions(&Schema::native("dev", &aliases)).unwrap();
    let valid = validator.validate(&json!({"prompt": "hi"})).unwrap();
    let given = GenerationInputs::from_input(&valid.given, &aliases).unwrap();
    let complete = GenerationInputs::from_input(&valid.complete, &aliases).unwrap();
    assert_eq!(given, complete);
    assert_eq!(
        (given.max_tokens, given.temperature, given.top_k, given.seed),
        (512, 0.6, Some(50), None)
    );
}

#[test]
fn off_values_are_off() {
    for off in [0, -1] {
        let read = read(
            json!({"prompt": "x", "top_k": off, "seed": off, "min_tokens": off, "temperature": 0}),
        )
        .unwrap();
        let GenerationInputs { top_k, seed, min_tokens, temperature, .. } = read;
        assert_eq!((top_k, seed, min_tokens, temperature), (None, None, 0, 0.0));
    }
    let read = read(json!({"prompt": "x", "top_k": 7.0, "seed": 42})).unwrap();
    assert_eq!((read.top_k, read.seed), (Some(7), Some(42)));
}

#[test]
fn a_length_is_found_under_any_of_its_names() {
    let yaml = "pinion: {inputs: {max_tokens: max_length}}";
    for name in ["max_tokens", "max_new_tokens", "max_length"] {
        let read = read_with(json!({"prompt": "x", name: 9}), yaml).unwrap();
        assert_eq!(read.max_tokens, 9, "{name}");
    }
    assert_eq!(read(json!({"prompt": "x", "max_length": 9})).unwrap().max_tokens, 512);
    assert_eq!(
        read(json!({"prompt": "x", "max_tokens": 9, "max_new_tokens": 9})).unwrap().max_tokens,
        9
    );
}

#[test]
fn two_names_with_different_values_are_refused() {
    let error = read(json!({"prompt": "x", "max_tokens": 9, "max_new_tokens": 8})).unwrap_err();
    assert_eq!(
        error,
        "E1102 InvalidArgumentMaxTokens: Can't set both max_tokens (9) and max_new_tokens (8)"
    );
    let error = read(json!({"prompt": "x", "min_tokens": 9, "min_new_tokens": 8})).unwrap_err();
    assert!(error.starts_with("E1101 "), "{error}");
}

#[test]
fn a_least_length_over_the_greatest_is_refused() {
    let error = read(json!({"prompt": "x", "max_tokens": 2, "min_tokens": 3})).unwrap_err();
    assert!(
        error.ends_with("min_tokens must be less than or equal to max_tokens=2, got 3"),
        "{error}"
    );
}

#[test]
fn stop_sequences_are_a_list_or_one_text_with_commas() {
    let stop = |value: Value| read(json!({"prompt": "x", "stop_sequences": value})).unwrap().stop;
    assert_eq!(stop(json!("\n,END,,</s>")), ["\n", "END", "</s>"]);
    assert_eq!(stop(json!(["a,b", "", "c"])), ["a,b", "c"]);
    assert_eq!(stop(json!("")), [""; 0]);
}

#[test]
fn a_blank_prompt_is_refused() {
    let error = read(json!({"prompt": " "})).unwrap_err();
    assert_eq!(
        error,
        "E1001 PromptRequired: A prompt is required, but your formatted prompt is blank"
    );
    assert!(
        read_with(json!({}), "pinion: {inputs: {prompt: text}}").unwrap_err().starts_with("E1001")
    );
    assert!(read(json!({"prompt": "", "prompt_template": "always this"})).is_ok());
}

#[test]
fn templates_are_formats_of_python() {
    for (template, expected) in [
        ("{prompt}", "P"),
        ("<{system_prompt}> {prompt}!", "<S> P!"),
        ("{{\"a\": {prompt!s}}} {prompt}", "{\"a\": P} P"),
        ("{prompt:}{prompt}", "PP"),
    ] {
        assert_eq!(render_template(template, "P", "S").unwrap(), expected);
    }
    assert_eq!(render_template("{prompt}", "{system_prompt}", "S").unwrap(), "{system_prompt}");
}

#[test]
fn broken_templates_have_the_codes_of_cog() {
    for (template, expected) in [
        ("no place", "E1003 BadPromptTemplate"),
        (
            "{prompt} {other}",
            "E1004 PromptTemplateError: Prompt template must be a valid python format spec: KeyError('other')",
        ),
        ("{prompt} {}", "Replacement index 0 out of range"),
        ("{prompt} {1}", "Replacement index 1 out of range"),
        ("{prompt} }", "Single '}' encountered in format string"),
        ("{prompt} {", "Single '{' encountered in format string"),
        ("{prompt} {prompt", "expected '}' before end of string"),
        (
            "{prompt} {prompt.upper}",
            "only {prompt} and {system_prompt} are supported: {prompt.upper}",
        ),
    ] {
        let error = read(json!({"prompt": "P", "prompt_template": template})).unwrap_err();
        assert!(error.contains(expected), "{template}: {error}");
    }
}
