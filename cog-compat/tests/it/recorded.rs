//! Requests and answers recorded from a real Cog, replayed as far as the server's own part decides.
use pinion_cog_compat::prediction::{
    HealthCheck, MetricMode, Metrics, PredictionEvent, PredictionRequest, Refusal, StreamFault,
    accepted, wants_async, wants_events,
};
use pinion_cog_compat::{InputValidator, PredictionState, Schema};
use serde_json::Value;

struct Step {
    name: String,
    schema: Schema,
    request: Value,
    response: Value,
}

impl Step {
    fn body(&self) -> &str {
        self.response["body"].as_str().unwrap()
    }

    fn prediction_request(&self) -> PredictionRequest {
        serde_json::from_str(self.request["body"].as_str().unwrap()).unwrap()
    }

    fn creates(&self) -> bool {
        let path = self.request["path"].as_str().unwrap();
        path.starts_with("/predictions") && !path.ends_with("/cancel")
    }
}

fn steps() -> Vec<Step> {
    let mut steps = Vec::new();
    for (name, bytes) in super::fixtures("cog-http", "json") {
        let case: Value = serde_json::from_slice(&bytes).unwrap();
        let schema = Schema::from_value(case["openapi"].clone()).unwrap();
        for step in
            case["steps"].as_array().unwrap().iter().filter(|step| step["request"].is_object())
        {
            let (request, response) = (step["request"].clone(), step["response"].clone());
            steps.push(Step { name: name.clone(), schema: schema.clone(), request, response });
        }
    }
    steps
}

#[test]
fn every_input_that_cog_took_is_valid_and_complete() {
    let creates: Vec<Step> = steps().into_iter().filter(Step::creates).collect();
    assert!(creates.len() > 40);
    for step in creates {
        let validator = InputValidator::for_predictions(&step.schema).unwrap();
        let input = step.prediction_request().input();
        let valid =
            validator.validate(&input).unwrap_or_else(|faults| panic!("{}: {faults}", step.name));
        assert_eq!(Value::Object(valid.given), input, "{}", step.name);
    }
}

#[test]
fn optional_inputs_that_are_absent_become_null_and_defaults_are_filled_in() {
    let complete = |name: &str, input: Value| {
        let schema = Schema::from_value(super::recorded_case(name)["openapi"].clone()).unwrap();
        InputValidator::for_predictions(&schema).unwrap().validate(&input).unwrap().complete
    };
    let empty = || Value::Object(serde_json::Map::new());
    assert_eq!(complete("optional_input_no_default", empty())["value"], Value::Null);
    assert_eq!(complete("pep604_path_or_none_input", empty())["path"], Value::Null);
    let body = super::recorded_case("many_inputs")["steps"][0]["request"]["body"].clone();
    let body: Value = serde_json::from_str(body.as_str().unwrap()).unwrap();
    let filled = complete("many_inputs", body["input"].clone());
    assert_eq!(
        (&filled["default_without_input"], &filled["input_with_default"]),
        (&"default".into(), &10.into())
    );
}

#[test]
fn inputs_that_break_a_recorded_schema_are_refused_all_at_once() {
    let schema =
        Schema::from_value(super::recorded_case("many_inputs")["openapi"].clone()).unwrap();
    let validator = InputValidator::for_predictions(&schema).unwrap();
    let input =
        serde_json::json!({"no_default": 1, "image": "x", "choices": "baz", "int_choices": 9});
    let faults = validator.validate(&input).unwrap_err();
    let lines: Vec<String> =
        faults.faults.iter().map(|fault| format!("{}: {}", fault.field, fault.message)).collect();
    assert_eq!(
        lines,
        [
            r#"choices: "baz" is not one of ["foo","bar"]"#,
            "int_choices: 9 is not one of [3,4,5]",
            r#"no_default: 1 is not of type "string""#,
            "path: Field required",
        ]
    );
}

/// The state that an answer describes, built through the public steps.
fn replay(step: &Step, answer: &Value) -> PredictionState {
    let id = answer["id"].as_str().unwrap();
    let mut state =
        PredictionState::new(id, step.prediction_request().input(), step.schema.output_shape());
    state.start().unwrap();
    match &answer["output"] {
        Value::Null => {}
        Value::Array(chunks) => {
            chunks.iter().for_each(|chunk| drop(state.push_output(chunk.clone()).unwrap()));
        }
        single => drop(state.push_output(single.clone()).unwrap()),
    }
    for (name, value) in answer["metrics"].as_object().unwrap() {
        if name != "predict_time" {
            state.record_metric(name, value.clone(), MetricMode::Replace).unwrap();
        }
    }
    state
}

fn end(state: &mut PredictionState, answer: &Value) -> PredictionEvent {
    let time = answer["metrics"]["predict_time"].as_f64().unwrap();
    match answer["status"].as_str().unwrap() {
        "succeeded" => state.succeed(time).unwrap(),
        "canceled" => state.cancel(time).unwrap(),
        _ => state.fail(answer["error"].as_str().unwrap(), time).unwrap(),
    }
}

#[test]
fn every_recorded_answer_is_rendered_byte_for_byte() {
    let mut seen = [0; 4];
    for step in steps().iter().filter(|step| step.creates()) {
        let accept = step.request["headers"]["accept"].as_str().unwrap_or_default();
        let prefer = step.request["headers"]["prefer"].as_str().unwrap_or_default();
        let kind = match step.response["status"].as_u64().unwrap() {
            409 => {
                assert_eq!(step.body(), Refusal::AtCapacity.body().to_string());
                0
            }
            202 => {
                assert!(wants_async(prefer));
                assert_eq!(
                    step.body(),
                    accepted(&step.prediction_request().id.unwrap()).to_string()
                );
                1
            }
            _ if wants_events(accept) => 2,
            _ => {
                let answer: Value = serde_json::from_str(step.body()).unwrap();
                let mut state = replay(step, &answer);
                end(&mut state, &answer);
                assert_eq!(state.response().to_string(), step.body(), "{}", step.name);
                3
            }
        };
        seen[kind] += 1;
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}

#[test]
fn a_recorded_event_stream_is_rendered_byte_for_byte() {
    let step = steps().into_iter().find(|step| step.name == "sse_streaming_metrics.json").unwrap();
    let mut state = PredictionState::new("sse-metrics", Value::Null, step.schema.output_shape());
    let mut frames = state.start().unwrap().frame();
    frames += &state.record_metric("temperature", 0.7.into(), MetricMode::Replace).unwrap().frame();
    frames += &state.push_output("chunk-1".into()).unwrap().frame();
    frames += &state.record_metric("token_count", 2.into(), MetricMode::Increment).unwrap().frame();
    frames += &state.succeed(0.220_802_202).unwrap().frame();
    assert_eq!(frames.trim_end(), step.body().trim_end());
}

#[test]
fn a_recorded_replay_fault_is_rendered_byte_for_byte() {
    let mut steps =
        steps().into_iter().filter(|step| step.name == "sse_stream_history_capacity.json");
    let step = steps.nth(1).unwrap();
    assert_eq!(StreamFault::Truncated { skipped: 3 }.frame().trim_end(), step.body().trim_end());
}

#[test]
fn the_webhook_of_a_canceled_prediction_is_its_snapshot() {
    let case = super::recorded_case("cancel_repeated");
    let steps = case["steps"].as_array().unwrap();
    let webhook = steps.iter().find_map(|step| step.get("webhook_terminal")).unwrap();
    let mut state = PredictionState::new(
        "cancel-repeat-test",
        Value::Null,
        pinion_cog_compat::prediction::OutputShape::Single,
    );
    state.start().unwrap();
    state.cancel(5.001_568_971).unwrap();
    assert_eq!(state.snapshot(), *webhook);
}

#[test]
fn recorded_health_checks_are_read_and_written_unchanged() {
    let mut count = 0;
    for step in steps().iter().filter(|step| step.request["path"] == "/health-check") {
        let health: HealthCheck = serde_json::from_str(step.body()).unwrap();
        assert_eq!(serde_json::to_string(&health).unwrap(), step.body());
        count += 1;
    }
    assert!(count >= 3);
}

#[test]
fn metric_names_are_refused_in_the_words_of_cog() {
    let names = [
        ("underscore_prefix", "_invalid".to_owned()),
        ("consecutive_underscore", "foo__bar".to_owned()),
        ("trailing_underscore", "invalid_".to_owned()),
        ("leading_dot", ".invalid".to_owned()),
        ("consecutive_dot", "foo..bar".to_owned()),
        ("predict_time", "predict_time".to_owned()),
        ("cog_prefix", "cog.x".to_owned()),
        ("too_many_segments", "a.b.c.d.e".to_owned()),
        ("name_too_long", "a".repeat(129)),
    ];
    for step in steps().iter().filter(|step| step.name == "coglet_metrics_validation.json") {
        let input = step.prediction_request().input();
        let Some((_, name)) = names.iter().find(|(test, _)| input["test"] == **test) else {
            continue;
        };
        let error =
            Metrics::default().record(name, 1.into(), MetricMode::Replace).unwrap_err().to_string();
        assert!(step.body().contains(&error), "{error} in {}", step.body());
    }
}
