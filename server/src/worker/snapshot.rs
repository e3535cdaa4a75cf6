//! The worker's part of snapshots: the canary, writing what was recorded, checking what is in use.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pinion_engine::{EngineHandle, FinishReason, Request, RequestId, StepOutput};
use pinion_loader::snapshot::{Canary, Origin, Recorded, Snapshot};
use pinion_loader::{LoadError, PackageTokenizer};
use rustix::process::{getpriority_process, setpriority_process};
use tokio::sync::mpsc::Receiver;

use super::{Outbox, package_error};
use crate::ipc::{FromWorker, LoadRequest, SnapshotNews, Verify, WorkerError};

/// Names the canary's request; the daemon's keys start at one.
const CANARY: RequestId = RequestId(0);
/// Alternatives whose probabilities the canary compares.
const ALTERNATIVES: usize = 4;
/// Least time between two progress messages.
const PROGRESS_EVERY: Duration = Duration::from_millis(50);
/// What threads of snapshots leave to those that serve.
const NICENESS: i32 = 10;

/// The snapshot that a package came from, or what one could be made of.
pub(super) struct Source {
    origin: Origin,
    canary: Canary,
}

/// What the worker can do about snapshots once it serves.
pub(super) struct Snapshots {
    outbox: Outbox,
    staging: Option<PathBuf>,
    verify: Verify,
    /// Taken by the thread that writes it.
    recorded: Mutex<Option<(Box<Recorded>, Canary)>>,
}

impl Source {
    /// Runs one step: a package that cannot compute is never called ready, and one from a snapshot only where it
    /// computes what it computed when the snapshot was made.
    pub(super) fn check(
        origin: Origin,
        engine: &EngineHandle,
        outputs: &mut Receiver<StepOutput>,
        tokenizer: &PackageTokenizer,
        kv_cache_dtype: &str,
    ) -> Result<Self, WorkerError> {
        let expected = match &origin {
            Origin::Warm(snapshot) => Some(&snapshot.manifest().canary),
            Origin::Cold(_) => None,
        };
        let vocab_size = tokenizer.vocab_size();
        let mut prompt =
            expected.map_or_else(|| Canary::prompt(vocab_size), |one| one.prompt.clone());
        // Room for the answer.
        prompt.truncate(engine.limits().max_model_len.saturating_sub(1).max(1));
        let mut canary =
            Canary { kv_cache_dtype: kv_cache_dtype.to_owned(), prompt, ..Canary::default() };
        run(engine, outputs, &mut canary)?;
        let mut ids = canary.prompt.clone();
        ids.extend_from_slice(&canary.tokens);
        canary.text = tokenizer.decode(&ids, false).unwrap_or_default();
        match expected.and_then(|expected| expected.difference(&canary)) {
            None => Ok(Self { origin, canary }),
            Some(what) => {
                let message = format!("snapshot gives other {what} than when it was made");
                Err(package_error("snapshot_canary", message, None))
            }
        }
    }
}

impl Snapshots {
    pub(super) fn new(outbox: Outbox, request: &LoadRequest) -> Self {
        let (staging, verify) = (request.snapshot.staging.clone(), request.snapshot.verify);
        Self { outbox, staging, verify, recorded: Mutex::default() }
    }

    /// Says what the package came from, once it serves.
    pub(super) fn announce(&self, source: Source) {
        match source.origin {
            Origin::Cold(None) => {}
            Origin::Cold(Some(recorded)) => {
                let (target, bytes) = (recorded.target().key(), recorded.weight_bytes());
                *self.recorded.lock() = Some((recorded, source.canary));
                self.send(SnapshotNews::Recorded { target, bytes });
            }
            Origin::Warm(snapshot) => {
                self.send(SnapshotNews::Restored { target: snapshot.manifest().target.key() });
                if self.verify == Verify::Background {
                    let outbox = self.outbox.clone();
                    self.spawn(move || verify(&snapshot, &outbox));
                }
            }
        }
    }

    /// Writes what was recorded, on a thread of its own.
    pub(super) fn write(&self, package: String) {
        let (Some((recorded, canary)), Some(staging)) =
            (self.recorded.lock().take(), self.staging.clone())
        else {
            let reason = "nothing was recorded".to_owned();
            return self.send(SnapshotNews::Failed { reason });
        };
        let outbox = self.outbox.clone();
        self.spawn(move || {
            let mut last = Instant::now();
            let mut progress = |done, total| {
                if PROGRESS_EVERY <= last.elapsed() {
                    last = Instant::now();
                    outbox.send(&FromWorker::Snapshot(SnapshotNews::Writing { done, total }));
                }
            };
            let written = recorded.write(&staging, &package, canary, &mut progress);
            outbox.send(&FromWorker::Snapshot(match written {
                Ok(bytes) => SnapshotNews::Written { bytes },
                Err(error) => SnapshotNews::Failed { reason: error.to_string() },
            }));
        });
    }

    /// Gives up what was recorded, and with it memory that the model does not share.
    pub(super) fn forget(&self) {
        *self.recorded.lock() = None;
    }

    fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        let run = move || {
            // Of this thread alone. A system that refuses lets it run like the others.
            if let Ok(nice) = getpriority_process(None) {
                let _ = setpriority_process(None, nice + NICENESS);
            }
            work();
        };
        if let Err(error) = thread::Builder::new().name("snapshot".to_owned()).spawn(run) {
            let reason = format!("no thread could be started: {error}");
            self.send(SnapshotNews::Failed { reason });
        }
    }

    fn send(&self, news: SnapshotNews) {
        self.outbox.send(&FromWorker::Snapshot(news));
    }
}

/// Tells why the snapshot that was there is not used.
pub(super) fn refused(outbox: &Outbox, target: String, reason: String) {
    outbox.send(&FromWorker::Snapshot(SnapshotNews::Refused { target, reason }));
}

/// The error of a load, for the daemon.
#[expect(clippy::needless_pass_by_value, reason = "shape of map_err")]
pub(super) fn load_error(error: LoadError) -> WorkerError {
    package_error(error.code(), error.to_string(), error.hint())
}

/// Compares every chunk with its sum while the package serves.
fn verify(snapshot: &Arc<Snapshot>, outbox: &Outbox) {
    let damage = (0..snapshot.num_chunks()).find_map(|at| snapshot.verify_chunk(at, false).err());
    let news = match damage {
        None => SnapshotNews::Verified,
        Some(error) => SnapshotNews::Damaged {
            target: snapshot.manifest().target.key(),
            reason: error.to_string(),
        },
    };
    outbox.send(&FromWorker::Snapshot(news));
}

/// Runs the canary's prompt and fills in its answer.
fn run(
    engine: &EngineHandle,
    outputs: &mut Receiver<StepOutput>,
    canary: &mut Canary,
) -> Result<(), WorkerError> {
    let failed = |message: String| package_error("warm_up_failed", message, None);
    let mut request = Request::greedy(CANARY, canary.prompt.clone(), 1);
    request.logprobs = Some(ALTERNATIVES);
    engine.submit(request).map_err(|e| failed(e.to_string()))?;
    while let Some(step) = outputs.blocking_recv() {
        for output in step.outputs {
            if let Some(token) = output.token {
                let best = token.top.iter();
                (canary.tokens, canary.logprob_bits) =
                    best.map(|one| (one.id, one.logprob.to_bits())).unzip();
            }
            match output.finish {
                Some(FinishReason::Error(error)) => {
                    return Err(failed(format!("the first step failed: {error}")));
                }
                Some(_) => return Ok(()),
                None => {}
            }
        }
    }
    Err(failed("the engine ended in its first step".to_owned()))
}
