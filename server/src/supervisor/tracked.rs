//! A generation as the package's task sees it: where its events go, and its clock.

use std::sync::Arc;
use std::time::Instant;

use crate::ipc::Event;
use crate::stream::StreamBuffer;
use crate::telemetry::{PackageMetrics, Timing};

/// A generation that its worker has been given.
#[derive(Debug)]
pub(super) struct Tracked {
    buffer: Arc<StreamBuffer>,
    timing: Timing,
}

impl Tracked {
    /// Starts the clock.
    pub(super) fn new(buffer: Arc<StreamBuffer>) -> Self {
        Self { buffer, timing: Timing::new(Instant::now()) }
    }

    /// Measures an event and passes it on.
    pub(super) fn append(&mut self, event: Event, metrics: &PackageMetrics) {
        self.timing.observe(&event, Instant::now(), metrics);
        self.buffer.append([event]);
    }
}
