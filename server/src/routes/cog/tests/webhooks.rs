//! Webhooks as their receiver sees them.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::supervisor::PackageState;

/// A receiver that answers as it is told, and only when it may.
#[derive(Clone)]
struct Receiver {
    statuses: Arc<Mutex<VecDeque<u16>>>,
    gate: Arc<Semaphore>,
    heard: mpsc::UnboundedSender<(HeaderMap, Value)>,
}

struct Hook {
    url: String,
    heard: mpsc::UnboundedReceiver<(HeaderMap, Value)>,
    gate: Arc<Semaphore>,
    _server: AbortOnDropHandle<()>,
}

impl Hook {
    /// Answers with these statuses, then with 200; `open` answers may be given at once.
    async fn start(statuses: &[u16], open: usize) -> Self {
        let (sender, heard) = mpsc::unbounded_channel();
        let gate = Arc::new(Semaphore::new(open));
        let receiver = Receiver {
            statuses: Arc::new(Mutex::new(statuses.iter().copied().collect())),
            gate: Arc::clone(&gate),
            heard: sender,
        };
        let router = Router::new().route("/hook", post(receive)).with_state(receiver);
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let server = async move { axum::serve(listener, router).await.unwrap() };
        let tasks = TaskTracker::new();
        Self { url, heard, gate, _server: AbortOnDropHandle::new(tasks.spawn(server)) }
    }

    async fn next(&mut self) -> Value {
        self.heard.recv().await.unwrap().1
    }
}

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: String) -> StatusCode {
    receiver.heard.send((headers, serde_json::from_str(&body).unwrap())).unwrap();
    receiver.gate.acquire().await.unwrap().forget();
    let status = receiver.statuses.lock().pop_front().unwrap_or(200);
    StatusCode::from_u16(status).unwrap()
}

const OPEN: usize = 1000;

fn asking(hook: &Hook, filter: &Value) -> Value {
    let mut body = json!({"input": {"prompt": "a"}, "webhook": hook.url});
    if !filter.is_null() {
        body["webhook_events_filter"] = filter.clone();
    }
    body
}

#[tokio::test]
async fn every_event_arrives_in_its_order_with_all_so_far() {
    let mut node = node();
    let mut hook = Hook::start(&[], OPEN).await;
    let trace = [("traceparent", "00-1-2-01"), ("tracestate", "x=y"), ASYNC];
    let body = asking(&hook, &Value::Null);
    node.send("PUT", "/predictions/a", &trace, &body).await;
    let job = node.worker.job().await;
    job.say([started()]);
    let (headers, start) = hook.heard.recv().await.unwrap();
    assert_eq!(start.to_string(), r#"{"id":"a","logs":"","metrics":{},"status":"processing"}"#);
    let header = |name: &str| headers[name].to_str().unwrap();
    assert_eq!(header("content-type"), "application/json");
    assert_eq!(header("authorization"), "Bearer secret");
    assert!(header("user-agent").starts_with("pinion/"), "{headers:?}");
    assert_eq!((header("traceparent"), header("tracestate")), ("00-1-2-01", "x=y"));
    for (text, outputs) in [("Hel", json!(["Hel"])), ("lo", json!(["Hel", "lo"]))] {
        job.say([delta(text)]);
        let output = hook.next().await;
        assert_eq!((&output["status"], &output["output"]), (&"processing".into(), &outputs));
        assert!(output["metrics"].get("predict_time").is_none());
    }
    job.say([finished(3)]);
    let completed = hook.next().await;
    assert_eq!(completed["status"], "succeeded");
    assert_eq!(completed["output"], json!(["Hel", "lo"]));
    assert!(completed["metrics"]["predict_time"].is_f64());
}

#[tokio::test]
async fn outputs_that_come_during_a_delivery_go_out_together() {
    let mut node = node();
    let mut hook = Hook::start(&[], 0).await;
    let body = asking(&hook, &Value::Null);
    node.send("PUT", "/predictions/a", &[ASYNC], &body).await;
    let job = node.worker.job().await;
    job.say(hello());
    let mut seen = Vec::new();
    for _ in 0..3 {
        let event = hook.next().await;
        assert!(hook.heard.is_empty(), "two were on their way at once");
        seen.push((event["status"].as_str().unwrap().to_owned(), event["output"].clone()));
        hook.gate.add_permits(1);
    }
    let whole = json!(["Hel", "lo"]);
    let expected =
        [("processing", Value::Null), ("processing", whole.clone()), ("succeeded", whole)];
    assert_eq!(seen, expected.map(|(status, output)| (status.to_owned(), output)));
}

#[tokio::test]
async fn only_the_events_that_are_wanted_are_sent() {
    let mut node = node();
    for (filter, expected) in [
        (json!(["completed"]), vec!["succeeded"]),
        (json!(["start"]), vec!["processing"]),
        (json!(["output"]), vec!["processing"]),
        (json!(["start", "completed"]), vec!["processing", "succeeded"]),
        (json!(["logs"]), vec![]),
        (json!([]), vec![]),
    ] {
        let mut hook = Hook::start(&[], OPEN).await;
        let body = asking(&hook, &filter);
        let answer = node.send("POST", "/predictions", &[], &body);
        let worker = async { node.worker.job().await.say(hello()) };
        let (answer, ()) = tokio::join!(answer, worker);
        assert_eq!(answer.status, StatusCode::OK);
        for status in expected {
            assert_eq!(hook.next().await["status"], status, "{filter}");
        }
        stop(&mut node).await;
        assert!(hook.heard.is_empty(), "{filter}");
        node = super::node();
    }
}

/// Drains the node, so that every delivery is over.
async fn stop(node: &mut Node) {
    let worker = async {
        assert!(matches!(node.worker.hear().await, Heard::Drain));
        node.worker.enter(PackageState::Stopped);
    };
    tokio::join!(node.app.drain(), worker);
}

#[tokio::test]
async fn the_last_event_is_sent_until_it_arrives() {
    let mut node = node();
    let mut hook = Hook::start(&[503, 429, 500, 502, 504], OPEN).await;
    let body = asking(&hook, &json!(["completed"]));
    node.send("PUT", "/predictions/a", &[ASYNC], &body).await;
    node.worker.job().await.say(hello());
    let first = hook.next().await;
    for _ in 0..5 {
        assert_eq!(hook.next().await, first);
    }
    stop(&mut node).await;
    assert!(hook.heard.is_empty(), "it had arrived");
}

#[tokio::test]
async fn the_last_event_is_given_up_after_twelve_retries_and_no_other_is_retried() {
    let mut node = node();
    let mut hook = Hook::start(&[503; 100], OPEN).await;
    let body = asking(&hook, &json!(["start", "completed"]));
    node.send("PUT", "/predictions/a", &[ASYNC], &body).await;
    node.worker.job().await.say(hello());
    assert_eq!(hook.next().await["status"], "processing");
    for _ in 0..13 {
        assert_eq!(hook.next().await["status"], "succeeded");
    }
    stop(&mut node).await;
    assert!(hook.heard.is_empty(), "there were more than twelve retries");
}

#[tokio::test]
async fn an_answer_that_no_retry_would_change_is_the_last_one() {
    let mut node = node();
    for status in [400, 404, 301, 307] {
        let mut hook = Hook::start(&[status], OPEN).await;
        let body = asking(&hook, &json!(["completed"]));
        node.send("PUT", "/predictions/a", &[ASYNC], &body).await;
        node.worker.job().await.say(hello());
        assert_eq!(hook.next().await["status"], "succeeded");
        stop(&mut node).await;
        assert!(hook.heard.is_empty(), "{status}");
        node = super::node();
    }
}

#[tokio::test]
async fn a_webhook_that_may_not_be_reached_does_not_hinder_the_prediction() {
    let config = ServeConfig { allow_private_webhooks: false, ..config() };
    let mut node = node_with(config.clone(), "", 4);
    let hook = Hook::start(&[], OPEN).await;
    let named = hook.url.replace("127.0.0.1", "localhost");
    for url in [hook.url.clone(), named, "no url".to_owned(), "ftp://example.com/".to_owned()] {
        let body = json!({"input": {"prompt": "a"}, "webhook": url});
        let answer = node.send("POST", "/predictions", &[], &body);
        let worker = async { node.worker.job().await.say(hello()) };
        let (answer, ()) = tokio::join!(answer, worker);
        assert_eq!(answer.json()["status"], "succeeded", "{url}");
        stop(&mut node).await;
        assert!(hook.heard.is_empty(), "{url}");
        node = node_with(config.clone(), "", 4);
    }
}

#[tokio::test]
async fn a_node_that_stops_lets_asynchronous_predictions_end_and_tells_of_it() {
    let mut node = node();
    let mut hook = Hook::start(&[], OPEN).await;
    let body = asking(&hook, &json!(["completed"]));
    node.send("PUT", "/predictions/a", &[ASYNC], &body).await;
    let job = node.worker.job().await;
    let worker = async {
        assert!(matches!(node.worker.hear().await, Heard::Drain));
        job.say(hello());
        node.worker.enter(PackageState::Stopped);
    };
    tokio::join!(node.app.drain(), worker);
    let heard = hook.heard.try_recv().expect("the drain waited for the webhook");
    assert_eq!(heard.1["status"], "succeeded");
}
