//! A generation as the package's task sees it: where its events go, its clock, and how it goes on
//! when its worker dies.

use std::sync::Arc;
use std::time::Instant;

use super::package::InFlight;
use crate::ipc::{Event, FinishReason, Submit, WorkerError};
use crate::journal::Hold;
use crate::stream::{Progress, StreamBuffer};
use crate::telemetry::{PackageMetrics, Timing};

/// Workers that a generation may lose. One that ends its worker twice may be the reason.
const MAX_DEATHS: u32 = 1;

/// Where the events of one generation go.
#[derive(Debug)]
pub(super) struct Sink {
    pub(super) buffer: Arc<StreamBuffer>,
    pub(super) choice: usize,
    /// Held for its `Drop`: the place in the package's admission count.
    in_flight: Option<InFlight>,
    /// How far it came before, on an earlier node.
    pub(super) progress: Progress,
}

/// A generation that its worker has been given.
#[derive(Debug)]
pub(super) struct Tracked {
    sink: Sink,
    timing: Timing,
    submit: Submit,
    progress: Progress,
    num_deaths: u32,
}

impl Sink {
    /// For a choice of a log, with its place.
    pub(super) fn new(buffer: Arc<StreamBuffer>, choice: usize, place: InFlight) -> Self {
        Self { buffer, choice, in_flight: Some(place), progress: Progress::default() }
    }

    /// Passes an event on. Who hears of the end finds room.
    pub(super) fn append(&mut self, event: &Event) {
        if event.is_final() {
            self.in_flight = None;
        }
        self.buffer.append(self.choice, event);
    }

    /// Ends the generation.
    pub(super) fn fail(mut self, error: WorkerError) {
        self.append(&Event::Failed(error));
    }
}

impl Tracked {
    /// Starts the clock.
    pub(super) fn new(submit: Submit, sink: Sink) -> Self {
        let (timing, progress) = (Timing::new(Instant::now()), sink.progress);
        Self { sink, timing, submit, progress, num_deaths: 0 }
    }

    /// Writes what is appended to any log, until the hold is dropped, at once.
    pub(super) fn hold(&self) -> Option<Hold> {
        self.sink.buffer.hold()
    }

    /// Measures an event, passes it on, and remembers what a successor needs to know.
    pub(super) fn append(&mut self, event: &Event, metrics: &PackageMetrics) {
        self.timing.observe(event, Instant::now(), metrics);
        self.progress.observe(event);
        if let Event::Delta { token_ids, .. } = event {
            let resume = self.submit.resume.get_or_insert_default();
            resume.token_ids.extend(token_ids);
            resume.cached_tokens = self.progress.usage.cached_tokens;
        }
        self.sink.append(event);
    }

    /// The final event of a generation that is cancelled while it has no worker.
    pub(super) fn cancelled(&self) -> Event {
        Event::Finished { reason: FinishReason::Cancelled, usage: self.progress.usage }
    }

    /// Counts the death of its worker; whether it may go on with another one.
    pub(super) fn survives(&mut self) -> bool {
        self.num_deaths += 1;
        self.num_deaths <= MAX_DEATHS
    }

    /// What the next worker is asked: the same, behind the tokens that were delivered.
    pub(super) fn submission(&self) -> Submit {
        let mut submit = self.submit.clone();
        // Its deadline is that of its first token.
        let deadline = submit.params.urgency.deadline_millis.take();
        if self.progress.usage.completion_tokens == 0 {
            let waited = self.timing.age(Instant::now()).as_millis() as u64;
            submit.params.urgency.deadline_millis =
                deadline.map(|millis| millis.saturating_sub(waited));
        }
        submit
    }
}
