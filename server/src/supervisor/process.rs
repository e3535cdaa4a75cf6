//! The worker process: started with one end of a socket pair as its standard input.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

use crate::ipc::{FrameError, FromWorker, MAX_FRAME_BYTES, ToWorker, decode, encode};

/// Frames that may lie between the socket and the package's task; past it the worker waits.
const INBOX_FRAMES: usize = 64;

/// Environment that a worker inherits; nothing else reaches code that handles packages.
const INHERITED_ENV: &[&str] = &["RUST_LOG", "RUST_BACKTRACE", "PATH", "LD_LIBRARY_PATH"];

/// A running worker. Dropping it kills the process.
pub(super) struct WorkerProcess {
    child: Child,
    outbox: mpsc::UnboundedSender<Bytes>,
    inbox: mpsc::Receiver<Result<FromWorker, FrameError>>,
    /// Reader and writer; aborted with the process.
    _pumps: JoinSet<()>,
}

impl WorkerProcess {
    /// Starts `program worker`.
    pub(super) fn start(program: &Path) -> io::Result<Self> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut command = Command::new(program);
        command
            .arg("worker")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .process_group(0)
            .kill_on_drop(true)
            .env_clear();
        for name in INHERITED_ENV {
            if let Some(value) = crate::config::env_os(name) {
                command.env(name, value);
            }
        }
        let child = command.spawn()?;
        let (read, write) = UnixStream::from_std(ours)?.into_split();
        let (outbox, to_write) = mpsc::unbounded_channel();
        let (to_read, inbox) = mpsc::channel(INBOX_FRAMES);
        let mut pumps = JoinSet::new();
        pumps.spawn(write_frames(write, to_write));
        pumps.spawn(read_frames(read, to_read));
        Ok(Self { child, outbox, inbox, _pumps: pumps })
    }

    /// Process id, while it runs.
    pub(super) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Queues a message. A broken connection shows in `receive`.
    pub(super) fn send(&self, message: &ToWorker) -> Result<(), FrameError> {
        let frame = encode(message)?;
        // The writer ends only with the connection, which the reader reports.
        let _ = self.outbox.send(Bytes::from(frame));
        Ok(())
    }

    /// The next message; an error once the connection is over.
    pub(super) async fn receive(&mut self) -> Result<FromWorker, FrameError> {
        self.inbox.recv().await.unwrap_or(Err(FrameError::Closed))
    }

    /// Kills the process if it does not end by itself within `grace`, and says how it ended.
    pub(super) async fn end(mut self, grace: Duration) -> String {
        let status = match tokio::time::timeout(grace, self.child.wait()).await {
            Ok(status) => status,
            Err(_elapsed) => match self.child.kill().await {
                Ok(()) => self.child.wait().await,
                Err(error) => Err(error),
            },
        };
        status.map_or_else(|error| format!("its end is unknown: {error}"), describe)
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("it was ended by signal {signal}"),
        (None, Some(code)) => format!("it exited with code {code}"),
        (None, None) => "it ended".to_owned(),
    }
}

async fn write_frames(mut to: OwnedWriteHalf, mut frames: mpsc::UnboundedReceiver<Bytes>) {
    while let Some(frame) = frames.recv().await {
        if to.write_all(&frame).await.is_err() {
            return;
        }
    }
}

async fn read_frames(from: OwnedReadHalf, to: mpsc::Sender<Result<FromWorker, FrameError>>) {
    let codec = LengthDelimitedCodec::builder().max_frame_length(MAX_FRAME_BYTES).new_codec();
    let mut frames = FramedRead::new(from, codec);
    while let Some(frame) = frames.next().await {
        let message = frame.map_err(FrameError::from).and_then(|bytes| decode(&bytes));
        let broken = message.is_err();
        if to.send(message).await.is_err() || broken {
            return;
        }
    }
}
