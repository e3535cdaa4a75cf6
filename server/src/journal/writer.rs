//! The thread that writes: one record for whatever waits, segments, and what becomes of them.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::disk::{Disk, HEADER_BYTES, Segment};
use super::queue::{Batch, Live, Queue};
use super::record::{Begin, Item, Raw, seal};
use super::sync::Syncer;

/// Waits between two attempts to write again, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Smallest and largest segment.
const SEGMENT_BYTES: (u64, u64) = (64 << 10, 64 << 20);
/// Segments that the room for all is divided into, at least.
const MIN_SEGMENTS: u64 = 8;
/// A `Begin` above it is stripped of its prompts when its stream has ended.
const LONG_BEGIN: usize = 1 << 10;

/// What the thread works with.
pub(super) struct Writer {
    queue: Arc<Queue>,
    disk: Box<dyn Disk>,
    syncer: Syncer,
    live: HashMap<u64, Live>,
    /// The oldest first; the last one is written, if `current` is there.
    stored: VecDeque<Stored>,
    next_segment: u64,
    current: Option<Arc<dyn Segment>>,
    budget: u64,
    /// When to try again, and how long to wait after that.
    retry: Option<(Instant, Duration)>,
}

/// A segment on the disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    pub(super) segment: u64,
    pub(super) bytes: u64,
}

impl Writer {
    /// A writer behind the segments that are there.
    pub(super) fn new(
        queue: Arc<Queue>,
        disk: Box<dyn Disk>,
        syncer: Syncer,
        budget: u64,
        (stored, next_segment, live): (Vec<Stored>, u64, Vec<Live>),
    ) -> Self {
        let live = live.into_iter().map(|live| (live.stream, live)).collect();
        let (stored, current, retry) = (stored.into(), None, None);
        Self { queue, disk, syncer, live, stored, next_segment, current, budget, retry }
    }

    /// Writes until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let mut spare = Batch::default();
        self.collect();
        loop {
            let taken = self.queue.take(spare, self.retry.map(|(at, _)| at));
            let mut batch = taken.batch;
            let begun = self.note(&mut batch);
            if taken.lost {
                self.try_again();
            } else if !batch.record.is_empty() {
                match self.commit(&mut batch, &begun) {
                    Ok(()) => self.queue.written(taken.era),
                    Err(error) => self.queue.lose(error.to_string()),
                }
            }
            if !batch.forgotten.is_empty() {
                self.collect();
            }
            if taken.closed {
                return self.syncer.close();
            }
            spare = batch;
        }
    }

    /// Writes a batch, in a new segment where the last one is full.
    fn commit(&mut self, batch: &mut Batch, begun: &[u64]) -> io::Result<()> {
        self.rotate()?;
        let segment = self.stored.back().map(|last| last.segment);
        for stream in begun {
            if let Some(live) = self.live.get_mut(stream) {
                live.segment = segment;
            }
        }
        self.append(&mut batch.record)?;
        self.syncer.written(!batch.ended.is_empty());
        Ok(())
    }

    /// Takes note of what begins and ends with a batch, and says what of it begins there.
    fn note(&mut self, batch: &mut Batch) -> Vec<u64> {
        let queued = batch.begun.iter().filter(|live| live.queued).map(|live| live.stream);
        let queued = queued.collect();
        self.live.extend(batch.begun.drain(..).map(|live| (live.stream, live)));
        for stream in &batch.ended {
            if let Some(live) = self.live.get_mut(stream) {
                live.strip();
            }
        }
        for stream in &batch.forgotten {
            self.live.remove(stream);
        }
        queued
    }

    fn append(&mut self, record: &mut [u8]) -> io::Result<()> {
        seal(record);
        let current = self.current.as_ref().ok_or_else(|| io::Error::other("no segment"))?;
        current.append(record)?;
        if let Some(last) = self.stored.back_mut() {
            last.bytes += record.len() as u64;
        }
        let counters = &self.queue.counters;
        counters.records.fetch_add(1, Ordering::Relaxed);
        counters.bytes.fetch_add(record.len() as u64, Ordering::Relaxed);
        counters.disk_bytes.fetch_add(record.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Begins a new segment where there is none or the last one is full.
    fn rotate(&mut self) -> io::Result<()> {
        let is_full = self.stored.back().is_none_or(|last| self.segment_bytes() <= last.bytes);
        if self.current.is_some() && !is_full {
            return Ok(());
        }
        self.begin_segment()?;
        let older = self.stored.len() - 1;
        for _ in 0..older {
            if self.bytes() <= self.budget / 2 {
                break;
            }
            self.free_oldest()?;
        }
        self.collect();
        Ok(())
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        if let Some(last) = self.current.take() {
            last.sync()?;
        }
        let segment = self.next_segment;
        self.next_segment += 1;
        let created = self.disk.create(segment).inspect_err(|_| {
            // Half a segment may be there, which would be found after the next start.
            let _ = self.disk.remove(segment);
        })?;
        self.stored.push_back(Stored { segment, bytes: HEADER_BYTES as u64 });
        self.syncer.follow(Arc::clone(&created));
        self.current = Some(created);
        Ok(())
    }

    /// Writes again what needs the oldest segment, so that nothing does.
    fn free_oldest(&mut self) -> io::Result<()> {
        let Some(oldest) = self.stored.front().map(|stored| stored.segment) else { return Ok(()) };
        let needs = |live: &&Live| live.segment == Some(oldest);
        let streams: Vec<u64> = self.live.values().filter(needs).map(|live| live.stream).collect();
        for stream in streams {
            self.restate(stream, None)?;
        }
        if let Some(current) = &self.current {
            current.sync()?;
        }
        self.collect();
        Ok(())
    }

    /// Writes a stream again, whole. With an era it is durable from there on.
    fn restate(&mut self, stream: u64, era: Option<u64>) -> io::Result<()> {
        let Some(live) = self.live.get(&stream) else { return Ok(()) };
        let (bytes, end) = live.buffer.restate(era);
        let (mut record, begin) = (Vec::new(), Raw(&live.begin));
        Item::Again { stream, begin, bytes: Raw(&bytes), end }.put(&mut record);
        self.append(&mut record)?;
        let segment = self.stored.back().map(|last| last.segment);
        if let Some(live) = self.live.get_mut(&stream) {
            live.segment = segment;
        }
        Ok(())
    }

    /// After a loss: writes everything again into a new segment, if it is time to try.
    fn try_again(&mut self) {
        let now = Instant::now();
        let (at, delay) = *self.retry.get_or_insert((now, RETRY.0));
        if now < at {
            return;
        }
        let era = self.queue.era();
        let written = self.restate_all(era);
        match written {
            Ok(()) if self.queue.lost().is_none() => {
                self.retry = None;
                self.collect();
            }
            result => {
                if let Err(error) = result {
                    self.abandon();
                    self.queue.lose(error.to_string());
                }
                self.retry = Some((Instant::now() + delay, (delay * 2).min(RETRY.1)));
            }
        }
    }

    /// Removes the segment that could not be filled.
    fn abandon(&mut self) {
        if self.current.take().is_some()
            && let Some(last) = self.stored.pop_back()
            && let Err(error) = self.disk.remove(last.segment)
        {
            tracing::debug!("a segment is left behind: {error}");
        }
    }

    fn restate_all(&mut self, era: u64) -> io::Result<()> {
        // The segment that failed is not written to again: what its end holds is not known.
        self.current = None;
        self.begin_segment()?;
        let mut left: Vec<u64> = self.live.keys().copied().collect();
        loop {
            for stream in left.drain(..) {
                self.restate(stream, Some(era))?;
            }
            if let Some(current) = &self.current {
                current.sync()?;
            }
            match self.queue.found(era) {
                Ok(()) => return Ok(()),
                Err(begun) => {
                    left.extend(begun.iter().map(|live| live.stream));
                    self.live.extend(begun.into_iter().map(|live| (live.stream, live)));
                }
            }
        }
    }

    /// Removes segments that nothing needs, and says how much room is left.
    fn collect(&mut self) {
        let last = self.stored.back().filter(|_| self.current.is_some()).map(|last| last.segment);
        let oldest = self.live.values().filter_map(|live| live.segment).chain(last).min();
        while let Some(stored) = self.stored.front().copied() {
            if oldest.is_some_and(|oldest| oldest <= stored.segment) {
                break;
            }
            if let Err(error) = self.disk.remove(stored.segment)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!("an old segment could not be removed: {error}");
                break;
            }
            self.stored.pop_front();
        }
        let counters = &self.queue.counters;
        counters.segments.store(self.stored.len() as u64, Ordering::Relaxed);
        counters.disk_bytes.store(self.bytes(), Ordering::Relaxed);
        self.queue.set_full(self.budget < self.bytes());
    }

    fn bytes(&self) -> u64 {
        self.stored.iter().map(|stored| stored.bytes).sum()
    }

    fn segment_bytes(&self) -> u64 {
        (self.budget / MIN_SEGMENTS).clamp(SEGMENT_BYTES.0, SEGMENT_BYTES.1)
    }
}

impl Live {
    /// What has ended is not run again: its prompts are not needed.
    pub(super) fn strip(&mut self) {
        if self.begin.len() < LONG_BEGIN {
            return;
        }
        if let Ok(mut begin) = Begin::decode(&self.begin) {
            begin.prompts.clear();
            self.begin = begin.encode();
        }
    }
}
