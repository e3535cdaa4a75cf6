//! A log with one writer and any number of readers, none of which the writer waits for.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{CANCELLED, CLIENT_GONE};
use crate::ipc::{Event, FinishReason, WorkerError};

/// Events of all choices of one inference, in the order in which they came.
///
/// They are kept as postcard bytes, about a dozen a token: what is kept for those who come back is
/// many times what is being read.
#[derive(Debug)]
pub struct StreamBuffer {
    /// A mutex because one writer and many readers share it for the length of a copy.
    log: Mutex<Log>,
    /// Bytes ever appended; readers wait on it.
    appended: watch::Sender<usize>,
}

#[derive(Debug)]
struct Log {
    bytes: Vec<u8>,
    /// Whether each choice has more to come.
    open: Vec<bool>,
    outcome: Outcome,
    finished_at: Option<Instant>,
}

/// How an inference ended, or that it has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Some choice has more to come.
    Active,
    /// Every choice came to its own end.
    Completed,
    /// A choice ended with an error.
    Failed,
    /// A choice was cancelled.
    Cancelled,
}

/// A reader's place in a log.
#[derive(Debug)]
pub struct Cursor {
    buffer: Arc<StreamBuffer>,
    appended: watch::Receiver<usize>,
    next: usize,
}

impl StreamBuffer {
    /// An empty log of so many choices.
    pub fn new(choices: usize) -> Arc<Self> {
        let log = Log {
            bytes: Vec::new(),
            open: vec![true; choices],
            outcome: Outcome::Active,
            finished_at: None,
        };
        Arc::new(Self { log: Mutex::new(log), appended: watch::Sender::new(0) })
    }

    /// Adds an event of a choice; ignored after its final one.
    pub fn append(&self, choice: usize, event: &Event) {
        let mut log = self.log.lock();
        if !log.is_open(choice) {
            return;
        }
        log.push(choice, event);
        let length = log.bytes.len();
        drop(log);
        self.appended.send_replace(length);
    }

    /// Ends every choice that has more to come with an error.
    pub fn fail(&self, error: &WorkerError) {
        let choices = self.log.lock().open.len();
        (0..choices).for_each(|choice| self.append(choice, &Event::Failed(error.clone())));
    }

    /// Whether the final event of every choice is there.
    pub fn is_finished(&self) -> bool {
        self.finished_at().is_some()
    }

    /// When the last final event came.
    pub fn finished_at(&self) -> Option<Instant> {
        self.log.lock().finished_at
    }

    /// Whether a choice has more to come.
    pub fn is_open(&self, choice: usize) -> bool {
        self.log.lock().is_open(choice)
    }

    /// How it ended.
    pub fn outcome(&self) -> Outcome {
        let log = self.log.lock();
        if log.finished_at.is_some() { log.outcome } else { Outcome::Active }
    }

    /// Bytes that it holds.
    pub fn size(&self) -> usize {
        self.log.lock().bytes.len()
    }

    /// A reader that starts with the first event.
    pub fn read(self: &Arc<Self>) -> Cursor {
        Cursor { buffer: Arc::clone(self), appended: self.appended.subscribe(), next: 0 }
    }
}

impl Log {
    fn is_open(&self, choice: usize) -> bool {
        self.open.get(choice).copied().unwrap_or(false)
    }

    fn push(&mut self, choice: usize, event: &Event) {
        let bytes = std::mem::take(&mut self.bytes);
        let entry = (choice as u32, event);
        self.bytes = postcard::to_extend(&entry, bytes).expect("plain data goes into memory");
        let outcome = match event {
            Event::Started { .. } | Event::Delta { .. } => return,
            Event::Failed(error) if [CANCELLED, CLIENT_GONE].contains(&&*error.code) => {
                Outcome::Cancelled
            }
            Event::Failed(_) => Outcome::Failed,
            Event::Finished { reason: FinishReason::Cancelled, .. } => Outcome::Cancelled,
            Event::Finished { .. } => Outcome::Completed,
        };
        self.open[choice] = false;
        if matches!(self.outcome, Outcome::Active | Outcome::Completed) {
            self.outcome = outcome;
        }
        if !self.open.contains(&true) {
            self.finished_at = Some(Instant::now());
            self.bytes.shrink_to_fit();
        }
    }
}

impl Cursor {
    /// The next events and their choices, at least one; none after the last final event.
    pub async fn next_batch(&mut self) -> Option<Vec<(usize, Event)>> {
        loop {
            let (batch, finished) = self.ready();
            if !batch.is_empty() {
                return Some(batch);
            }
            if finished {
                return None;
            }
            let next = self.next;
            self.appended.wait_for(|&length| next < length).await.ok()?;
        }
    }

    /// The events that are there now, and whether no more will come.
    pub fn ready(&mut self) -> (Vec<(usize, Event)>, bool) {
        let (bytes, finished) = {
            let log = self.buffer.log.lock();
            (log.bytes[self.next..].to_vec(), log.finished_at.is_some())
        };
        self.next += bytes.len();
        (decode(&bytes), finished)
    }
}

fn decode(mut bytes: &[u8]) -> Vec<(usize, Event)> {
    let mut events = Vec::new();
    while !bytes.is_empty() {
        let ((choice, event), rest): ((u32, Event), _) =
            postcard::take_from_bytes(bytes).expect("the log holds what was encoded into it");
        events.push((choice as usize, event));
        bytes = rest;
    }
    events
}

impl Event {
    /// Whether nothing follows.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Finished { .. } | Self::Failed(_))
    }
}

impl Outcome {
    /// Lower-case name for headers and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}
