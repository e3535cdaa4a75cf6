//! Creating predictions: modes, the order of checks, and every refusal in Cog's words.

use super::*;
use crate::error::ApiError;
use crate::ipc::{ErrorKind, LoadStage, Prompt, WorkerError};
use crate::supervisor::PackageState;

const SUCCEEDED: &str = r#"{"id":"a","logs":"","metrics":{"input_token_count":3,"output_token_count":3,"predict_time":T,"time_to_first_token":T},"output":["Hel","lo"],"status":"succeeded"}"#;
const FULL: &str = r#"{"error":"At capacity - all prediction slots busy","status":"failed"}"#;
const NOT_READY: &str = r#"{"error":"Setup has not finished yet. Wait until it has finished, or GET /health-check for status.","status":"failed"}"#;

fn loading() -> PackageState {
    PackageState::Loading { stage: LoadStage::Weights, done: 0, total: 0 }
}

#[tokio::test]
async fn a_synchronous_prediction_is_answered_when_it_has_ended() {
    let mut node = node();
    let body =
        json!({"id": "a", "input": {"prompt": "hi", "seed": 5, "unknown": 1}, "version": "x"});
    let answer = node.send("POST", "/predictions", &[], &body);
    let worker = async {
        let job = node.worker.job().await;
        job.say(hello());
        job.submit
    };
    let (answer, submit) = tokio::join!(answer, worker);
    assert_eq!(answer.plain(), (200, SUCCEEDED.to_owned()));
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!((submit.params.seed, submit.params.max_tokens), (5, Some(512)));
    let Prompt::Chat { messages, .. } = submit.prompt else { panic!("{:?}", submit.prompt) };
    assert_eq!(messages, r#"[{"role":"user","content":"hi"}]"#);
}

#[tokio::test]
async fn a_prediction_without_id_gets_one_of_its_own() {
    let mut node = node();
    let (one, two) = (
        node.send("POST", "/predictions", &[], &prompt("a")),
        node.send("POST", "/predictions", &[], &prompt("b")),
    );
    let worker = async {
        for _ in 0..2 {
            node.worker.job().await.say(hello());
        }
    };
    let (one, two, ()) = tokio::join!(one, two, worker);
    let id = |answer: &Answer| answer.json()["id"].as_str().unwrap().to_owned();
    assert!(id(&one).starts_with("pred_"), "{}", id(&one));
    assert_ne!(id(&one), id(&two));
}

#[tokio::test]
async fn an_asynchronous_prediction_goes_on_after_its_answer() {
    let mut node = node();
    let job = node.start("a").await;
    let starting = node.get("/predictions/a").await;
    let body = r#"{"id":"a","input":{"prompt":"a"},"logs":"","metrics":{},"status":"starting"}"#;
    assert_eq!(starting.plain(), (200, body.to_owned()));
    job.say([started(), delta("Hel")]);
    node.settle().await;
    let running = node.get("/predictions/a").await.json();
    assert_eq!((&running["status"], &running["output"]), (&"processing".into(), &json!(["Hel"])));
    assert_eq!(running["metrics"]["output_token_count"], 1);
    job.say([delta("lo"), finished(3)]);
    node.settle().await;
    let ended = node.get("/predictions/a").await;
    let with_input = SUCCEEDED.replace(r#""id":"a","#, r#""id":"a","input":{"prompt":"a"},"#);
    assert_eq!(ended.plain(), (200, with_input));
    assert_eq!(node.get("/predictions/b").await.plain().1, r#"{"error":"Prediction not found"}"#);
}

#[tokio::test]
async fn only_the_exact_preference_is_answered_at_once() {
    let mut node = node();
    for preference in ["respond-async, wait=5", "wait", "Respond-Async"] {
        let answer = node.send("POST", "/predictions", &[("prefer", preference)], &prompt("a"));
        let worker = async { node.worker.job().await.say(hello()) };
        let (answer, ()) = tokio::join!(answer, worker);
        assert_eq!(answer.status, StatusCode::OK, "{preference}");
    }
}

#[tokio::test]
async fn the_checks_come_in_the_order_of_cog() {
    let mut node = node_with(config(), "", 1);
    let invalid = json!({"id": "b", "input": {"prompt": 1}});
    let valid = prompt("a");
    node.worker.enter(loading());
    let bad = node.respond(request("PUT", "/predictions/a", &[JSON], "{\"id\": \"b\""));
    assert_eq!(Answer::of(bad.await).await.status, 400, "the body comes first");
    let mismatch = node.send("PUT", "/predictions/a", &[], &invalid).await;
    let body = r#"{"detail":[{"loc":["body","id"],"msg":"prediction ID must match the ID supplied in the URL","type":"value_error"}]}"#;
    assert_eq!(mismatch.plain(), (422, body.to_owned()), "the id comes before the inputs");
    let answer = node.send("PUT", "/predictions/b", &[EVENTS], &invalid).await;
    assert_eq!(answer.status, 422, "the inputs come before readiness");
    let answer = node.send("POST", "/predictions", &[], &valid).await;
    assert_eq!(answer.plain(), (503, NOT_READY.to_owned()));
    node.worker.enter(PackageState::Ready);
    let _running = node.start("a").await;
    let answer = node.send("PUT", "/predictions/a", &[], &json!({"input": {"prompt": 1}})).await;
    assert_eq!(answer.status, 202, "an id in flight comes before the inputs");
    let answer = node.send("POST", "/predictions", &[], &invalid).await;
    assert_eq!(answer.status, 422, "the inputs come before the place");
    let answer = node.send("POST", "/predictions", &[], &valid).await;
    assert_eq!(answer.plain(), (409, FULL.to_owned()));
    node.worker.enter(loading());
    let answer = node.send("POST", "/predictions", &[], &valid).await;
    assert_eq!(answer.status, 503, "readiness comes before the place");
}

#[tokio::test]
async fn bodies_that_are_no_request_are_rejected_in_the_words_of_axum() {
    let node = node();
    let text = ("content-type", "text/plain");
    let vendor = ("content-type", "application/vnd.x+json; charset=utf-8");
    let long = format!("{{\"id\": \"{}\"}}", "x".repeat(20_000));
    let none = ("x-none", "");
    let cases = [
        (JSON, "", 400, "Failed to parse the request body as JSON: EOF while parsing"),
        (JSON, "{\"input\": {", 400, "Failed to parse the request body as JSON: "),
        (vendor, "[", 400, "Failed to parse the request body as JSON: "),
        (text, "{}", 415, "Expected request with `Content-Type: application/json`"),
        (JSON, long.as_str(), 413, "Failed to buffer the request body: length limit exceeded"),
        (
            JSON,
            r#"{"webhook_events_filter": ["finished"]}"#,
            422,
            "Failed to deserialize the JSON body into the target type: webhook_events_filter[0]: unknown variant",
        ),
        (
            none,
            "",
            422,
            r#"{"detail":[{"loc":["body","input","prompt"],"msg":"Field required","type":"value_error.missing"}]}"#,
        ),
    ];
    for (header, body, status, start) in cases {
        let response = node.respond(request("POST", "/predictions", &[header], body)).await;
        let answer = Answer::of(response).await;
        assert_eq!(answer.status, status, "{body:.20} {header:?}: {}", answer.body);
        assert!(answer.body.starts_with(start), "{body:.20}: {}", answer.body);
        if status != 422 {
            assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
        }
    }
}

#[tokio::test]
async fn inputs_are_checked_all_at_once_in_the_words_of_cog() {
    let node = node();
    let input = json!({"max_tokens": 0, "temperature": "hot", "top_p": 1.5, "seed": 2.5, "min_tokens": null});
    let answer = node.send("POST", "/predictions", &[], &json!({"input": input})).await;
    assert_eq!(answer.status, 422);
    let found = answer.json();
    let found: Vec<(&str, &str, &str)> = found["detail"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["loc"][2].as_str(), one["msg"].as_str(), one["type"].as_str()))
        .map(|(field, message, kind)| (field.unwrap(), message.unwrap(), kind.unwrap()))
        .collect();
    let error = "value_error";
    assert_eq!(
        found,
        [
            ("max_tokens", "0 is less than the minimum of 1", error),
            ("min_tokens", r#"null is not of type "integer""#, error),
            ("prompt", "Field required", "value_error.missing"),
            ("seed", r#"2.5 is not of type "integer""#, error),
            ("temperature", r#""hot" is not of type "number""#, error),
            ("top_p", "1.5 is greater than the maximum of 1.0", error),
        ]
    );
    assert!(answer.body.starts_with(r#"{"detail":[{"loc":["body","input","#), "{}", answer.body);
    let answer = node.send("POST", "/predictions", &[], &json!({"input": [1]})).await;
    assert_eq!(answer.json()["detail"][0]["loc"], json!(["body", "input", "__root__"]));
}

#[tokio::test]
async fn inputs_that_are_wrong_together_fail_the_prediction_without_the_worker() {
    let mut node = node();
    let input = json!({"prompt": "a", "max_tokens": 1, "max_new_tokens": 2});
    let body = json!({"id": "a", "input": input});
    let answer = node.send("POST", "/predictions", &[], &body).await;
    let expected = r#"{"error":"E1102 InvalidArgumentMaxTokens: Can't set both max_tokens (1) and max_new_tokens (2)","id":"a","logs":"","metrics":{"predict_time":T},"status":"failed"}"#;
    assert_eq!(answer.plain(), (200, expected.to_owned()));
    assert!(node.worker.is_quiet());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_one_request_after_the_other_is_never_refused() {
    let mut node = node_with(config(), "", 1);
    for round in 0..500 {
        let answer = node.send("PUT", "/predictions/same", &[], &prompt("a"));
        let worker = async { node.worker.job().await.say(hello()) };
        let (answer, ()) = tokio::join!(answer, worker);
        assert_eq!(answer.status, StatusCode::OK, "round {round}: {}", answer.body);
    }
}

#[tokio::test]
async fn a_full_package_refuses_and_takes_the_next_one_when_there_is_room() {
    let mut node = node_with(config(), "", 2);
    let (first, _second) = (node.start("a").await, node.start("b").await);
    let refused = node.send("POST", "/predictions", &[EVENTS], &prompt("c")).await;
    assert_eq!(refused.plain(), (409, FULL.to_owned()));
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(node.get("/predictions/c").await.status, 404);
    assert_eq!(node.get("/health-check").await.json()["status"], "BUSY");
    first.say(hello());
    node.settle().await;
    assert_eq!(node.get("/health-check").await.json()["status"], "READY");
    node.start("c").await;
}

#[tokio::test]
async fn an_id_in_flight_does_not_run_twice() {
    let mut node = node();
    let job = node.start("a").await;
    let body = json!({"id": "a", "input": {"prompt": "again"}});
    let posted = node.send("POST", "/predictions", &[], &body).await;
    assert_eq!(posted.plain(), (409, FULL.to_owned()));
    job.say([started(), delta("Hel")]);
    node.settle().await;
    for headers in [&[][..], &[ASYNC]] {
        let put = node.send("PUT", "/predictions/a", headers, &body).await;
        assert_eq!(put.status, StatusCode::ACCEPTED);
        let snapshot = put.json();
        assert_eq!(snapshot["input"], json!({"prompt": "a"}));
        assert_eq!(snapshot["output"], json!(["Hel"]));
    }
    assert!(node.worker.is_quiet(), "it ran twice");
    job.say([delta("lo"), finished(2)]);
    node.settle().await;
    node.start("a").await.say(hello());
}

#[tokio::test]
async fn a_failure_of_the_worker_is_a_failed_prediction() {
    let mut node = node();
    let crash = WorkerError {
        kind: ErrorKind::Internal,
        code: "worker_crashed".to_owned(),
        message: "the worker died".to_owned(),
        hint: Some("send it again".to_owned()),
        param: None,
    };
    let answer = node.send("PUT", "/predictions/a", &[], &prompt("a"));
    let worker = async {
        node.worker.job().await.say([started(), delta("Hel"), Event::Failed(crash.clone())]);
    };
    let (answer, ()) = tokio::join!(answer, worker);
    let body = r#"{"error":"the worker died; hint: send it again","id":"a","logs":"","metrics":{"input_token_count":3,"output_token_count":1,"predict_time":T,"time_to_first_token":T},"status":"failed"}"#;
    assert_eq!(answer.plain(), (200, body.to_owned()));
}

#[tokio::test]
async fn a_worker_that_turns_a_prediction_away_after_all_is_full_or_not_ready() {
    let mut node = node();
    let cases = [
        (ErrorKind::Overloaded, "queue_full", 409, FULL),
        (ErrorKind::Overloaded, "model_loading", 503, NOT_READY),
        (ErrorKind::Internal, "draining", 503, NOT_READY),
    ];
    for (kind, code, status, body) in cases {
        let (code, message) = (code.to_owned(), "no".to_owned());
        let error = WorkerError { kind, code, message, hint: None, param: None };
        let answer = node.send("PUT", "/predictions/a", &[], &prompt("a"));
        let worker = async { node.worker.job().await.say([Event::Failed(error)]) };
        let (answer, ()) = tokio::join!(answer, worker);
        assert_eq!(answer.plain(), (status, body.to_owned()));
    }
}

#[tokio::test]
async fn a_package_that_cannot_serve_refuses_in_the_words_of_cog() {
    let node = node();
    let failed = PackageState::Failed(ApiError::model("bad_weights", "no weights"));
    for state in [loading(), failed, PackageState::Draining, PackageState::Unresponsive] {
        node.worker.enter(state.clone());
        for headers in [&[][..], &[ASYNC], &[EVENTS]] {
            let answer = node.send("POST", "/predictions", headers, &prompt("a")).await;
            assert_eq!(answer.plain(), (503, NOT_READY.to_owned()), "{state:?}");
        }
    }
}
