//! A log with one writer and any number of readers, none of which the writer waits for.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::ipc::Event;

/// Events of one generation, numbered from zero. Its length is bounded by the tokens that the
/// request may generate.
#[derive(Debug)]
pub struct StreamBuffer {
    /// A mutex because one writer and many readers share it for the length of a copy.
    events: Mutex<Vec<Event>>,
    /// Count of events ever appended; readers wait on it.
    appended: watch::Sender<usize>,
}

/// A reader's place in a log.
#[derive(Debug)]
pub struct Cursor {
    buffer: Arc<StreamBuffer>,
    appended: watch::Receiver<usize>,
    next: usize,
}

impl StreamBuffer {
    /// An empty log.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { events: Mutex::default(), appended: watch::Sender::new(0) })
    }

    /// Adds events; ignored after a final one.
    pub fn append(&self, new: impl IntoIterator<Item = Event>) {
        let mut events = self.events.lock();
        for event in new {
            if !events.last().is_some_and(Event::is_final) {
                events.push(event);
            }
        }
        let count = events.len();
        drop(events);
        self.appended.send_replace(count);
    }

    /// Whether the last event is there.
    pub fn is_finished(&self) -> bool {
        self.events.lock().last().is_some_and(Event::is_final)
    }

    /// A reader that starts at event number `next`.
    pub fn read_from(self: &Arc<Self>, next: usize) -> Cursor {
        Cursor { buffer: Arc::clone(self), appended: self.appended.subscribe(), next }
    }
}

impl Cursor {
    /// The next events, at least one, with the number of the first; none after the final event.
    pub async fn next_batch(&mut self) -> Option<(usize, Vec<Event>)> {
        loop {
            let batch = {
                let events = self.buffer.events.lock();
                let done = self.next >= events.len() && events.last().is_some_and(Event::is_final);
                if done {
                    return None;
                }
                events.get(self.next..).map(<[Event]>::to_vec).unwrap_or_default()
            };
            if !batch.is_empty() {
                let first = self.next;
                self.next += batch.len();
                return Some((first, batch));
            }
            let next = self.next;
            self.appended.wait_for(|&count| next < count).await.ok()?;
        }
    }
}

impl Event {
    /// Whether nothing follows.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Finished { .. } | Self::Failed(_))
    }
}
