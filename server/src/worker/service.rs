//! What the reading thread may ask of the others, without ever waiting.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::Mutex;
use pinion_engine::{EngineHandle, RequestId};

use super::Outbox;
use super::load::Loaded;
use super::output::Active;
use super::prepare::{Job, Preparer, Preparers};
use super::snapshot::Snapshots;
use crate::ipc::{
    ErrorKind, Event, FinishReason, FromWorker, LoadRequest, RequestKey, Stats, Submit,
    TokenizeInput, Usage, WorkerError,
};

/// The parts of a worker that exist once its package is loaded.
struct Serving {
    engine: EngineHandle,
    preparers: Preparers,
}

/// A sequence between its submission and its final event.
pub(super) enum Sequence {
    /// Its prompt is rendered or tokenized.
    Preparing,
    /// Cancelled before it reached the engine.
    Cancelled,
    /// The engine has it.
    Active(Box<Active>),
}

/// All sequences of the worker. A mutex, because the reader, the preparers and the output thread
/// each move sequences on; held for map operations, and by the output thread for a step.
pub(super) type Sequences = Arc<Mutex<HashMap<RequestKey, Sequence>>>;

pub(super) struct Service {
    outbox: Outbox,
    sequences: Sequences,
    serving: OnceLock<Serving>,
    snapshots: Snapshots,
    /// Steps of the engine when they last changed, and when that was.
    progress: Mutex<(u64, Instant)>,
}

impl Service {
    pub(super) fn new(outbox: Outbox, request: &LoadRequest) -> Self {
        let progress = Mutex::new((0, Instant::now()));
        let snapshots = Snapshots::new(outbox.clone(), request);
        let (sequences, serving) = (Sequences::default(), OnceLock::new());
        Self { outbox, sequences, serving, snapshots, progress }
    }

    /// Starts the threads of a loaded package and says that it is ready.
    pub(super) fn begin(&self, loaded: Loaded, request: &LoadRequest) {
        let Loaded { engine, prompts, info, outputs, headroom_from, source } = loaded;
        let preparers = Preparers::start(&Preparer {
            prompts: Arc::new(prompts),
            engine: engine.clone(),
            sequences: Arc::clone(&self.sequences),
            outbox: self.outbox.clone(),
        });
        let spawned = super::output::start(
            outputs,
            engine.clone(),
            Arc::clone(&self.sequences),
            self.outbox.clone(),
        );
        match (preparers, spawned) {
            (Ok(preparers), Ok(())) => {
                if let Some(used) = headroom_from {
                    super::sandbox::limit_memory(used, request.memory_headroom_bytes);
                }
                // `begin` is called once.
                let _ = self.serving.set(Serving { engine, preparers });
                self.outbox.send(&FromWorker::Ready(Box::new(info)));
                self.snapshots.announce(source);
            }
            (Err(error), _) | (_, Err(error)) => {
                let message = format!("a thread could not be started: {error}");
                self.outbox.send(&FromWorker::LoadFailed(WorkerError {
                    kind: ErrorKind::Internal,
                    code: "no_threads".to_owned(),
                    message,
                    hint: None,
                    param: None,
                }));
            }
        }
    }

    /// Writes a snapshot of what was loaded, or forgets what was kept for it.
    pub(super) fn write_snapshot(&self, package: Option<String>) {
        match package {
            Some(package) => self.snapshots.write(package),
            None => self.snapshots.forget(),
        }
    }

    pub(super) fn submit(&self, submit: Submit) {
        let Some(serving) = self.serving.get() else {
            return submit.keys().for_each(|key| self.fail(key, loading()));
        };
        self.sequences.lock().extend(submit.keys().map(|key| (key, Sequence::Preparing)));
        serving.preparers.push(Job::Generate(Box::new(submit), Instant::now()));
    }

    pub(super) fn cancel(&self, key: RequestKey) {
        let mut sequences = self.sequences.lock();
        match sequences.get_mut(&key) {
            Some(Sequence::Active(_)) => {
                drop(sequences);
                if let Some(serving) = self.serving.get() {
                    serving.engine.abort(RequestId(key));
                }
            }
            Some(preparing @ Sequence::Preparing) => *preparing = Sequence::Cancelled,
            Some(Sequence::Cancelled) | None => {}
        }
    }

    pub(super) fn tokenize(&self, key: RequestKey, input: TokenizeInput) {
        match self.serving.get() {
            Some(serving) => serving.preparers.push(Job::Tokenize(key, input)),
            None => self.outbox.send(&FromWorker::Tokens { key, result: Err(loading()) }),
        }
    }

    /// Milliseconds that the engine has spent without finishing a step although it has work, and
    /// that the oldest preparation has run.
    pub(super) fn busy_millis(&self) -> (u64, u64) {
        let Some(serving) = self.serving.get() else { return (0, 0) };
        let has_work = self.sequences.lock().values().any(|one| matches!(one, Sequence::Active(_)));
        let stats = serving.engine.stats();
        let mut progress = self.progress.lock();
        if !has_work || progress.0 != stats.steps {
            *progress = (stats.steps, Instant::now());
        }
        (progress.1.elapsed().as_millis() as u64, serving.preparers.oldest_millis())
    }

    fn fail(&self, key: RequestKey, error: WorkerError) {
        send_event(&self.outbox, key, Event::Failed(error), Stats::default());
    }
}

/// Sends one event outside a step.
pub(super) fn send_event(outbox: &Outbox, key: RequestKey, event: Event, stats: Stats) {
    outbox.send(&FromWorker::Step { events: vec![(key, event)], stats });
}

/// The final event of a sequence that was cancelled before it ran.
pub(super) fn cancelled() -> Event {
    Event::Finished { reason: FinishReason::Cancelled, usage: Usage::default() }
}

fn loading() -> WorkerError {
    WorkerError {
        kind: ErrorKind::Overloaded,
        code: "model_loading".to_owned(),
        message: "the package is still loading".to_owned(),
        hint: None,
        param: None,
    }
}
