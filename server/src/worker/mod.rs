//! The process that runs one native package: everything that touches what a package brings.
//!
//! Threads: this one reads the socket and never waits for anything else, so that it always answers
//! pings; one loads; two prepare prompts; one is the engine's; one turns its outputs into frames.

mod identity;
mod load;
mod memory;
mod output;
mod prepare;
mod sandbox;
mod service;
mod snapshot;

use std::io::BufReader;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;

use parking_lot::Mutex;
use pinion_loader::{LoadError, LoadOptions, LoadedPackage, PackageFiles, ProgressFn};

use crate::ipc::{
    FrameError, FromWorker, LoadRequest, PROTOCOL_VERSION, ToWorker, WorkerError, read_frame,
    write_frame,
};
use service::Service;

/// From the files of a package to what runs it: [`pinion_loader::load`].
pub type Loader = fn(&PackageFiles, &LoadOptions, &ProgressFn) -> Result<LoadedPackage, LoadError>;

/// The way back to the daemon, shared by all threads.
#[derive(Clone)]
struct Outbox(Arc<Mutex<UnixStream>>);

impl Outbox {
    /// Sends a message. A daemon that is gone needs none: the reader ends the process.
    fn send(&self, message: &FromWorker) {
        // A mutex, so that frames do not interleave; a frame is written in one piece.
        if let Err(error) = write_frame(&mut *self.0.lock(), message) {
            tracing::debug!("a message was not sent: {error}");
        }
    }

    /// Ends the connection, and with it the process: its reader returns.
    fn close(&self) {
        // A connection that is over already is as closed.
        let _ = self.0.lock().shutdown(Shutdown::Both);
    }
}

/// `pinion worker`: serves one package over the socket that is its standard input.
pub(crate) fn main() -> ExitCode {
    main_with(pinion_loader::load)
}

/// A worker whose packages come from another loader, for measurements of all that is around a model.
pub fn main_with(loader: Loader) -> ExitCode {
    match run(loader) {
        Ok(()) | Err(FrameError::Closed) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(loader: Loader) -> Result<(), FrameError> {
    sandbox::follow_parent();
    let socket = UnixStream::from(stdin_socket()?);
    let outbox = Outbox(Arc::new(Mutex::new(socket.try_clone()?)));
    outbox.send(&FromWorker::Hello { protocol: PROTOCOL_VERSION });
    let mut frames = BufReader::new(socket);
    let service = match read_frame(&mut frames)? {
        ToWorker::Load(request) => start(*request, outbox.clone(), loader)?,
        other => {
            tracing::error!("the first message is not a load: {other:?}");
            return Ok(());
        }
    };
    loop {
        match read_frame(&mut frames)? {
            ToWorker::Load(_) => tracing::error!("a second load is ignored"),
            ToWorker::Submit(submit) => service.submit(*submit),
            ToWorker::Cancel(key) => service.cancel(key),
            ToWorker::Tokenize { key, input } => service.tokenize(key, input),
            ToWorker::Ping { nonce } => {
                let (step_millis, render_millis) = service.busy_millis();
                outbox.send(&FromWorker::Pong { nonce, step_millis, render_millis });
            }
            ToWorker::WriteSnapshot { package } => service.write_snapshot(package),
            ToWorker::Shutdown => return Ok(()),
        }
    }
}

/// Restricts the process, then loads on a thread of its own.
fn start(request: LoadRequest, outbox: Outbox, loader: Loader) -> Result<Arc<Service>, FrameError> {
    sandbox::restrict(&request);
    let service = Arc::new(Service::new(outbox.clone(), &request));
    let loading = Arc::clone(&service);
    std::thread::Builder::new().name("load".to_owned()).spawn(move || {
        match load::load(&request, &outbox, loader) {
            Ok(loaded) => loading.begin(loaded, &request),
            Err(error) => outbox.send(&FromWorker::LoadFailed(error)),
        }
    })?;
    Ok(service)
}

fn stdin_socket() -> Result<OwnedFd, FrameError> {
    Ok(std::io::stdin().as_fd().try_clone_to_owned()?)
}

/// An error of the package.
fn package_error(code: &str, message: impl Into<String>, hint: Option<&str>) -> WorkerError {
    WorkerError {
        kind: crate::ipc::ErrorKind::Package,
        code: code.to_owned(),
        message: message.into(),
        hint: hint.map(str::to_owned),
        param: None,
    }
}
