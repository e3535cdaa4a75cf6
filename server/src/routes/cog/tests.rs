//! Cog's API through its router, over packages whose worker is the test.

mod follow;
mod node;
mod predictions;
mod replay;
mod webhooks;

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::Response;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::routes_with;
use super::webhook::Webhooks;
use crate::app::App;
use crate::config::{DisconnectPolicy, ServeConfig};
use crate::ipc::{Event, FinishReason, Usage};
use crate::supervisor::testing::{Heard, Job, Script, scripted};

/// A node of one package.
struct Node {
    app: App,
    router: Router,
    worker: Script,
}

/// A whole answer.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    async fn of(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        Self { status: parts.status, headers: parts.headers, body }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// Status and body, without what the clock decides.
    fn plain(&self) -> (u16, String) {
        let mut text = self.body.clone();
        for name in ["predict_time", "time_to_first_token"] {
            let mark = format!("\"{name}\":");
            if let Some(at) = text.find(&mark) {
                let from = at + mark.len();
                let end = text[from..].find([',', '}']).unwrap() + from;
                assert!(text[from..end].parse::<f64>().unwrap() >= 0.0);
                text.replace_range(from..end, "T");
            }
        }
        (self.status.as_u16(), text)
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }
}

fn config() -> ServeConfig {
    ServeConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        api_keys: Vec::new(),
        max_body_bytes: 10_000,
        drain_timeout: Duration::from_secs(5),
        heartbeat: Duration::from_secs(15),
        node_name: "n1".to_owned(),
        on_disconnect: DisconnectPolicy::Linger,
        linger: Duration::from_secs(30),
        stream_ttl: Duration::from_mins(10),
        stream_memory_bytes: 1 << 20,
        journal: None,
        webhook_token: Some("secret".to_owned()),
        allow_private_webhooks: true,
    }
}

fn node() -> Node {
    node_with(config(), "", 4)
}

fn node_with(config: ServeConfig, cog_yaml: &str, max_in_flight: usize) -> Node {
    let (package, worker) = scripted("tiny", cog_yaml, max_in_flight);
    let webhooks = Webhooks::new(&config).at_once();
    let app = App::new(config, vec![package], TaskTracker::new());
    let router = routes_with(&app, webhooks).with_state(app.clone());
    Node { app, router, worker }
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::from(body.to_owned())).unwrap()
}

const JSON: (&str, &str) = ("content-type", "application/json");
const ASYNC: (&str, &str) = ("prefer", "respond-async");
const EVENTS: (&str, &str) = ("accept", "text/event-stream");

impl Node {
    fn respond(&self, request: Request<Body>) -> impl Future<Output = Response> + use<> {
        let router = self.router.clone();
        async move { router.oneshot(request).await.unwrap() }
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> impl Future<Output = Answer> + use<> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut headers = headers.to_vec();
        if !body.is_empty() {
            headers.push(JSON);
        }
        let response = self.respond(request(method, path, &headers, &body));
        async move { Answer::of(response.await).await }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], &Value::Null).await
    }

    /// Runs the tasks until nothing changes any more, without letting time pass.
    async fn settle(&self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    /// Starts an asynchronous prediction, and waits until its worker has it.
    async fn start(&mut self, id: &str) -> Job {
        let body = prompt(id);
        let answer = self.send("PUT", &format!("/predictions/{id}"), &[ASYNC], &body).await;
        let accepted = format!(r#"{{"id":"{id}","status":"starting"}}"#);
        assert_eq!((answer.status, answer.body), (StatusCode::ACCEPTED, accepted));
        self.worker.job().await
    }
}

fn prompt(text: &str) -> Value {
    json!({"input": {"prompt": text}})
}

fn started() -> Event {
    Event::Started { prompt_tokens: 3, cached_tokens: 0 }
}

fn delta(text: &str) -> Event {
    Event::Delta { text: text.to_owned(), token_ids: vec![7], logprobs: Vec::new() }
}

fn finished(completion_tokens: u32) -> Event {
    let usage = Usage { prompt_tokens: 3, cached_tokens: 0, completion_tokens };
    Event::Finished { reason: FinishReason::Stop, usage }
}

fn cancelled() -> Event {
    Event::Finished { reason: FinishReason::Cancelled, usage: Usage::default() }
}

fn hello() -> [Event; 4] {
    [started(), delta("Hel"), delta("lo"), finished(3)]
}
