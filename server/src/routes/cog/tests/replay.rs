//! Requests that a real Cog was sent, sent again: the answers differ only where this API means them to.

use std::path::Path;

use super::*;
use crate::ipc::{ErrorKind, WorkerError};

/// Recorded cases whose models take or give text.
const CASES: [&str; 17] = [
    "async_sleep",
    "coglet_metrics_validation",
    "env_vars",
    "experimental_feature_warning",
    "function_predictor",
    "healthcheck",
    "non_base_predictor_function",
    "optional_input_no_default",
    "pep604_string_url_not_coerced",
    "predict_sys_exit",
    "prediction_error_response",
    "run_new_runner",
    "scope_context",
    "sequential_state_leak",
    "setup_slow_serial",
    "string_input_url_list_not_coerced",
    "subdirectory_predictor",
];

fn case(name: &str) -> Value {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let own = here.join("tests/fixtures/cog-http").join(format!("{name}.json"));
    let shared = here.join("../cog-compat/tests/fixtures/cog-http").join(format!("{name}.json"));
    let path = if own.exists() { own } else { shared };
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
    serde_json::from_str(&text).unwrap()
}

fn recorded(step: &Value) -> Value {
    serde_json::from_str(step["response"]["body"].as_str().unwrap()).unwrap()
}

/// The recorded request, with a prompt: the models of the recordings take other inputs, which a text package leaves out.
fn resend(node: &Node, step: &Value) -> impl Future<Output = Response> + use<> {
    let sent = &step["request"];
    let mut headers = Vec::new();
    for (name, value) in sent["headers"].as_object().unwrap() {
        headers.push((name.as_str(), value.as_str().unwrap()));
    }
    let mut body: Value =
        sent["body"].as_str().map_or(Value::Null, |b| serde_json::from_str(b).unwrap());
    if let Some(input) = body.get_mut("input") {
        input["prompt"] = "recorded".into();
    }
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let (method, path) = (sent["method"].as_str().unwrap(), sent["path"].as_str().unwrap());
    node.respond(request(method, path, &headers, &body))
}

/// What the worker has to say for the recorded answer.
fn script(answer: &Value) -> Vec<Event> {
    let texts: Vec<&str> = match &answer["output"] {
        Value::Array(outputs) => outputs.iter().filter_map(Value::as_str).collect(),
        output => output.as_str().into_iter().collect(),
    };
    let mut events = vec![started()];
    events.extend(texts.iter().copied().map(delta));
    events.push(match answer["status"].as_str().unwrap() {
        "succeeded" => finished(texts.len() as u32),
        "failed" => Event::Failed(WorkerError {
            kind: ErrorKind::Package,
            code: "recorded".to_owned(),
            message: error_text(answer),
            hint: None,
            param: None,
        }),
        other => panic!("unknown status: {other}"),
    });
    events
}

/// A recorded error without the prefix that Cog doubles.
fn error_text(answer: &Value) -> String {
    answer["error"].as_str().unwrap().replace("Prediction failed: ", "")
}

/// A recorded answer as this API means to give it.
fn meant(mut answer: Value) -> Value {
    if answer["output"].is_string() {
        answer["output"] = json!([answer["output"]]);
    }
    if answer.get("error").is_some() {
        answer["error"] = error_text(&answer).into();
    }
    answer
}

/// The same without generated ids, times, and the metrics that differ from model to model.
fn comparable(mut answer: Value) -> Value {
    if answer["id"].as_str().is_some_and(|id| id.starts_with("pred_")) {
        answer["id"] = "pred_".into();
    }
    assert!(answer["metrics"]["predict_time"].is_f64(), "{answer}");
    answer["metrics"] = Value::Null;
    answer
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// Steps that were sent again after a refusal although nothing else ran: a defect that this API has not.
fn is_spurious(step: &Value) -> bool {
    step["response"]["status"] == 409
}

#[tokio::test]
async fn recorded_predictions_of_text_are_answered_as_cog_answers_them() {
    let mut replayed = 0;
    for name in CASES {
        let mut node = node_with(config(), "", 1);
        let case = case(name);
        let steps = case["steps"].as_array().unwrap().iter();
        for step in steps.filter(|step| step["request"]["path"] == "/predictions") {
            if is_spurious(step) {
                continue;
            }
            let recorded = recorded(step);
            let response = resend(&node, step);
            let answer = async { Answer::of(response.await).await };
            let worker = async { node.worker.job().await.say(script(&recorded)) };
            let (answer, ()) = tokio::join!(answer, worker);
            assert_eq!(answer.status.as_u16(), step["response"]["status"], "{name}");
            assert_eq!(answer.header("content-type"), step["response"]["content_type"], "{name}");
            let found = answer.json();
            assert_eq!(keys(&found), keys(&recorded), "{name}");
            assert_eq!(comparable(found), comparable(meant(recorded)), "{name}");
            replayed += 1;
        }
    }
    assert_eq!(replayed, 39);
}

#[tokio::test]
async fn a_recorded_health_check_has_the_same_fields() {
    let node = node();
    node.settle().await;
    let recorded = recorded(&case("healthcheck")["steps"][0]);
    let found = node.get("/health-check").await.json();
    assert_eq!(keys(&found), keys(&recorded));
    assert_eq!(found["status"], recorded["status"]);
    assert_eq!(keys(&found["setup"]), keys(&recorded["setup"]));
    assert_eq!(found["setup"]["status"], recorded["setup"]["status"]);
    assert_eq!(keys(&found["version"]), ["coglet"]);
}

#[tokio::test]
async fn a_recorded_stream_has_the_same_events() {
    let mut node = node();
    let step = case("sse_streaming_metrics")["steps"][0].clone();
    let response = resend(&node, &step);
    let answer = async { Answer::of(response.await).await };
    let worker = async {
        node.worker.job().await.say([started(), delta("chunk-1"), finished(1)]);
    };
    let (answer, ()) = tokio::join!(answer, worker);
    assert_eq!(answer.header("content-type"), step["response"]["content_type"]);
    let events = |stream: &str| {
        let events = stream.split_terminator("\n\n").map(|frame| {
            let (name, data) = frame.split_once('\n').unwrap();
            let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            (name.to_owned(), data)
        });
        let mut events: Vec<_> = events.filter(|(name, _)| name != "event: metric").collect();
        let (_, last) = events.last_mut().unwrap();
        *last = comparable(last.take());
        events
    };
    let recorded = step["response"]["body"].as_str().unwrap();
    assert!(answer.body.contains("event: metric\ndata: {\"mode\":\"replace\",\"name\":"));
    assert!(recorded.contains("event: metric\ndata: {\"mode\":\"replace\",\"name\":"));
    assert_eq!(events(&answer.body), events(recorded));
}

#[tokio::test]
async fn a_recorded_prediction_is_cancelled_again_and_again() {
    let mut node = node();
    let case = case("cancel_repeated");
    let steps = case["steps"].as_array().unwrap();
    let mut jobs = Vec::new();
    for step in steps.iter().filter(|step| step["request"].is_object()) {
        let answer = Answer::of(resend(&node, step).await).await;
        assert_eq!(answer.status.as_u16(), step["response"]["status"]);
        assert_eq!(answer.body, step["response"]["body"].as_str().unwrap());
        if jobs.is_empty() {
            jobs.push(node.worker.job().await);
        }
    }
    assert!(matches!(node.worker.hear().await, Heard::Cancel(_)));
    jobs[0].say([cancelled()]);
    node.settle().await;
    let mut ended = node.get("/predictions/cancel-repeat-test").await.json();
    ended.as_object_mut().unwrap().shift_remove("input");
    let terminal = steps.iter().find_map(|step| step.get("webhook_terminal")).unwrap();
    assert_eq!(comparable(ended), comparable(terminal.clone()));
}

/// Cog drops all but the last events of a stream, and says so to a reader that joins late; here nothing is dropped.
#[tokio::test]
async fn streams_that_cog_truncates_are_whole() {
    for name in ["sse_stream_history_capacity", "sse_stream_history_disabled"] {
        let mut node = node();
        let case = case(name);
        let answer = Answer::of(resend(&node, &case["steps"][0]).await).await;
        assert_eq!(answer.body, case["steps"][0]["response"]["body"].as_str().unwrap());
        let job = node.worker.job().await;
        job.say([started(), delta("chunk-0"), delta("chunk-1")]);
        node.settle().await;
        let joined = resend(&node, &case["steps"][1]).await;
        job.say([delta("chunk-2"), finished(3)]);
        let stream = Answer::of(joined).await.body;
        assert_eq!(stream.matches("event: output\n").count(), 3, "{stream}");
        assert_eq!(stream.matches("event: start\n").count(), 1);
        assert_eq!(stream.matches("event: error\n").count(), 0);
    }
}
