//! The handle that routes hold: submit, cancel, ask.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use pinion_cog_compat::manifest::Manifest;
use tokio::sync::{mpsc, oneshot, watch};

use super::generation::Generation;
use super::snapshots::{SnapshotPolicy, SnapshotState};
use super::state::PackageState;
use super::tracked::Sink;
use crate::error::ApiError;
use crate::ipc::{
    GenerationParams, LoadRequest, ModelInfo, Prompt, RequestKey, Resume, Stats, Submit,
    TokenizeInput, Tokenized,
};
use crate::stream::{Progress, StreamBuffer};
use crate::telemetry::PackageMetrics;

/// What a package is and how its worker is run.
#[derive(Clone, Debug)]
pub struct PackageSpec {
    /// Name that clients use as `model`.
    pub name: String,
    /// The parsed `cog.yaml`.
    pub manifest: Manifest,
    /// What the worker loads, and its limits.
    pub load: LoadRequest,
    /// Where its snapshots are; none has none.
    pub snapshots: Option<SnapshotPolicy>,
    /// The `pinion` binary.
    pub program: PathBuf,
    /// Generations that may be in flight, running and waiting.
    pub max_in_flight: usize,
    /// Silence after which a worker is killed.
    pub hang_timeout: Duration,
    /// Time that one step of the engine may take.
    pub step_timeout: Duration,
    /// Time that one template rendering or tokenization may take.
    pub render_timeout: Duration,
}

/// A package and the way to its worker. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Package(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    spec: PackageSpec,
    state: watch::Receiver<PackageState>,
    info: watch::Receiver<Option<Arc<ModelInfo>>>,
    stats: watch::Receiver<Stats>,
    snapshot: watch::Receiver<SnapshotState>,
    metrics: Arc<PackageMetrics>,
    commands: mpsc::UnboundedSender<Command>,
    next_key: AtomicU64,
    in_flight: Arc<AtomicUsize>,
    created: i64,
}

/// What routes ask of the package's task. The queue behind it is bounded by `max_in_flight`.
#[derive(Debug)]
pub(super) enum Command {
    /// Run this and append the events of each answer there, in the order of their names.
    Submit(Box<Submit>, Vec<Sink>),
    /// Stop this.
    Cancel(RequestKey),
    /// Tokenize and answer.
    Tokenize(TokenizeInput, oneshot::Sender<Result<Tokenized, ApiError>>),
    /// Finish what runs, take nothing new, end.
    Drain,
}

/// The publishing side of a package's watches; its task holds it.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) state: watch::Sender<PackageState>,
    pub(super) info: watch::Sender<Option<Arc<ModelInfo>>>,
    pub(super) stats: watch::Sender<Stats>,
    pub(super) snapshot: watch::Sender<SnapshotState>,
    pub(super) metrics: Arc<PackageMetrics>,
}

/// A generation that an earlier node began.
#[derive(Debug)]
pub(crate) struct Resumption {
    /// Which choice of its log.
    pub(crate) choice: usize,
    /// What is continued.
    pub(crate) prompt: Prompt,
    /// How, with the seed of the choice.
    pub(crate) params: GenerationParams,
    /// How far it is.
    pub(crate) progress: Progress,
    /// The tokens that were delivered.
    pub(crate) token_ids: Vec<u32>,
}

/// One place in the count of generations in flight.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<AtomicUsize>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Package {
    /// Starts the package's task, and with it the worker. The future is the task; its owner spawns
    /// it and waits for it at shutdown.
    pub fn start(spec: PackageSpec) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (package, inbox, published) = Self::new(spec.clone());
        (package, super::task::run(spec, inbox, published))
    }

    /// A package without a task: its commands, and what it publishes, are the caller's.
    pub(super) fn new(spec: PackageSpec) -> (Self, mpsc::UnboundedReceiver<Command>, Published) {
        let first =
            PackageState::Loading { stage: crate::ipc::LoadStage::Inspecting, done: 0, total: 0 };
        let (state, state_read) = watch::channel(first);
        let (info, info_read) = watch::channel(None);
        let (stats, stats_read) = watch::channel(Stats::default());
        let (snapshot, snapshot_read) = watch::channel(SnapshotState::default());
        let (commands, inbox) = mpsc::unbounded_channel();
        let metrics = Arc::<PackageMetrics>::default();
        let published = Published { state, info, stats, snapshot, metrics: Arc::clone(&metrics) };
        let package = Self(Arc::new(Inner {
            spec,
            state: state_read,
            info: info_read,
            stats: stats_read,
            snapshot: snapshot_read,
            metrics,
            commands,
            next_key: AtomicU64::new(1),
            in_flight: Arc::default(),
            created: jiff::Timestamp::now().as_second(),
        }));
        (package, inbox, published)
    }

    /// Name that clients use as `model`.
    pub fn name(&self) -> &str {
        &self.0.spec.name
    }

    /// The parsed `cog.yaml`.
    pub fn manifest(&self) -> &Manifest {
        &self.0.spec.manifest
    }

    /// Unix seconds of the package's start on this node.
    pub fn created(&self) -> i64 {
        self.0.created
    }

    /// Where it is in its life.
    pub fn state(&self) -> PackageState {
        self.0.state.borrow().clone()
    }

    /// Waits for the state to change.
    pub fn watch_state(&self) -> watch::Receiver<PackageState> {
        self.0.state.clone()
    }

    /// What it can do; none before it was first ready.
    pub fn info(&self) -> Option<Arc<ModelInfo>> {
        self.0.info.borrow().clone()
    }

    /// The engine's counters after the last step.
    pub fn stats(&self) -> Stats {
        *self.0.stats.borrow()
    }

    /// Waits for what becomes of its snapshot.
    pub fn watch_snapshot(&self) -> watch::Receiver<SnapshotState> {
        self.0.snapshot.clone()
    }

    /// What was measured since the daemon started.
    pub fn metrics(&self) -> &PackageMetrics {
        &self.0.metrics
    }

    /// Generations in flight, running and waiting.
    pub fn in_flight(&self) -> usize {
        self.0.in_flight.load(Ordering::Relaxed)
    }

    /// Generations that may be in flight.
    pub fn max_in_flight(&self) -> usize {
        self.0.spec.max_in_flight
    }

    /// Sequences that run at once, for capacity answers.
    pub fn max_num_seqs(&self) -> u32 {
        self.0.spec.load.max_num_seqs
    }

    /// Submits a generation with a log of its own, or says at once why not.
    pub fn generate(
        &self,
        prompt: Prompt,
        params: GenerationParams,
    ) -> Result<Generation, ApiError> {
        let (buffer, places) = (StreamBuffer::new(1), self.admit(1)?);
        let (submission, now) = ((prompt, params, Vec::new()), jiff::Timestamp::now().as_second());
        let mut generations = self.generate_all(&buffer, places, vec![submission], now)?;
        Ok(generations.remove(0))
    }

    /// Takes places for so many generations, or says at once why not.
    pub(crate) fn admit(&self, count: usize) -> Result<Vec<InFlight>, ApiError> {
        if let Some(refusal) = self.0.state.borrow().refusal(self.name()) {
            return Err(refusal);
        }
        (0..count).map(|_| self.place()).collect()
    }

    /// Submits a generation for each choice of a log, which has a place for each. Those that
    /// continue one prompt share its work; the first one's seed is in the parameters, those of the
    /// others beside them. The time is that which templates are told.
    pub(crate) fn generate_all(
        &self,
        buffer: &Arc<StreamBuffer>,
        places: Vec<InFlight>,
        submissions: Vec<(Prompt, GenerationParams, Vec<u64>)>,
        unix_seconds: i64,
    ) -> Result<Vec<Generation>, ApiError> {
        let mut generations = Vec::with_capacity(places.len());
        let sink = |(choice, place)| Sink::new(Arc::clone(buffer), choice, place);
        let mut sinks = places.into_iter().enumerate().map(sink);
        for (prompt, params, seeds) in submissions {
            let sinks: Vec<Sink> = sinks.by_ref().take(1 + seeds.len()).collect();
            let (key, resume) = (self.keys(sinks.len()), None);
            let choices = (key + 1..).zip(seeds).collect();
            let submit = Submit { key, prompt, params, unix_seconds, resume, choices };
            generations.extend(self.submit(submit, sinks)?);
        }
        Ok(generations)
    }

    /// Goes on with generations of a log that an earlier node began, whatever runs already.
    pub(crate) fn resume_all(
        &self,
        buffer: &Arc<StreamBuffer>,
        resumptions: Vec<Resumption>,
        unix_seconds: i64,
    ) -> Result<Vec<Generation>, ApiError> {
        let mut generations = Vec::with_capacity(resumptions.len());
        for one in resumptions {
            let Resumption { choice, prompt, params, progress, token_ids } = one;
            self.0.in_flight.fetch_add(1, Ordering::Relaxed);
            let place = InFlight(Arc::clone(&self.0.in_flight));
            let mut sink = Sink::new(Arc::clone(buffer), choice, place);
            sink.progress = progress;
            let cached_tokens = progress.usage.cached_tokens;
            let resume = progress.has_text.then_some(Resume { token_ids, cached_tokens });
            let (key, choices) = (self.keys(1), Vec::new());
            let submit = Submit { key, prompt, params, unix_seconds, resume, choices };
            generations.extend(self.submit(submit, vec![sink])?);
            self.0.metrics.resumed();
        }
        Ok(generations)
    }

    fn keys(&self, count: usize) -> RequestKey {
        self.0.next_key.fetch_add(count as u64, Ordering::Relaxed)
    }

    fn submit(&self, submit: Submit, sinks: Vec<Sink>) -> Result<Vec<Generation>, ApiError> {
        let (inner, submit) = (&*self.0, Box::new(submit));
        let generation = |(key, sink): (RequestKey, &Sink)| {
            let (choice, buffer) = (sink.choice, Arc::clone(&sink.buffer));
            Generation { key, choice, buffer, commands: inner.commands.clone() }
        };
        let generations = submit.keys().zip(&sinks).map(generation).collect();
        match inner.commands.send(Command::Submit(submit, sinks)) {
            Ok(()) => Ok(generations),
            Err(_closed) => Err(gone(self.name())),
        }
    }

    /// Tokenizes or detokenizes as generation would.
    pub async fn tokenize(&self, input: TokenizeInput) -> Result<Tokenized, ApiError> {
        if let Some(refusal) = self.state().refusal(self.name()) {
            return Err(refusal);
        }
        let _in_flight = self.place()?;
        let (answer, wait) = oneshot::channel();
        self.0
            .commands
            .send(Command::Tokenize(input, answer))
            .map_err(|_closed| gone(self.name()))?;
        wait.await.unwrap_or_else(|_closed| Err(gone(self.name())))
    }

    /// Finishes what runs and takes nothing new.
    pub fn drain(&self) {
        // A closed channel means that the package is gone already.
        let _ = self.0.commands.send(Command::Drain);
    }

    fn place(&self) -> Result<InFlight, ApiError> {
        let inner = &*self.0;
        let place = InFlight(Arc::clone(&inner.in_flight));
        if inner.spec.max_in_flight <= inner.in_flight.fetch_add(1, Ordering::Relaxed) {
            let message = format!(
                "the queue of the package is full: {}: {} requests",
                inner.spec.name, inner.spec.max_in_flight
            );
            return Err(ApiError::later("queue_full", message, Duration::from_secs(1)));
        }
        Ok(place)
    }
}

fn gone(name: &str) -> ApiError {
    ApiError::node("draining", format!("the package is no longer served: {name}"))
}
