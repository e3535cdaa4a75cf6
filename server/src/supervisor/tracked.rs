//! A generation as the package's task sees it: where its events go, and its clock.

use std::sync::Arc;
use std::time::Instant;

use super::package::InFlight;
use crate::ipc::{Event, WorkerError};
use crate::stream::StreamBuffer;
use crate::telemetry::{PackageMetrics, Timing};

/// Where the events of one generation go.
#[derive(Debug)]
pub(super) struct Sink {
    pub(super) buffer: Arc<StreamBuffer>,
    pub(super) choice: usize,
    /// Held for its `Drop`: the place in the package's admission count.
    pub(super) in_flight: Option<InFlight>,
}

/// A generation that its worker has been given.
#[derive(Debug)]
pub(super) struct Tracked {
    sink: Sink,
    timing: Timing,
}

impl Sink {
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
    pub(super) fn new(sink: Sink) -> Self {
        Self { sink, timing: Timing::new(Instant::now()) }
    }

    /// Measures an event and passes it on.
    pub(super) fn append(&mut self, event: &Event, metrics: &PackageMetrics) {
        self.timing.observe(event, Instant::now(), metrics);
        self.sink.append(event);
    }
}
