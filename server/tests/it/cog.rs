//! Cog's API in its place in the node: behind keys, over real connections, on a supervised worker.

use axum::body::Body;
use axum::http::{Method, Request};
use pinion_server::http::serve;
use pinion_server::supervisor::StateKind;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::node::{Answer, Node, Setup, post};

fn prompt(text: &str) -> Value {
    json!({"input": {"prompt": text}})
}

async fn put(node: &Node, id: &str, text: &str, preference: &str) -> Answer {
    let mut request = post(&format!("/predictions/{id}"), prompt(text));
    *request.method_mut() = Method::PUT;
    request
        .headers_mut()
        .insert("prefer", preference.parse().expect("a preference is a header value"));
    node.ask(request).await
}

/// Waits for a status.
async fn becomes(node: &Node, id: &str, status: &str) {
    while node.get(&format!("/predictions/{id}")).await.json()["status"] != status {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_prediction_runs_on_the_worker_of_the_package() {
    let node = Node::ready().await;
    let answer = node.post("/predictions", prompt("count 3")).await;
    assert_eq!(answer.status, 200);
    let body = answer.json();
    assert_eq!(
        (&body["status"], &body["output"]),
        (&"succeeded".into(), &json!(["1", " 2", " 3"]))
    );
    assert_eq!(body["metrics"]["input_token_count"], 5);
    assert_eq!(body["metrics"]["output_token_count"], 3);
    assert_eq!(node.get("/cog/tiny/health-check").await.json()["status"], "READY");
}

#[tokio::test]
async fn every_route_needs_a_key() {
    let mut setup = Setup::default();
    setup.config.api_keys = vec!["key".to_owned()];
    let node = setup.ready().await;
    let routes = [
        ("GET", "/"),
        ("GET", "/health-check"),
        ("GET", "/openapi.json"),
        ("GET", "/predictions/a"),
        ("PUT", "/predictions/a"),
        ("POST", "/predictions"),
        ("POST", "/predictions/a/cancel"),
        ("POST", "/shutdown"),
    ];
    for (method, path) in routes {
        for path in [path.to_owned(), format!("/cog/tiny{path}")] {
            let request = Request::builder().method(method).uri(&path).body(Body::empty()).unwrap();
            assert_eq!(node.ask(request).await.status, 401, "{method} {path}");
        }
    }
    assert!(!node.app.stopping().is_cancelled());
    let request = Request::get("/health-check").header("authorization", "Bearer key");
    assert_eq!(node.ask(request.body(Body::empty()).unwrap()).await.status, 200);
}

#[tokio::test]
async fn a_page_of_another_host_cannot_stop_the_node() {
    let node = Node::ready().await;
    let request = Request::post("/shutdown").header("origin", "https://example.com");
    assert_eq!(node.ask(request.body(Body::empty()).unwrap()).await.status, 403);
    assert!(!node.app.stopping().is_cancelled());
}

#[tokio::test]
async fn wrong_methods_keep_the_answer_of_cog_and_the_counts_of_the_node() {
    let node = Node::ready().await;
    let answer = node.get("/predictions").await;
    assert_eq!((answer.status.as_u16(), &*answer.text), (405, ""));
    node.get("/predictions/none").await;
    let metrics = node.get("/metrics").await.text;
    let line =
        "pinion_http_requests_total{method=\"GET\",route=\"/predictions/{id}\",status=\"404\"} 1";
    assert!(metrics.contains(line), "{metrics}");
}

#[tokio::test]
async fn a_worker_that_crashes_fails_its_predictions_and_comes_back() {
    let node = Node::ready().await;
    let answer = node.post("/predictions", prompt("crash")).await;
    let body = answer.json();
    assert_eq!((answer.status.as_u16(), &body["status"]), (200, &"failed".into()));
    assert!(body["error"].as_str().unwrap().contains("died"), "{body}");
    assert_eq!(node.get("/health-check").await.json()["status"], "STARTING");
    node.reaches("tiny", StateKind::Ready).await;
    assert_eq!(node.post("/predictions", prompt("count 1")).await.json()["status"], "succeeded");
}

#[tokio::test]
async fn a_package_that_does_not_load_says_why() {
    let setup = Setup { packages: vec![("tiny", "broken")], ..Setup::default() };
    let node = setup.start();
    node.reaches("tiny", StateKind::Failed).await;
    let health = node.get("/health-check").await.json();
    assert_eq!(
        (&health["status"], &health["setup"]["status"]),
        (&"SETUP_FAILED".into(), &"failed".into())
    );
    assert!(health["setup"]["logs"].as_str().unwrap().contains("bad_weights"), "{health}");
    assert_eq!(node.post("/predictions", prompt("count 1")).await.status, 503);
}

#[tokio::test]
async fn a_connection_that_closes_cancels_its_prediction_and_no_asynchronous_one() {
    let node = Node::ready().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(serve(node.app.clone(), listener));
    assert_eq!(put(&node, "kept", "wait gate", "respond-async").await.status, 202);
    let body = prompt("wait gate").to_string();
    let mut connection = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "PUT /predictions/left HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         accept: text/event-stream\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("event: output") {
        assert_ne!(connection.read_buf(&mut seen).await.unwrap(), 0, "the stream goes on");
    }
    drop(connection);
    while node.cancelled().await < 1 {}
    becomes(&node, "kept", "processing").await;
    node.post("/predictions", prompt("open gate")).await;
    becomes(&node, "kept", "succeeded").await;
    assert_eq!(node.cancelled().await, 1);
}
