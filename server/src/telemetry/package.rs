//! What is measured about each package, at the point where its worker's events arrive.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Histogram;
use crate::ipc::{Event, FinishReason};

const FIRST_TOKEN_BOUNDS: &[f64] =
    &[0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
const INTER_TOKEN_BOUNDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
];
const DURATION_BOUNDS: &[f64] =
    &[0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];

/// Counters of one package since the daemon started; they outlive its workers.
#[derive(Debug)]
pub struct PackageMetrics {
    /// From submission to the first token.
    pub time_to_first_token: Histogram,
    /// Between tokens of one sequence.
    pub inter_token_latency: Histogram,
    /// From submission to the final event.
    pub request_duration: Histogram,
    finished: [AtomicU64; Outcome::ALL.len()],
    worker_deaths: AtomicU64,
    resumed: AtomicU64,
}

/// How a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A stop token or string.
    Stop,
    /// A limit of length.
    Length,
    /// Its caller left or cancelled it.
    Cancelled,
    /// An error.
    Failed,
}

/// The clock of one generation.
#[derive(Debug)]
pub struct Timing {
    submitted: Instant,
    last_token: Option<Instant>,
}

impl Default for PackageMetrics {
    fn default() -> Self {
        Self {
            time_to_first_token: Histogram::new(FIRST_TOKEN_BOUNDS),
            inter_token_latency: Histogram::new(INTER_TOKEN_BOUNDS),
            request_duration: Histogram::new(DURATION_BOUNDS),
            finished: Default::default(),
            worker_deaths: AtomicU64::new(0),
            resumed: AtomicU64::new(0),
        }
    }
}

impl PackageMetrics {
    /// Generations that ended in this way.
    pub fn finished(&self, outcome: Outcome) -> u64 {
        self.finished[outcome as usize].load(Ordering::Relaxed)
    }

    /// Workers that died without being asked to.
    pub fn worker_deaths(&self) -> u64 {
        self.worker_deaths.load(Ordering::Relaxed)
    }

    /// Generations that went on with another worker.
    pub fn num_resumed(&self) -> u64 {
        self.resumed.load(Ordering::Relaxed)
    }

    /// Counts a generation that goes on with another worker.
    pub fn resumed(&self) {
        self.resumed.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a worker's death.
    pub fn worker_died(&self) {
        self.worker_deaths.fetch_add(1, Ordering::Relaxed);
    }
}

impl Outcome {
    /// Every outcome, in the order of their discriminants.
    pub const ALL: [Self; 4] = [Self::Stop, Self::Length, Self::Cancelled, Self::Failed];

    /// Lower-case name for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }
}

impl Timing {
    /// The clock of a generation that was submitted at `submitted`.
    pub fn new(submitted: Instant) -> Self {
        Self { submitted, last_token: None }
    }

    /// Time since the submission.
    pub fn age(&self, now: Instant) -> Duration {
        now - self.submitted
    }

    /// Counts what an event of the generation at `now` means.
    pub fn observe(&mut self, event: &Event, now: Instant, metrics: &PackageMetrics) {
        let outcome = match event {
            Event::Started { .. } => return,
            Event::Delta { token_ids, .. } => return self.tokens(token_ids.len(), now, metrics),
            Event::Finished { reason: FinishReason::Stop, .. } => Outcome::Stop,
            Event::Finished { reason: FinishReason::Length, .. } => Outcome::Length,
            Event::Finished { reason: FinishReason::Cancelled, .. } => Outcome::Cancelled,
            Event::Failed(_) => Outcome::Failed,
        };
        metrics.finished[outcome as usize].fetch_add(1, Ordering::Relaxed);
        metrics.request_duration.observe(now - self.submitted, 1);
    }

    fn tokens(&mut self, count: usize, now: Instant, metrics: &PackageMetrics) {
        let Ok(count @ 1..) = u32::try_from(count) else { return };
        match self.last_token.replace(now) {
            None => metrics.time_to_first_token.observe(now - self.submitted, 1),
            Some(last) => {
                metrics.inter_token_latency.observe((now - last) / count, count.into());
            }
        }
    }
}
