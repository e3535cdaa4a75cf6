//! A package whose worker is the test.

use std::time::Duration;

use parking_lot::Mutex;
use pinion_cog_compat::Manifest;
use tokio::sync::mpsc;

use super::package::{Command, Package, PackageSpec, Published};
use super::state::PackageState;
use super::tracked::Sink;
use crate::error::ApiError;
use crate::ipc::{Event, LoadRequest, PackageSource, RequestKey, SnapshotRequest, Submit};

/// What the package asks of its worker.
#[derive(Debug)]
pub(crate) enum Heard {
    /// Generate.
    Submit(Box<Job>),
    /// Stop.
    Cancel(RequestKey),
    /// Take nothing new.
    Drain,
}

/// A generation, as its worker sees it.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) submit: Submit,
    sink: Mutex<Sink>,
}

/// The worker's side.
#[derive(Debug)]
pub(crate) struct Script {
    commands: mpsc::UnboundedReceiver<Command>,
    published: Published,
}

/// A package that is ready, and its worker's side.
pub(crate) fn scripted(name: &str, cog_yaml: &str, max_in_flight: usize) -> (Package, Script) {
    let load = LoadRequest {
        source: PackageSource::Starter,
        device: "cpu".to_owned(),
        dtype: None,
        max_model_len: None,
        max_num_seqs: 1,
        max_num_batched_tokens: 1,
        max_waiting: 0,
        class_shares: [0; 4],
        kv_cache_bytes: None,
        kv_cache_dtype: None,
        threads: None,
        memory_headroom_bytes: 0,
        prefix_cache: false,
        speculative_tokens: 0,
        snapshot: SnapshotRequest::default(),
    };
    let second = Duration::from_secs(1);
    let (package, commands, published) = Package::new(PackageSpec {
        name: name.to_owned(),
        manifest: Manifest::parse(cog_yaml).expect("the manifest of a test"),
        load,
        snapshots: None,
        program: "none".into(),
        max_in_flight,
        hang_timeout: second,
        step_timeout: second,
        render_timeout: second,
    });
    let script = Script { commands, published };
    script.enter(PackageState::Ready);
    (package, script)
}

impl Script {
    /// Puts the package into a state.
    pub(crate) fn enter(&self, state: PackageState) {
        self.published.state.send_replace(state);
    }

    /// The next thing that is asked.
    pub(crate) async fn hear(&mut self) -> Heard {
        match self.commands.recv().await.expect("the package is there") {
            Command::Submit(submit, mut sinks) => {
                let sink = Mutex::new(sinks.remove(0));
                Heard::Submit(Box::new(Job { submit: *submit, sink }))
            }
            Command::Cancel(key) => Heard::Cancel(key),
            Command::Drain => Heard::Drain,
            Command::Tokenize(_, answer) => {
                let none = ApiError::node("not_scripted", "the script does not tokenize");
                let _ = answer.send(Err(none));
                Box::pin(self.hear()).await
            }
        }
    }

    /// The next generation; panics if something else is asked.
    pub(crate) async fn job(&mut self) -> Job {
        match self.hear().await {
            Heard::Submit(job) => *job,
            other => panic!("expected a generation: {other:?}"),
        }
    }

    /// Whether nothing is asked now.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.commands.is_empty()
    }
}

impl Job {
    /// Tells of events.
    pub(crate) fn say(&self, events: impl IntoIterator<Item = Event>) {
        let mut sink = self.sink.lock();
        events.into_iter().for_each(|event| sink.append(&event));
    }
}
