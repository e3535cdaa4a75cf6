//! How other threads talk to an engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{mpsc, watch};

use crate::{Command, EngineStats, PerClass, Request, RequestId, RequestLimits, SubmitError};

/// A way to an engine; clones are equal. Nothing here waits.
///
/// The channel itself has no bound, so that an abort always gets through; what goes into it has:
/// submits count against the `max_waiting` of their class, and one abort a request is enough.
#[derive(Clone, Debug)]
pub struct EngineHandle {
    commands: mpsc::UnboundedSender<Command>,
    limits: RequestLimits,
    num_in_inbox: Arc<PerClass<AtomicUsize>>,
    stats: watch::Receiver<EngineStats>,
}

impl EngineHandle {
    pub(crate) fn new(
        commands: mpsc::UnboundedSender<Command>,
        limits: RequestLimits,
        num_in_inbox: Arc<PerClass<AtomicUsize>>,
        stats: watch::Receiver<EngineStats>,
    ) -> Self {
        Self { commands, limits, num_in_inbox, stats }
    }

    /// Which requests the engine takes.
    pub fn limits(&self) -> &RequestLimits {
        &self.limits
    }

    /// Hands a request over. From then on its outputs end with one that has a `finish`, whatever
    /// happens, as long as the engine runs.
    pub fn submit(&self, request: Request) -> Result<(), SubmitError> {
        self.limits.check(&request)?;
        let (class, num_sequences) = (request.class, request.ids().count());
        let max_waiting = self.limits.max_waiting[class];
        let stats = self.stats.borrow().classes[class];
        let in_queue = |num_in_inbox| num_in_inbox + num_sequences + stats.waiting;
        let admit = |num| (in_queue(num) <= max_waiting).then_some(num + num_sequences);
        self.num_in_inbox[class]
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, admit)
            .map_err(|_| SubmitError::QueueFull { class, max_waiting, retry_after: stats.wait })?;
        self.send(Command::Submit(Box::new(request)))
    }

    /// Ends a request; its last output says `Aborted`, if it had not ended before.
    pub fn abort(&self, id: RequestId) {
        // An engine that has stopped has aborted everything.
        let _ = self.send(Command::Abort(id));
    }

    /// Ends the engine after the step that runs; everything it holds ends as `Aborted`.
    pub fn shut_down(&self) {
        let _ = self.send(Command::Shutdown);
    }

    /// Counters after the last step.
    pub fn stats(&self) -> EngineStats {
        *self.stats.borrow()
    }

    /// Counters, as something to wait on.
    pub fn watch_stats(&self) -> watch::Receiver<EngineStats> {
        self.stats.clone()
    }

    fn send(&self, command: Command) -> Result<(), SubmitError> {
        self.commands.send(command).map_err(|_| SubmitError::Stopped)
    }
}
