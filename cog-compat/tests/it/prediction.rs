//! Predictions, their events and their envelopes.
use pinion_cog_compat::PredictionState;
use pinion_cog_compat::prediction::{
    HealthCheck, HealthStatus, LogSource, MetricMode, Metrics, OutputShape, PredictionEvent,
    PredictionRequest, Refusal, Setup, SetupStatus, Status, StreamFault, VersionInfo, WebhookEvent,
    accepted, discovery, id_mismatch, prediction_id, wants_async, wants_events,
};
use serde_json::{Value, json};

fn running() -> PredictionState {
    let mut prediction =
        PredictionState::new("as1", json!({"prompt": "hello", "delay": 0.2}), OutputShape::List);
    prediction.start().unwrap();
    prediction
}

#[test]
fn a_snapshot_in_flight_has_the_input_and_the_output_so_far() {
    let mut prediction = running();
    prediction.push_log(LogSource::Stdout, "start hello\n").unwrap();
    prediction.push_log(LogSource::Stderr, "warn\n").unwrap();
    prediction.record_metric("input_token_count", json!(1), MetricMode::Replace).unwrap();
    prediction.push_output(json!("hello0 ")).unwrap();
    let expected = r#"{"id":"as1","input":{"delay":0.2,"prompt":"hello"},"logs":"start hello\nwarn\n","metrics":{"input_token_count":1},"output":["hello0 "],"status":"processing"}"#;
    assert_eq!(prediction.in_flight().to_string(), expected);
}

#[test]
fn an_answer_has_exactly_the_fields_of_its_end() {
    let mut prediction = running();
    prediction.push_output(json!("a")).unwrap();
    prediction.push_log(LogSource::Stdout, "l").unwrap();
    let (mut failed, mut canceled, mut succeeded) =
        (prediction.clone(), prediction.clone(), prediction);
    succeeded.succeed(0.5).unwrap();
    failed.fail("bad value", 0.5).unwrap();
    canceled.cancel(0.5).unwrap();
    let metrics = r#""metrics":{"predict_time":0.5}"#;
    let expected =
        format!(r#"{{"id":"as1","logs":"l",{metrics},"output":["a"],"status":"succeeded"}}"#);
    assert_eq!(succeeded.response().to_string(), expected);
    let expected =
        format!(r#"{{"error":"bad value","id":"as1","logs":"l",{metrics},"status":"failed"}}"#);
    assert_eq!(failed.response().to_string(), expected);
    let expected = format!(r#"{{"id":"as1","logs":"l",{metrics},"status":"canceled"}}"#);
    assert_eq!(canceled.response().to_string(), expected);
    let expected = format!(
        r#"{{"error":"bad value","id":"as1","logs":"l",{metrics},"output":["a"],"status":"failed"}}"#
    );
    assert_eq!(failed.snapshot().to_string(), expected);
}

#[test]
fn an_output_has_the_shape_of_the_schema() {
    let end = |shape, outputs: &[&str]| {
        let mut prediction = PredictionState::new("a", Value::Null, shape);
        prediction.start().unwrap();
        outputs.iter().for_each(|output| drop(prediction.push_output(json!(output)).unwrap()));
        prediction.succeed(0.0).unwrap();
        prediction.response()["output"].clone()
    };
    assert_eq!(end(OutputShape::List, &[]), json!([]));
    assert_eq!(end(OutputShape::List, &["a"]), json!(["a"]));
    assert_eq!(end(OutputShape::Single, &["a"]), json!("a"));
    assert_eq!(end(OutputShape::Single, &[]), Value::Null);
}

#[test]
fn a_prediction_ends_once_and_then_takes_nothing() {
    let mut prediction = running();
    assert!(prediction.start().is_err());
    prediction.succeed(0.1).unwrap();
    let before = prediction.snapshot();
    assert_eq!(
        prediction.push_output(json!(1)).unwrap_err().to_string(),
        "a prediction that is succeeded cannot give output"
    );
    assert!(prediction.push_log(LogSource::Stdout, "x").is_err());
    assert!(prediction.record_metric("x", json!(1), MetricMode::Replace).is_err());
    assert!(
        prediction.fail("x", 0.0).is_err()
            && prediction.cancel(0.0).is_err()
            && prediction.succeed(0.0).is_err()
    );
    assert_eq!(prediction.snapshot(), before);
}

#[test]
fn a_prediction_that_never_ran_can_fail_or_be_canceled_but_not_succeed() {
    let new = || PredictionState::new("a", Value::Null, OutputShape::List);
    assert!(new().succeed(0.0).is_err() && new().push_output(json!(1)).is_err());
    let (mut failed, mut canceled) = (new(), new());
    failed.fail("worker lost", 0.0).unwrap();
    canceled.cancel(0.0).unwrap();
    assert_eq!((failed.status(), canceled.status()), (Status::Failed, Status::Canceled));
}

#[test]
fn events_carry_the_change_and_not_the_total() {
    let mut prediction = running();
    let mut frames = String::new();
    let mut add = |event: PredictionEvent| frames.push_str(&event.frame());
    add(prediction.push_log(LogSource::Stderr, "w").unwrap());
    add(prediction.record_metric("tokens", json!(1), MetricMode::Increment).unwrap());
    add(prediction.record_metric("tokens", json!(2), MetricMode::Increment).unwrap());
    add(prediction.push_output(json!("a")).unwrap());
    add(prediction.push_output(json!("b")).unwrap());
    let expected = concat!(
        "event: log\ndata: {\"data\":\"w\",\"source\":\"stderr\"}\n\n",
        "event: metric\ndata: {\"mode\":\"increment\",\"name\":\"tokens\",\"value\":1}\n\n",
        "event: metric\ndata: {\"mode\":\"increment\",\"name\":\"tokens\",\"value\":2}\n\n",
        "event: output\ndata: {\"chunk\":\"a\",\"index\":0}\n\n",
        "event: output\ndata: {\"chunk\":\"b\",\"index\":1}\n\n",
    );
    assert_eq!(frames, expected);
    assert_eq!(prediction.metrics().get("tokens"), Some(&json!(3)));
}

#[test]
fn a_reader_that_is_too_late_or_too_slow_is_told() {
    let late = "event: error\ndata: {\"error\":\"SSE stream replay truncated; events were dropped\",\"skipped\":3}\n\n";
    assert_eq!(StreamFault::Truncated { skipped: 3 }.frame(), late);
    assert_eq!(
        StreamFault::Lagged { skipped: 8 }.data()["error"],
        "SSE stream lagged; events were dropped"
    );
}

#[test]
fn metrics_nest_add_and_keep_their_type() {
    let mut metrics = Metrics::default();
    metrics.record("timing.load", json!(0.5), MetricMode::Increment).unwrap();
    metrics.record("timing.load", json!(0.25), MetricMode::Increment).unwrap();
    metrics.record("tags", json!("a"), MetricMode::Append).unwrap();
    metrics.record("tags", json!("b"), MetricMode::Append).unwrap();
    metrics.record("n", json!(1), MetricMode::Replace).unwrap();
    let error = metrics.record("n", json!("x"), MetricMode::Replace).unwrap_err().to_string();
    assert_eq!(error, "metric 'n' is a number and cannot become a string: delete it first");
    assert!(metrics.record("n.deeper", json!(1), MetricMode::Replace).is_err());
    assert_eq!(metrics.to_json(), json!({"timing": {"load": 0.75}, "tags": ["a", "b"], "n": 1}));
    metrics.record("n", Value::Null, MetricMode::Replace).unwrap();
    metrics.record("n", json!("x"), MetricMode::Replace).unwrap();
}

#[test]
fn a_request_takes_what_cog_takes() {
    let read = |body: &str| serde_json::from_str::<PredictionRequest>(body);
    let request =
        read(r#"{"id":"","input":null,"created_at":"x","context":{"a":"b"},"webhook":"http://h"}"#)
            .unwrap();
    assert_eq!((request.id.as_deref(), request.input()), (Some(""), json!({})));
    assert_eq!(request.webhook_for(WebhookEvent::Logs), Some("http://h"));
    let request = read(r#"{"webhook":"http://h","webhook_events_filter":["completed"]}"#).unwrap();
    assert_eq!(request.webhook_for(WebhookEvent::Start), None);
    assert_eq!(request.webhook_for(WebhookEvent::Completed), Some("http://h"));
    let request = read(r#"{"webhook":"http://h","webhook_events_filter":[]}"#).unwrap();
    assert_eq!(request.webhook_for(WebhookEvent::Completed), None);
    assert_eq!(read("{}").unwrap(), PredictionRequest::default());
    assert!(
        read(r#"{"webhook_events_filter":["often"]}"#).is_err()
            && read(r#"{"context":{"a":1}}"#).is_err()
    );
}

#[test]
fn headers_choose_the_kind_of_answer_exactly() {
    for accept in ["text/event-stream", "text/html, text/event-stream;q=0.1", " Text/Event-Stream "]
    {
        assert!(wants_events(accept), "{accept}");
    }
    for accept in ["*/*", "text/*", "application/json", "text/event-streams"] {
        assert!(!wants_events(accept), "{accept}");
    }
    assert!(
        wants_async("respond-async")
            && !wants_async("respond-async, wait=5")
            && !wants_async("wait")
    );
}

#[test]
fn ids_and_small_answers_have_the_form_of_cog() {
    assert_eq!(prediction_id(0x18e9_e037_6082_0d8e), "pred_18e9e03760820d8e");
    assert_eq!(accepted("as1").to_string(), r#"{"id":"as1","status":"starting"}"#);
    let busy = r#"{"error":"At capacity - all prediction slots busy","status":"failed"}"#;
    assert_eq!(
        (Refusal::AtCapacity.code(), Refusal::AtCapacity.body().to_string().as_str()),
        (409, busy)
    );
    assert_eq!(
        (Refusal::NothingToCancel.code(), Refusal::NothingToCancel.body()),
        (404, json!({}))
    );
    assert_eq!(id_mismatch()["detail"][0]["loc"], json!(["body", "id"]));
    let keys = |training| {
        discovery("0.23.1", training).as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!((keys(false).len(), keys(true).len()), (8, 11));
    assert!(keys(true).is_sorted());
}

#[test]
fn a_health_check_has_only_what_is_known() {
    let version = VersionInfo {
        coglet: "0.1.0".to_owned(),
        git_sha: None,
        build_time: None,
        python_sdk: None,
        python: None,
    };
    let setup = Setup {
        started_at: None,
        completed_at: None,
        status: SetupStatus::Failed,
        logs: Some("no weights".to_owned()),
    };
    let status = HealthStatus::SetupFailed;
    let health = HealthCheck {
        status,
        setup: Some(setup),
        version: Some(version),
        user_healthcheck_error: None,
    };
    let expected = r#"{"status":"SETUP_FAILED","setup":{"status":"failed","logs":"no weights"},"version":{"coglet":"0.1.0"}}"#;
    assert_eq!(serde_json::to_string(&health).unwrap(), expected);
}
