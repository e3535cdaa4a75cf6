//! A package run by a command itself, without HTTP.

use super::{CliError, packages, terminal};
use crate::config::{Flags, WorkerConfig};
use crate::ipc::ModelInfo;
use crate::supervisor::{Package, PackageState};

/// A package that is ready, and its task.
pub(crate) struct Local {
    /// The package.
    pub(crate) package: Package,
    /// What it can do.
    pub(crate) info: std::sync::Arc<ModelInfo>,
    tasks: tokio::task::JoinSet<()>,
}

impl Local {
    /// Starts the package and waits until it is ready, or says why it is not.
    pub(crate) async fn start(name: Option<&str>, flags: &Flags) -> Result<Self, CliError> {
        let mut config = super::serve::typed(&super::serve::resolve(flags, None)?)?.worker;
        // A command is over before a snapshot is written.
        config.snapshots.write = false;
        Self::start_with(name, &config).await
    }

    /// The same, with a resolved configuration.
    pub(crate) async fn start_with(
        name: Option<&str>,
        config: &WorkerConfig,
    ) -> Result<Self, CliError> {
        let (package, task) = Package::start(packages::specify(name, config)?);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(task);
        tasks.spawn(terminal::show_loading(package.clone()));
        let mut states = package.watch_state();
        loop {
            let state = states.borrow_and_update().clone();
            match (state, package.info()) {
                (PackageState::Ready, Some(info)) => return Ok(Self { package, info, tasks }),
                (PackageState::Failed(error), _) => {
                    return Err(CliError::failed(format!("{}: {error}", package.name())));
                }
                (PackageState::Restarting { reason, .. }, _) => {
                    terminal::note(format!("{}: the worker died: {reason}", package.name()));
                }
                _ => {}
            }
            if states.changed().await.is_err() {
                return Err(CliError::failed(format!(
                    "{}: it ended while loading",
                    package.name()
                )));
            }
        }
    }

    /// Ends the worker.
    pub(crate) async fn stop(mut self) {
        self.package.drain();
        while self.tasks.join_next().await.is_some() {}
    }
}
