//! What waits for the disk: everybody adds to one batch, which one thread writes at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::record::{Begin, End, Item, Raw};
use crate::stream::StreamBuffer;

/// Longest wait of readers for the disk. Then they go on, and durability is lost.
const PATIENCE: Duration = Duration::from_secs(1);

/// Between the streams and the thread that writes.
#[derive(Debug)]
pub(crate) struct Queue {
    /// A mutex because every event of every stream comes by; held for a copy.
    state: Mutex<State>,
    changed: Condvar,
    next_stream: AtomicU64,
    pub(super) counters: Counters,
}

#[derive(Debug)]
struct State {
    batch: Batch,
    /// What readers see once the batch that is being written is written.
    in_flight: Vec<Reveal>,
    /// When the oldest record that is not written yet came.
    since: Option<Instant>,
    /// Steps that are being delivered: their events are written together.
    holds: usize,
    /// Counts losses. A stream of another era has records that were lost.
    era: u64,
    /// Why nothing is durable now.
    lost: Option<String>,
    /// Whether there is no room for more streams.
    full: bool,
    closed: bool,
}

/// What is written together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) record: Vec<u8>,
    reveals: Vec<Reveal>,
    pub(super) begun: Vec<Live>,
    pub(super) ended: Vec<u64>,
    pub(super) forgotten: Vec<u64>,
}

/// How far readers may see a log.
#[derive(Debug)]
struct Reveal {
    buffer: Arc<StreamBuffer>,
    up_to: usize,
}

/// A stream that is kept.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) stream: u64,
    pub(super) buffer: Arc<StreamBuffer>,
    /// Its serialized `Begin`.
    pub(super) begin: Vec<u8>,
    /// The first segment that is needed for it; none if it is in none.
    pub(super) segment: Option<u64>,
    /// Whether its `Begin` is in the batch.
    pub(super) queued: bool,
}

/// What a log knows of its journal.
#[derive(Debug)]
pub(crate) struct Link {
    queue: Arc<Queue>,
    stream: u64,
    era: u64,
    /// Choices that continue one prompt.
    choices_per_prompt: usize,
}

/// Everything since the node started.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) disk_bytes: AtomicU64,
    pub(super) segments: AtomicU64,
    pub(super) records: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) losses: AtomicU64,
}

/// What the writer takes.
pub(super) struct Taken {
    pub(super) batch: Batch,
    /// The era that it was taken in.
    pub(super) era: u64,
    pub(super) lost: bool,
    pub(super) closed: bool,
}

/// As long as it is there, what is appended is not written: it will be one record.
pub(crate) struct Hold(Arc<Queue>);

impl Queue {
    /// An empty queue whose streams are numbered from `next_stream`.
    pub(super) fn new(next_stream: u64) -> Arc<Self> {
        let state = State {
            batch: Batch::default(),
            in_flight: Vec::new(),
            since: None,
            holds: 0,
            era: 1,
            lost: None,
            full: false,
            closed: false,
        };
        let (state, changed, counters) = (Mutex::new(state), Condvar::new(), Counters::default());
        Arc::new(Self { state, changed, next_stream: AtomicU64::new(next_stream), counters })
    }

    /// Writes that a stream begins. Nothing of its log is there yet.
    pub(super) fn begin(self: &Arc<Self>, buffer: &Arc<StreamBuffer>, begin: &Begin) -> Link {
        let stream = self.next_stream.fetch_add(1, Ordering::Relaxed);
        let (buffer, choices_per_prompt) = (Arc::clone(buffer), begin.request.n);
        let begin = begin.encode();
        let mut state = self.state.lock();
        let queued = state.lost.is_none() && !state.full && !state.closed;
        if queued {
            state.put(&Item::Begin { stream, begin: Raw(&begin) });
        }
        state.batch.begun.push(Live { stream, buffer, begin, segment: None, queued });
        let era = if queued { state.era } else { 0 };
        drop(state);
        self.changed.notify_one();
        Link { queue: Arc::clone(self), stream, era, choices_per_prompt }
    }

    /// The link of a stream that was found on the disk.
    pub(super) fn link(self: &Arc<Self>, stream: u64, choices_per_prompt: usize) -> Link {
        let era = self.state.lock().era;
        Link { queue: Arc::clone(self), stream, era, choices_per_prompt }
    }

    /// Waits for something to do, until the deadline.
    pub(super) fn take(&self, mut spare: Batch, deadline: Option<Instant>) -> Taken {
        spare.clear();
        let mut state = self.state.lock();
        // A loss that the caller does not know of yet is something to do.
        while !state.closed
            && (state.batch.is_empty() || 0 < state.holds)
            && (state.lost.is_none() || deadline.is_some())
        {
            match deadline {
                None => self.changed.wait(&mut state),
                Some(deadline) if self.changed.wait_until(&mut state, deadline).timed_out() => {
                    break;
                }
                Some(_) => {}
            }
        }
        let mut batch = std::mem::replace(&mut state.batch, spare);
        state.in_flight = std::mem::take(&mut batch.reveals);
        let (lost, closed) = (state.lost.is_some(), state.closed);
        Taken { batch, era: state.era, lost, closed }
    }

    /// Shows readers what was taken in `era` and is written now.
    pub(super) fn written(&self, era: u64) {
        let mut state = self.state.lock();
        if state.era != era {
            return;
        }
        state.since = (!state.batch.record.is_empty()).then(Instant::now);
        let reveals = std::mem::take(&mut state.in_flight);
        drop(state);
        reveals.into_iter().for_each(Reveal::show);
    }

    /// Records were lost: readers go on, and nothing is durable until the writer has written
    /// everything again.
    pub(super) fn lose(&self, reason: String) {
        let mut state = self.state.lock();
        if state.lost.is_none() {
            self.counters.losses.fetch_add(1, Ordering::Relaxed);
            tracing::error!("streams would not survive the end of this node: {reason}");
        }
        state.era += 1;
        state.lost = Some(reason);
        state.since = None;
        state.batch.record.clear();
        state.batch.begun.iter_mut().for_each(|live| live.queued = false);
        let mut reveals = std::mem::take(&mut state.in_flight);
        reveals.append(&mut state.batch.reveals);
        drop(state);
        self.changed.notify_one();
        reveals.into_iter().for_each(Reveal::show);
    }

    /// Loses what has waited for the disk for too long.
    pub(super) fn judge(&self, now: Instant) {
        let since = self.state.lock().since;
        if since.is_some_and(|since| PATIENCE < now.saturating_duration_since(since)) {
            self.lose(format!("the disk has not taken a record for {PATIENCE:?}"));
        }
    }

    /// The current era.
    pub(super) fn era(&self) -> u64 {
        self.state.lock().era
    }

    /// Ends a loss, unless another one came or streams began meanwhile; these are taken out.
    pub(super) fn found(&self, era: u64) -> Result<(), Vec<Live>> {
        let mut state = self.state.lock();
        if state.era != era {
            return Ok(());
        }
        let begun = std::mem::take(&mut state.batch.begun);
        if !begun.is_empty() {
            return Err(begun);
        }
        state.lost = None;
        tracing::info!("streams survive the end of this node again");
        Ok(())
    }

    /// Whether there is room for more streams.
    pub(super) fn set_full(&self, full: bool) {
        self.state.lock().full = full;
    }

    /// Whether there is no room for more streams.
    pub(super) fn is_full(&self) -> bool {
        self.state.lock().full
    }

    /// Why nothing is durable now.
    pub(super) fn lost(&self) -> Option<String> {
        self.state.lock().lost.clone()
    }

    /// Takes nothing more; the writer ends when it has written what is there.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_one();
    }
}

impl State {
    fn put(&mut self, item: &Item<'_>) {
        self.since.get_or_insert_with(Instant::now);
        item.put(&mut self.batch.record);
    }
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.record.is_empty() && self.begun.is_empty() && self.forgotten.is_empty()
    }

    fn clear(&mut self) {
        self.record.clear();
        self.reveals.clear();
        self.begun.clear();
        self.ended.clear();
        self.forgotten.clear();
    }
}

impl Link {
    /// Queues what was appended to a log at `at`, with its end if it has ended. Readers see it when
    /// it is written; at once where this says false, because it will not be.
    pub(crate) fn append(
        &self,
        buffer: &Arc<StreamBuffer>,
        (at, bytes): (usize, &[u8]),
        end: Option<End>,
    ) -> bool {
        let (stream, up_to) = (self.stream, at + bytes.len());
        let mut state = self.queue.state.lock();
        if state.era != self.era || state.closed {
            return false;
        }
        state.put(&Item::Events { stream, at: at as u64, bytes: Raw(bytes) });
        if let Some(end) = end {
            state.put(&Item::End { stream, end });
            state.batch.ended.push(stream);
        }
        state.batch.reveals.push(Reveal { buffer: Arc::clone(buffer), up_to });
        let held = 0 < state.holds;
        drop(state);
        if !held {
            self.queue.changed.notify_one();
        }
        true
    }

    /// Writes that the stream is kept no longer.
    pub(crate) fn forget(&self) {
        let stream = self.stream;
        let mut state = self.queue.state.lock();
        if state.closed {
            return;
        }
        if state.lost.is_none() && self.era != 0 {
            state.put(&Item::Forget { stream });
        }
        state.batch.forgotten.push(stream);
        drop(state);
        self.queue.changed.notify_one();
    }

    /// Whether all of the log is on the disk, or on its way there.
    pub(crate) fn is_durable(&self) -> bool {
        self.queue.state.lock().era == self.era
    }

    /// From here on the log is durable again.
    pub(crate) fn renew(&mut self, era: u64) {
        self.era = era;
    }

    /// Choices that continue one prompt.
    pub(crate) fn choices_per_prompt(&self) -> usize {
        self.choices_per_prompt
    }

    /// Makes one record of what is appended until the hold is dropped.
    pub(crate) fn hold(&self) -> Hold {
        self.queue.state.lock().holds += 1;
        Hold(Arc::clone(&self.queue))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.state.lock().holds -= 1;
        self.0.changed.notify_one();
    }
}

impl Reveal {
    fn show(self) {
        self.buffer.show(self.up_to);
    }
}
