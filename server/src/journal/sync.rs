//! The thread that waits for the disk, so that no reader does.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::disk::Segment;
use super::queue::Queue;

/// A power failure takes back so much at most of streams that run.
const EVERY: Duration = Duration::from_secs(1);

/// Syncs the segment that is written: at once behind the end of a stream, else every second.
pub(super) struct Syncer {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    /// A mutex between the writer and the thread, held for a copy.
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    segment: Option<Arc<dyn Segment>>,
    /// When to sync what was written; none where all is on the disk.
    due: Option<Instant>,
    closed: bool,
}

impl Syncer {
    /// Starts the thread; the queue hears of failures.
    pub(super) fn start(queue: Arc<Queue>) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let run = {
            let shared = Arc::clone(&shared);
            move || while shared.sync_once(&queue) {}
        };
        let thread = std::thread::Builder::new().name("journal-sync".to_owned()).spawn(run)?;
        Ok(Self { shared, thread })
    }

    /// From here on this segment is written.
    pub(super) fn follow(&self, segment: Arc<dyn Segment>) {
        let mut state = self.shared.state.lock();
        (state.segment, state.due) = (Some(segment), None);
    }

    /// Something was written; the end of a stream is not to wait.
    pub(super) fn written(&self, at_once: bool) {
        let now = Instant::now();
        let mut state = self.shared.state.lock();
        let asleep = state.due.is_none();
        let due = state.due.get_or_insert(now + EVERY);
        if at_once {
            *due = now;
        }
        drop(state);
        if at_once || asleep {
            self.shared.changed.notify_one();
        }
    }

    /// Syncs what is left, and ends.
    pub(super) fn close(self) {
        self.shared.state.lock().closed = true;
        self.shared.changed.notify_one();
        // A panic was reported by its thread.
        let _ = self.thread.join();
    }
}

impl Shared {
    /// Waits until something is due, and syncs it; false at the end.
    fn sync_once(&self, queue: &Queue) -> bool {
        let mut state = self.state.lock();
        while !state.closed {
            match state.due {
                None => self.changed.wait(&mut state),
                Some(due) if due <= Instant::now() => break,
                Some(due) => drop(self.changed.wait_until(&mut state, due)),
            }
        }
        let (closed, due) = (state.closed, state.due.take());
        let segment = state.segment.clone().filter(|_| due.is_some());
        drop(state);
        if let Some(segment) = segment {
            queue.counters.syncs.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = segment.sync() {
                // What the kernel could not write it has dropped: only writing it again helps.
                queue.lose(format!("the disk has not kept what was written: {error}"));
            }
        }
        !closed
    }
}
