//! The journal: what must be known of every stream to go on with it after the node has died.
//!
//! All streams share one sequence of segments. Whatever waits is written as one record by one
//! thread; readers see an event when it is written. When something cannot be written, generation
//! and readers go on, durability is reported as lost, and it is regained by writing everything that
//! is kept into a new segment.

mod disk;
mod queue;
mod record;
mod scan;
mod sync;
#[cfg(test)]
mod tests;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::Mutex;

use crate::stream::StreamBuffer;
pub use disk::JournalError;
use disk::{Directory, Disk};
pub(crate) use queue::{Hold, Link};
use queue::{Live, Queue};
pub(crate) use record::{Begin, End};
use scan::{Found, Scan};
pub use scan::{UsageRecord, usage};
use sync::Syncer;
use writer::Writer;

/// Where the journal lies, and how large it may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalConfig {
    /// A directory that one node has for itself.
    pub directory: PathBuf,
    /// Bytes on the disk. Above it, new streams are not written.
    pub bytes: u64,
}

/// The journal of a node.
#[derive(Debug)]
pub(crate) struct Journal {
    queue: Arc<Queue>,
    budget: u64,
    damaged: u64,
    /// A mutex so that it can be closed once, by whoever stops the node.
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// A stream as it was when the last node ended.
#[derive(Debug)]
pub(crate) struct Restored {
    /// What it is.
    pub(crate) begin: Begin,
    /// Its log; what is appended is written.
    pub(crate) buffer: Arc<StreamBuffer>,
}

/// What the journal holds, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct JournalUsage {
    /// Bytes on the disk.
    pub(crate) disk_bytes: u64,
    /// Bytes that may be there.
    pub(crate) budget_bytes: u64,
    /// Segments on the disk.
    pub(crate) segments: u64,
    /// Records written, ever.
    pub(crate) records: u64,
    /// Bytes written, ever.
    pub(crate) bytes: u64,
    /// Waits for the disk, ever.
    pub(crate) syncs: u64,
    /// Times that durability was lost.
    pub(crate) losses: u64,
    /// Segments that were damaged when the node started.
    pub(crate) damaged: u64,
    /// Whether what is written now survives the node.
    pub(crate) is_durable: bool,
}

impl Journal {
    /// Locks the directory, reads what is there, and starts to write behind it.
    ///
    /// # Errors
    /// When another node has the directory, or it cannot be read.
    pub(crate) fn open(config: &JournalConfig) -> Result<(Self, Vec<Restored>), JournalError> {
        let directory = Directory::open(&config.directory)?;
        let unusable =
            |source| JournalError::Unusable { directory: config.directory.clone(), source };
        let scan = Scan::read(&config.directory).map_err(unusable)?;
        Self::start(Box::new(directory), config.bytes, scan).map_err(unusable)
    }

    fn start(
        disk: Box<dyn Disk>,
        budget: u64,
        scan: Scan,
    ) -> std::io::Result<(Self, Vec<Restored>)> {
        let queue = Queue::new(scan.next_stream);
        let (mut live, mut restored) = (Vec::new(), Vec::new());
        for (stream, found) in scan.streams {
            let segment = Some(found.segment);
            match restore(&queue, stream, found) {
                Ok((one, begin)) => {
                    let buffer = Arc::clone(&one.buffer);
                    live.push(Live { stream, buffer, begin, segment, queued: true });
                    restored.push(one);
                }
                Err(error) => tracing::warn!("a stream does not decode: {error}"),
            }
        }
        restored.sort_by(|a, b| a.begin.meta.id.cmp(&b.begin.meta.id));
        let syncer = Syncer::start(Arc::clone(&queue))?;
        let found = (scan.stored, scan.next_segment, live);
        let writer = Writer::new(Arc::clone(&queue), disk, syncer, budget, found);
        let thread = std::thread::Builder::new().name("journal".to_owned());
        let writer = Mutex::new(Some(thread.spawn(move || writer.run())?));
        Ok((Self { queue, budget, damaged: scan.damaged, writer }, restored))
    }

    /// Writes that a stream begins, before anything is in its log, and whatever is appended later.
    pub(crate) fn begin(&self, buffer: &Arc<StreamBuffer>, begin: &Begin) {
        buffer.link(|| self.queue.begin(buffer, begin));
    }

    /// Why nothing is durable now.
    pub(crate) fn lost(&self) -> Option<String> {
        self.queue.lost()
    }

    /// Whether there is no room for more streams.
    pub(crate) fn is_full(&self) -> bool {
        self.queue.is_full()
    }

    /// Lets readers go on when the disk takes too long.
    pub(crate) fn judge(&self, now: Instant) {
        self.queue.judge(now);
    }

    /// What it holds now.
    pub(crate) fn usage(&self) -> JournalUsage {
        let counters = &self.queue.counters;
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        JournalUsage {
            disk_bytes: read(&counters.disk_bytes),
            budget_bytes: self.budget,
            segments: read(&counters.segments),
            records: read(&counters.records),
            bytes: read(&counters.bytes),
            syncs: read(&counters.syncs),
            losses: read(&counters.losses),
            damaged: self.damaged,
            is_durable: self.lost().is_none(),
        }
    }

    /// Writes what is there, and nothing after it.
    pub(crate) fn close(&self) {
        self.queue.close();
        if let Some(writer) = self.writer.lock().take() {
            // A panic was reported by its thread.
            let _ = writer.join();
        }
    }
}

/// The stream, and its serialized `Begin`.
fn restore(
    queue: &Arc<Queue>,
    stream: u64,
    found: Found,
) -> Result<(Restored, Vec<u8>), postcard::Error> {
    let Found { begin: serialized, bytes, end, .. } = found;
    let begin = Begin::decode(&serialized)?;
    let link = queue.link(stream, begin.request.n);
    let buffer = StreamBuffer::restored(begin.request.choices, bytes, end, link);
    Ok((Restored { begin, buffer }, serialized))
}
