//! A prediction that runs, shared by the task that runs it and those that follow it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};
use pinion_cog_compat::prediction::{OutputShape, PredictionEvent, PredictionState, Refusal};
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Event streams that one prediction can have at once, as many as Cog allows.
const MAX_READERS: usize = 1024;

/// A prediction in flight. Its events are bounded by the tokens that it may generate.
#[derive(Debug)]
pub(super) struct Prediction {
    id: String,
    /// A mutex because one task writes, and readers and webhooks copy out of it.
    progress: Mutex<Progress>,
    /// Count of events; readers wait on it.
    changed: watch::Sender<usize>,
    cancelled: CancellationToken,
    /// Whether it goes on without readers.
    detached: bool,
    readers: AtomicUsize,
}

/// How far a prediction is.
#[derive(Debug)]
pub(super) struct Progress {
    /// What it has given so far.
    pub(super) state: PredictionState,
    /// What was streamed so far; the last one is `Completed`.
    pub(super) events: Vec<PredictionEvent>,
    /// Why it was turned away after all, before it ran.
    pub(super) refusal: Option<Refusal>,
}

impl Progress {
    /// Adds the event of a step that was taken.
    pub(super) fn push<E: std::fmt::Display>(&mut self, step: Result<PredictionEvent, E>) {
        match step {
            Ok(event) => self.events.push(event),
            Err(error) => tracing::error!(id = self.state.id(), "{error}"),
        }
    }
}

/// One that follows a prediction. When the last one of a prediction that is not detached leaves, it is cancelled.
#[derive(Debug)]
pub(super) struct Reader {
    prediction: Arc<Prediction>,
    changed: watch::Receiver<usize>,
    next: usize,
}

impl Prediction {
    /// A prediction that waits to run. `input` is what its caller gave.
    pub(super) fn new(
        id: &str,
        input: Map<String, Value>,
        shape: OutputShape,
        detached: bool,
    ) -> Arc<Self> {
        let state = PredictionState::new(id, Value::Object(input), shape);
        Arc::new(Self {
            id: id.to_owned(),
            progress: Mutex::new(Progress { state, events: Vec::new(), refusal: None }),
            changed: watch::Sender::new(0),
            cancelled: CancellationToken::new(),
            detached,
            readers: AtomicUsize::new(0),
        })
    }

    /// Its id.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// How far it is; held for the length of a copy.
    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock()
    }

    /// Takes steps, and tells those that follow.
    pub(super) fn advance(&self, steps: impl FnOnce(&mut Progress)) {
        let mut progress = self.progress.lock();
        steps(&mut progress);
        let count = progress.events.len();
        drop(progress);
        self.changed.send_replace(count);
    }

    /// Changes with every event.
    pub(super) fn watch(&self) -> watch::Receiver<usize> {
        self.changed.subscribe()
    }

    /// Asks for its end; it ends when the worker has let go of it.
    pub(super) fn cancel(&self) {
        self.cancelled.cancel();
    }

    /// Completes once its end is asked for.
    pub(super) async fn cancelled(&self) {
        self.cancelled.cancelled().await;
    }

    /// Follows it from its first event on; none if too many do.
    pub(super) fn read(self: &Arc<Self>) -> Option<Reader> {
        let reader = Reader { prediction: Arc::clone(self), changed: self.watch(), next: 0 };
        (self.readers.fetch_add(1, Ordering::AcqRel) < MAX_READERS).then_some(reader)
    }
}

impl Reader {
    /// The next events; none once it is over.
    pub(super) async fn next(&mut self) -> Vec<PredictionEvent> {
        loop {
            {
                let progress = self.prediction.progress();
                let new = progress.events.get(self.next..).unwrap_or_default().to_vec();
                self.next += new.len();
                if !new.is_empty() || progress.state.status().is_terminal() {
                    return new;
                }
            }
            if self.changed.changed().await.is_err() {
                return Vec::new();
            }
        }
    }

    /// Waits for its end, and answers as a synchronous request is answered.
    pub(super) async fn answer(&mut self) -> Result<Value, Refusal> {
        loop {
            {
                let progress = self.prediction.progress();
                if let Some(refusal) = progress.refusal {
                    return Err(refusal);
                }
                if progress.state.status().is_terminal() {
                    return Ok(progress.state.response());
                }
            }
            if self.changed.changed().await.is_err() {
                return Err(Refusal::StreamUnavailable);
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let last = self.prediction.readers.fetch_sub(1, Ordering::AcqRel) == 1;
        if last && !self.prediction.detached {
            self.prediction.cancel();
        }
    }
}
