//! What every route and task shares: packages, configuration, shutdown.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::ServeConfig;
use crate::error::ApiError;
use crate::journal::Journal;
pub use crate::journal::JournalError;
use crate::stream::{self, StreamLimits, StreamStore};
use crate::supervisor::{Package, PackageSpec};
use crate::telemetry::HttpMetrics;

const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// The node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct App(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: ServeConfig,
    packages: Vec<Package>,
    http_metrics: HttpMetrics,
    streams: StreamStore,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl App {
    /// Starts the packages, behind what an earlier node left in the journal, if there is one. Call
    /// it on a runtime.
    ///
    /// # Errors
    /// When the journal cannot be used, or another node uses it.
    pub fn start(config: ServeConfig, specs: Vec<PackageSpec>) -> Result<Self, JournalError> {
        let opened = config.journal.as_ref().map(Journal::open).transpose()?;
        let (journal, restored) = opened.unzip();
        let streams = StreamStore::new(stream_limits(&config), journal);
        let unfinished = stream::restore(&streams, restored.unwrap_or_default());
        let tasks = TaskTracker::new();
        let packages = specs
            .into_iter()
            .map(|spec| {
                let (package, task) = Package::start(spec);
                tasks.spawn(task);
                package
            })
            .collect();
        let app = Self::of(config, packages, tasks, streams);
        stream::go_on(&app, unfinished);
        Ok(app)
    }

    /// A node of packages that run already; their tasks are in `tasks`.
    #[cfg(test)]
    pub(crate) fn new(config: ServeConfig, packages: Vec<Package>, tasks: TaskTracker) -> Self {
        let streams = StreamStore::new(stream_limits(&config), None);
        Self::of(config, packages, tasks, streams)
    }

    fn of(
        config: ServeConfig,
        packages: Vec<Package>,
        tasks: TaskTracker,
        streams: StreamStore,
    ) -> Self {
        let (http_metrics, stopping) = (HttpMetrics::default(), CancellationToken::new());
        let app =
            Self(Arc::new(Inner { config, packages, http_metrics, streams, tasks, stopping }));
        app.spawn(sweep(app.clone()));
        app
    }

    /// Inferences that can be found again.
    pub(crate) fn streams(&self) -> &StreamStore {
        &self.0.streams
    }

    /// The resolved configuration of the daemon.
    pub fn config(&self) -> &ServeConfig {
        &self.0.config
    }

    /// Counts of HTTP answers.
    pub fn http_metrics(&self) -> &HttpMetrics {
        &self.0.http_metrics
    }

    /// Packages, in the order in which they were named.
    pub fn packages(&self) -> &[Package] {
        &self.0.packages
    }

    /// The package that a request names; the only one where it names none.
    pub fn package(&self, model: Option<&str>) -> Result<&Package, ApiError> {
        let packages = self.packages();
        match (model, packages) {
            (None | Some(""), [only]) => return Ok(only),
            (None | Some(""), _) => {
                return Err(
                    ApiError::invalid("missing_model", "the request names no model").at("model")
                );
            }
            (Some(_), _) => {}
        }
        let name = model.unwrap_or_default();
        packages.iter().find(|package| package.name() == name).ok_or_else(|| {
            let served: Vec<&str> = packages.iter().map(Package::name).collect();
            let message =
                format!("the model is not served here: {name}; served: {}", served.join(", "));
            ApiError::invalid("model_not_found", message).at("model")
        })
    }

    /// Runs a task that shutdown waits for.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.tasks.spawn(task);
    }

    /// Cancelled when the node begins to stop.
    pub fn stopping(&self) -> &CancellationToken {
        &self.0.stopping
    }

    /// Refuses new work, lets running work end, and returns when every task has.
    pub async fn drain(&self) {
        self.0.stopping.cancel();
        self.packages().iter().for_each(Package::drain);
        self.0.tasks.close();
        self.0.tasks.wait().await;
        self.close_journal();
    }

    /// Writes what is on its way to the disk. What comes after it is not known to the next node.
    pub(crate) fn close_journal(&self) {
        if let Some(journal) = self.0.streams.journal() {
            journal.close();
        }
    }
}

fn stream_limits(config: &ServeConfig) -> StreamLimits {
    StreamLimits { ttl: config.stream_ttl, bytes: config.stream_memory_bytes }
}

/// Forgets old streams as long as the node serves.
async fn sweep(app: App) {
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = app.stopping().cancelled() => return,
            now = ticks.tick() => app.streams().sweep(now),
        }
    }
}
