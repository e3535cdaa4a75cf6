//! A whole node inside a command: HTTP on a loopback port that nobody else knows.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;

use super::client::Client;
use super::serve::unusable;
use super::{CliError, packages, terminal};
use crate::app::App;
use crate::config::Flags;
use crate::http;
use crate::ipc::ModelInfo;
use crate::supervisor::PackageState;

/// A node that serves one package.
pub(crate) struct Node {
    /// Everything that runs.
    pub(crate) app: App,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// What its package can do.
    pub(crate) info: Arc<ModelInfo>,
}

impl Node {
    /// Starts it on `listener` and waits until its package is ready.
    pub(crate) async fn start(
        name: Option<&str>,
        flags: &Flags,
        listener: TcpListener,
    ) -> Result<Self, CliError> {
        let address = listener.local_addr().map_err(|e| CliError::failed(e.to_string()))?;
        let resolved = super::serve::resolve(flags, None)?;
        let mut config = super::serve::typed(&resolved)?;
        config.serve.listen = address;
        // What ends with its command need not survive it, unless somebody says so.
        config.serve.journal = config.serve.journal.filter(|_| resolved.is_given("stream-dir"));
        let specs = vec![packages::specify(name, &config.worker)?];
        let app = App::start(config.serve, specs).map_err(unusable)?;
        app.spawn(http::serve(app.clone(), listener));
        let [package] = app.packages() else {
            return Err(CliError::failed("the node has not one package"));
        };
        app.spawn(terminal::show_loading(package.clone()));
        let mut states = package.watch_state();
        loop {
            let state = states.borrow_and_update().clone();
            match (state, package.info()) {
                (PackageState::Ready, Some(info)) => return Ok(Self { app, address, info }),
                (PackageState::Failed(error), _) => {
                    return Err(CliError::failed(format!("{}: {error}", package.name())));
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

    /// Name that clients use as `model`.
    pub(crate) fn model(&self) -> &str {
        self.app.packages().first().map_or("", |package| package.name())
    }

    /// A client of it.
    pub(crate) fn client(&self) -> Result<Client, CliError> {
        let key = self.app.config().api_keys.first().cloned();
        Client::new(&format!("http://{}", self.address), key)
    }

    /// Ends it, with whatever runs.
    pub(crate) async fn stop(&self) {
        self.app.drain().await;
    }
}
