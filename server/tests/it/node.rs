//! Starts a node whose packages are served by scripted workers, and asks it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use pinion_cog_compat::manifest::Manifest;
use pinion_server::app::App;
use pinion_server::config::{DisconnectPolicy, ServeConfig};
use pinion_server::http::router;
use pinion_server::ipc::{LoadRequest, PackageSource, SnapshotRequest};
use pinion_server::supervisor::{PackageSpec, StateKind};
use serde_json::Value;
use tempfile::TempDir;
use tower::ServiceExt;

use crate::worker::MARK;

pub(crate) struct Node {
    pub(crate) app: App,
    router: Router,
    _dir: TempDir,
}

/// What makes a node different from the usual one.
pub(crate) struct Setup {
    pub(crate) config: ServeConfig,
    /// Name and device of each package; the device tells the scripted worker how to load.
    pub(crate) packages: Vec<(&'static str, &'static str)>,
    pub(crate) max_in_flight: usize,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Default for Setup {
    fn default() -> Self {
        let config = ServeConfig {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            api_keys: Vec::new(),
            max_body_bytes: 64 * 1024,
            drain_timeout: Duration::from_secs(30),
            heartbeat: Duration::from_secs(30),
            node_name: "n1".to_owned(),
            on_disconnect: DisconnectPolicy::Linger,
            linger: Duration::from_secs(30),
            stream_ttl: Duration::from_mins(10),
            stream_memory_bytes: 1 << 20,
            journal: None,
            webhook_token: None,
            allow_private_webhooks: false,
        };
        Self { config, packages: vec![("tiny", "cpu")], max_in_flight: 8 }
    }
}

impl Setup {
    /// Starts the node without waiting for its packages.
    pub(crate) fn start(self) -> Node {
        let dir = TempDir::new().expect("a directory for the test");
        let program = worker_program(dir.path());
        let spec = |(name, device): (&str, &str)| PackageSpec {
            name: name.to_owned(),
            manifest: Manifest::parse("pinion:\n  backend: native\n").expect("a valid manifest"),
            load: load_request(device),
            snapshots: None,
            program: program.clone(),
            max_in_flight: self.max_in_flight,
            hang_timeout: Duration::from_secs(1),
            step_timeout: Duration::from_secs(10),
            render_timeout: Duration::from_secs(10),
        };
        let specs = self.packages.iter().copied().map(spec).collect();
        let app = App::start(self.config, specs).expect("the journal is free");
        Node { router: router(app.clone()), app, _dir: dir }
    }

    /// Starts the node and waits until it serves.
    pub(crate) async fn ready(self) -> Node {
        let node = self.start();
        for package in node.app.packages() {
            node.reaches(package.name(), StateKind::Ready).await;
        }
        node
    }
}

impl Node {
    /// The usual node, with one package named `tiny`.
    pub(crate) async fn ready() -> Self {
        Setup::default().ready().await
    }

    /// Waits for a package's state.
    pub(crate) async fn reaches(&self, package: &str, state: StateKind) {
        let package = self.app.package(Some(package)).expect("the package is served");
        let mut watch = package.watch_state();
        watch.wait_for(|now| now.kind() == state).await.expect("the package's task runs");
    }

    /// Sends a request and reads the head of the answer.
    pub(crate) async fn send(&self, request: Request<Body>) -> axum::response::Response {
        self.router.clone().oneshot(request).await.expect("the router answers everything")
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn ask(&self, request: Request<Body>) -> Answer {
        let (head, body) = self.send(request).await.into_parts();
        let body = body.collect().await.expect("bodies do not fail").to_bytes();
        let text = String::from_utf8(body.to_vec()).expect("answers are text");
        Answer { status: head.status, headers: head.headers, text }
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask(post(path, body)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(Request::get(path).body(Body::empty()).expect("a valid request")).await
    }

    /// Generations that the worker was asked to cancel.
    pub(crate) async fn cancelled(&self) -> u64 {
        let answer = self.post("/tokenize", serde_json::json!({"prompt": "cancelled"})).await;
        answer.json()["tokens"][0].as_u64().expect("a count")
    }
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The error of an answer in OpenAI's form: status, code and field.
    pub(crate) fn error(&self) -> (u16, String, Option<String>) {
        let error = &self.json()["error"];
        assert!(error["message"].is_string() && error["type"].is_string(), "{}", self.text);
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let code = text(&error["code"]).unwrap_or_default();
        (self.status.as_u16(), code, text(&error["param"]))
    }

    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    /// The data of each event of a stream.
    pub(crate) fn events(&self) -> Vec<Value> {
        let data = self.text.lines().filter_map(|line| line.strip_prefix("data: "));
        data.filter(|data| *data != "[DONE]")
            .map(|data| serde_json::from_str(data).expect("events are JSON"))
            .collect()
    }
}

/// A POST with a JSON body.
#[expect(clippy::needless_pass_by_value, reason = "callers build it in place")]
pub(crate) fn post(path: &str, body: Value) -> Request<Body> {
    let body = Body::from(body.to_string());
    let request = Request::post(path).header("content-type", "application/json");
    request.body(body).expect("a valid request")
}

/// A chat request with one message.
pub(crate) fn says(content: &str) -> Value {
    serde_json::json!({"messages": [{"role": "user", "content": content}], "seed": 7})
}

/// The test binary as a worker: the daemon gives its own argument, so a script stands between.
fn worker_program(dir: &Path) -> PathBuf {
    let tests = std::env::current_exe().expect("the test binary has a path");
    let script = format!(
        "#!/bin/sh\n{MARK}=1 exec '{}' --exact --nocapture {}\n",
        tests.display(),
        "worker::a_test_process_that_is_marked_serves_as_a_worker"
    );
    let path = dir.join("worker.sh");
    fs::write(&path, script).expect("the directory takes files");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is our file");
    path
}

fn load_request(device: &str) -> LoadRequest {
    LoadRequest {
        source: PackageSource::Starter,
        device: device.to_owned(),
        dtype: None,
        max_model_len: None,
        max_num_seqs: 4,
        max_num_batched_tokens: 512,
        max_waiting: 4,
        class_shares: [0; 4],
        kv_cache_bytes: None,
        kv_cache_dtype: None,
        threads: None,
        memory_headroom_bytes: 1 << 30,
        prefix_cache: true,
        speculative_tokens: 0,
        snapshot: SnapshotRequest::default(),
    }
}
