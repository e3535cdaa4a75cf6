//! `pinion serve`: listen, run the packages, drain on Ctrl-C.

use std::path::PathBuf;
use std::process::ExitCode;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::{CliError, packages, terminal};
use crate::app::{App, JournalError};
use crate::config::{self, Config, Flags, Resolved};
use crate::http;
use crate::supervisor::{Package, PackageState, SnapshotState, StateKind};

/// Serves packages over HTTP; the built-in pinion-tiny if none is named.
///
/// Example: `pinion serve ./my-model --listen 127.0.0.1:9000`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Package directories, each with a cog.yaml.
    packages: Vec<String>,
    /// Configuration file [default: pinion.toml, if there is one].
    #[arg(long, env = "PINION_CONFIG")]
    config: Option<PathBuf>,
    /// Print every setting, its value and where it came from, and exit.
    #[arg(long)]
    print_config: bool,
    /// Print results as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: Flags,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let resolved = resolve(&args.flags, args.config.clone())?;
    if args.print_config {
        print_config(&resolved, args.json);
        return Ok(ExitCode::SUCCESS);
    }
    let config = typed(&resolved)?;
    runtime()?.block_on(serve(args, config))
}

/// Resolves flags, environment and file.
pub(crate) fn resolve(flags: &Flags, file: Option<PathBuf>) -> Result<Resolved, CliError> {
    let default = PathBuf::from("pinion.toml");
    let file = file.or_else(|| default.is_file().then_some(default));
    config::resolve(flags, &config::env_var, file.as_deref()).map_err(usage)
}

/// The typed configuration.
pub(crate) fn typed(resolved: &Resolved) -> Result<Config, CliError> {
    resolved.typed().map_err(usage)
}

/// The runtime of every command that talks.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    // The provider is set once; a second call finds it there.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| CliError::failed(format!("the runtime does not start: {e}")))
}

/// Binds the address, or says who may have it.
pub(crate) async fn bind(listen: std::net::SocketAddr) -> Result<TcpListener, CliError> {
    TcpListener::bind(listen).await.map_err(|error| {
        let failed = CliError::failed(format!("cannot listen on {listen}: {error}"));
        match error.kind() {
            std::io::ErrorKind::AddrInUse => failed
                .hint("another program listens there; choose another with --listen, or port 0"),
            _ => failed,
        }
    })
}

async fn serve(args: &Args, config: Config) -> Result<ExitCode, CliError> {
    let specs = if args.packages.is_empty() {
        vec![packages::specify(None, &config.worker)?]
    } else {
        let named = args.packages.iter();
        named.map(|name| packages::specify(Some(name), &config.worker)).collect::<Result<_, _>>()?
    };
    for (index, spec) in specs.iter().enumerate() {
        if specs[..index].iter().any(|other| other.name == spec.name) {
            return Err(CliError::usage(format!("two packages have the same name: {}", spec.name)));
        }
    }
    let listener = bind(config.serve.listen).await?;
    let address = listener.local_addr().map_err(|e| CliError::failed(e.to_string()))?;
    let app = App::start(config.serve, specs).map_err(unusable)?;
    terminal::note(format!("listening on http://{address}"));
    for package in app.packages() {
        app.spawn(announce(package.clone(), args.json));
        app.spawn(announce_snapshot(package.clone()));
    }
    app.spawn(http::serve(app.clone(), listener));
    stop_asked(&app).await?;
    terminal::note("draining; press Ctrl-C again to stop at once");
    tokio::select! {
        () = app.drain() => {}
        () = tokio::time::sleep(app.config().drain_timeout) => {
            terminal::note("some requests did not end in time");
        }
        again = stop_signal() => again?,
    }
    // What has not ended goes on in the next node.
    app.close_journal();
    Ok(ExitCode::SUCCESS)
}

/// A journal that cannot be used, and the way out.
#[expect(clippy::needless_pass_by_value, reason = "shape of map_err")]
pub(crate) fn unusable(error: JournalError) -> CliError {
    let way_out = "name another directory with --stream-dir, or go without: --stream-journal false";
    CliError::failed(error.to_string()).hint(way_out)
}

/// Waits for a signal, or for a request over HTTP, to stop the node.
pub(crate) async fn stop_asked(app: &App) -> Result<(), CliError> {
    tokio::select! {
        stopped = stop_signal() => stopped,
        () = app.stopping().cancelled() => Ok(()),
    }
}

/// Waits for Ctrl-C or SIGTERM.
pub(crate) async fn stop_signal() -> Result<(), CliError> {
    let signals = || Ok((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?));
    let (mut interrupt, mut terminate) = signals().map_err(|e: std::io::Error| {
        CliError::failed(format!("signals cannot be received: {e}"))
    })?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// Prints what becomes of a package's snapshot, until the package is gone.
async fn announce_snapshot(package: Package) {
    let mut states = package.watch_snapshot();
    while states.changed().await.is_ok() {
        let name = package.name();
        match &*states.borrow_and_update() {
            SnapshotState::Published { path, bytes } => {
                let megabytes = *bytes as f64 / 1e6;
                terminal::note(format!(
                    "{name}: snapshot of {megabytes:.1} MB written: {}",
                    path.display()
                ));
            }
            SnapshotState::There { path } => {
                terminal::note(format!("{name}: its snapshot: {}", path.display()));
            }
            _ => {}
        }
    }
}

/// Prints what becomes of a package, until it is gone.
async fn announce(package: Package, json: bool) {
    terminal::show_loading(package.clone()).await;
    let mut states = package.watch_state();
    loop {
        let state = states.borrow_and_update().clone();
        match (&state, package.info()) {
            (PackageState::Ready, Some(info)) if json => {
                let line = serde_json::json!({
                    "package": package.name(), "state": "ready", "load_millis": info.load_millis,
                    "device": info.device, "dtype": info.dtype, "max_model_len": info.max_model_len,
                });
                terminal::result(line.to_string());
            }
            (PackageState::Ready, Some(info)) => {
                for warning in &info.warnings {
                    terminal::note(format!("{}: warning: {warning}", package.name()));
                }
                terminal::note(format!(
                    "{}: ready in {} ms: {}, {:.1}M parameters, {}, {}, up to {} tokens",
                    package.name(),
                    info.load_millis,
                    info.architecture,
                    info.num_parameters as f64 / 1e6,
                    info.dtype,
                    info.device,
                    info.max_model_len,
                ));
            }
            (PackageState::Restarting { reason, after, .. }, _) => {
                terminal::note(format!(
                    "{}: the worker died: {reason}; next start in {after:?}",
                    package.name()
                ));
            }
            (PackageState::Failed(error), _) => {
                terminal::note(format!("{}: error: {error}", package.name()));
            }
            (PackageState::Unresponsive, _) => {
                terminal::note(format!("{}: the worker does not answer", package.name()));
            }
            _ => {}
        }
        if state.kind() == StateKind::Stopped || states.changed().await.is_err() {
            return;
        }
    }
}

fn print_config(resolved: &Resolved, json: bool) {
    if json {
        let rows = resolved.rows().map(|(name, value, origin)| {
            (name, serde_json::json!({ "value": value, "origin": origin.to_string() }))
        });
        let object: serde_json::Map<_, _> =
            rows.map(|(name, value)| (name.to_owned(), value)).collect();
        return terminal::result(serde_json::Value::Object(object).to_string());
    }
    for (name, value, origin) in resolved.rows() {
        terminal::result(format!("{name:24} {value:24} {origin}"));
    }
}

#[expect(clippy::needless_pass_by_value, reason = "shape of map_err")]
fn usage(errors: Vec<config::ConfigError>) -> CliError {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    CliError::usage(lines.join("\nerror: "))
}
