//! A real node in a process of its own, and packages to give it.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

/// Far longer than anything takes; only a test that would hang meets it.
const DEADLINE: Duration = Duration::from_mins(1);

/// `pinion serve` on a free loopback port. Dropping it kills it.
pub(crate) struct Node {
    child: Child,
    pub(crate) url: String,
    lines: Receiver<String>,
    http: reqwest::Client,
    /// Of its streams.
    _directory: tempfile::TempDir,
}

impl Node {
    /// Starts it and waits until it listens.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = pinion(&["serve", "--listen", "127.0.0.1:0"]);
        if !arguments.contains(&"--stream-dir") {
            command.arg("--stream-dir").arg(directory.path());
        }
        let mut child = command.args(arguments).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        // The provider is set once for all tests of the process.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (http, url) = (reqwest::Client::new(), String::new());
        let mut node = Self { child, url, lines, http, _directory: directory };
        let line = node.line_with("listening on ");
        line.rsplit(' ').next().unwrap().clone_into(&mut node.url);
        node
    }

    /// Starts it and waits until all its packages are ready.
    pub(crate) async fn ready(arguments: &[&str]) -> Self {
        let node = Self::start(arguments);
        node.until_ready().await;
        node
    }

    /// The next line of its log that holds `text`.
    pub(crate) fn line_with(&self, text: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(DEADLINE).expect("the node said what it should");
            if line.contains(text) {
                return line;
            }
        }
    }

    pub(crate) async fn until_ready(&self) {
        self.until("ready", async || self.get("/readyz").await.0 == StatusCode::OK).await;
    }

    /// Asks again until it holds; the deadline is for a node that never gets there.
    pub(crate) async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let start = Instant::now();
        while !holds().await {
            assert!(start.elapsed() < DEADLINE, "the node is not {what}");
            tokio::task::yield_now().await;
        }
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        read(self.http.get(format!("{}{path}", self.url)).send().await.unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        read(self.open(path, body).await).await
    }

    /// Sends a request and leaves the body to be read.
    pub(crate) async fn open(&self, path: &str, body: &Value) -> Response {
        self.http.post(format!("{}{path}", self.url)).json(body).send().await.unwrap()
    }

    pub(crate) async fn chat(&self, model: &str, question: &str) -> (StatusCode, Value) {
        self.post("/v1/chat/completions", &chat_body(model, question)).await
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ids of its worker processes.
    pub(crate) fn workers(&self) -> HashSet<u32> {
        let id = self.child.id();
        let tasks = fs::read_dir(format!("/proc/{id}/task")).unwrap();
        let children =
            tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok());
        let ids: Vec<String> = children.collect();
        ids.iter().flat_map(|ids| ids.split_whitespace()).map(|id| id.parse().unwrap()).collect()
    }

    /// Its only worker.
    pub(crate) fn worker(&self) -> u32 {
        let workers = self.workers();
        assert_eq!(workers.len(), 1, "{workers:?}");
        workers.into_iter().next().unwrap()
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program under test, in an environment without settings.
pub(crate) fn pinion(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pinion"));
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PINION_") {
            command.env_remove(name);
        }
    }
    // Nothing is left in the data directory of whoever runs the tests.
    command.env("PINION_SNAPSHOTS", "off");
    command
}

pub(crate) fn signal(process: u32, name: &str) {
    let sent = Command::new("kill").args([format!("-{name}"), process.to_string()]).status();
    assert!(sent.unwrap().success());
}

pub(crate) fn chat_body(model: &str, question: &str) -> Value {
    json!({
        "model": model, "temperature": 0, "max_tokens": 400,
        "messages": [{ "role": "user", "content": question }],
    })
}

async fn read(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// The starter's files in a directory of the test's own, to be damaged.
pub(crate) struct Package {
    directory: tempfile::TempDir,
}

impl Package {
    pub(crate) fn starter() -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../starter/pinion-tiny");
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("mine");
        fs::create_dir_all(target.join("weights")).unwrap();
        fs::copy(source.join("cog.yaml"), target.join("cog.yaml")).unwrap();
        for file in fs::read_dir(source.join("weights")).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), target.join("weights").join(file.file_name())).unwrap();
        }
        Self { directory }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("mine")
    }

    pub(crate) fn name(&self) -> String {
        self.path().to_str().unwrap().to_owned()
    }

    pub(crate) fn write(&self, file: &str, content: impl AsRef<[u8]>) -> &Self {
        fs::write(self.path().join(file), content).unwrap();
        self
    }

    pub(crate) fn read(&self, file: &str) -> Vec<u8> {
        fs::read(self.path().join(file)).unwrap()
    }

    pub(crate) fn remove(&self, file: &str) -> &Self {
        fs::remove_file(self.path().join(file)).unwrap();
        self
    }

    /// Changes a JSON file of the package.
    pub(crate) fn edit(&self, file: &str, change: impl FnOnce(&mut Value)) -> &Self {
        let mut value = serde_json::from_slice(&self.read(file)).unwrap();
        change(&mut value);
        self.write(file, value.to_string())
    }

    pub(crate) fn template(&self, template: &str) -> &Self {
        self.edit("weights/tokenizer_config.json", |config| {
            config["chat_template"] = template.into();
        })
    }
}
