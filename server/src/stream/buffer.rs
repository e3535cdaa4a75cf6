//! A log with one writer and any number of readers, none of which the writer waits for.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use super::progress::Progress;
use super::{CANCELLED, CLIENT_GONE};
use crate::ipc::{Event, FinishReason, Usage, WorkerError};
use crate::journal::{End, Hold, Link};

/// Events of all choices of one inference, in the order in which they came.
///
/// They are kept as postcard bytes, about a dozen a token: what is kept for those who come back is
/// many times what is being read.
#[derive(Debug)]
pub struct StreamBuffer {
    /// A mutex because one writer and many readers share it for the length of a copy.
    log: Mutex<Log>,
    /// Bytes ever shown; readers wait on it.
    shown: watch::Sender<usize>,
}

#[derive(Debug)]
struct Log {
    bytes: Vec<u8>,
    /// Bytes that readers may see; the others are on their way to the disk.
    num_shown: usize,
    /// What is known of each choice.
    choices: Vec<Progress>,
    outcome: Outcome,
    finished_at: Option<Instant>,
    end: Option<End>,
    /// The journal that it is written to, if it is.
    link: Option<Link>,
}

/// How an inference ended, or that it has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    shown: watch::Receiver<usize>,
    next: usize,
}

impl StreamBuffer {
    /// An empty log of so many choices.
    pub fn new(choices: usize) -> Arc<Self> {
        Self::of(Log::new(choices))
    }

    /// A log as it was found on the disk.
    pub(crate) fn restored(
        choices: usize,
        bytes: Vec<u8>,
        end: Option<End>,
        link: Link,
    ) -> Arc<Self> {
        let mut log = Log::new(choices);
        (log.num_shown, log.bytes, log.link) = (bytes.len(), bytes, Some(link));
        match end {
            Some(end) => {
                log.choices.iter_mut().for_each(|choice| choice.has_ended = true);
                (log.outcome, log.end) = (end.outcome, Some(end));
                // How long ago by the clock on the wall, which may have been set since.
                let ago = unix_millis().saturating_sub(end.unix_millis);
                let now = Instant::now();
                log.finished_at = Some(now.checked_sub(Duration::from_millis(ago)).unwrap_or(now));
            }
            None => {
                for (choice, event) in decode(&log.bytes, choices) {
                    log.observe(choice, &event);
                }
            }
        }
        Self::of(log)
    }

    fn of(log: Log) -> Arc<Self> {
        let shown = watch::Sender::new(log.num_shown);
        Arc::new(Self { log: Mutex::new(log), shown })
    }

    /// Adds an event of a choice; ignored after its final one. Readers see it once it is written,
    /// where it is to be written.
    pub fn append(self: &Arc<Self>, choice: usize, event: &Event) {
        let mut log = self.log.lock();
        if !log.is_open(choice) {
            return;
        }
        let at = log.bytes.len();
        log.push(choice, event);
        let added = (at, &log.bytes[at..]);
        if log.link.as_ref().is_some_and(|link| link.append(self, added, log.end)) {
            return;
        }
        log.num_shown = log.bytes.len();
        let length = log.num_shown;
        drop(log);
        self.shown.send_replace(length);
    }

    /// Lets readers see the log up to a byte of it.
    pub(crate) fn show(&self, up_to: usize) {
        let mut log = self.log.lock();
        log.num_shown = log.num_shown.max(up_to);
        let length = log.num_shown;
        drop(log);
        self.shown.send_replace(length);
    }

    /// Links it to a journal. What is there already is not written, so then it is not linked.
    pub(crate) fn link(&self, link: impl FnOnce() -> Link) {
        let mut log = self.log.lock();
        if log.bytes.is_empty() && log.link.is_none() {
            log.link = Some(link());
        }
    }

    /// What readers may see of it, and its end if they see it. With an era, what follows is
    /// durable again.
    pub(crate) fn restate(&self, era: Option<u64>) -> (Vec<u8>, Option<End>) {
        let mut log = self.log.lock();
        if let Some(era) = era {
            // What was lost on its way to the disk is being shown.
            log.num_shown = log.bytes.len();
            if let Some(link) = &mut log.link {
                link.renew(era);
            }
        }
        let all = log.num_shown == log.bytes.len();
        (log.bytes[..log.num_shown].to_vec(), log.end.filter(|_| all))
    }

    /// Forgets it in the journal as well.
    pub(crate) fn forget(&self) {
        if let Some(link) = &self.log.lock().link {
            link.forget();
        }
    }

    /// Whether it survives the node.
    pub(crate) fn is_durable(&self) -> bool {
        self.log.lock().link.as_ref().is_some_and(Link::is_durable)
    }

    /// Writes what is appended to any log, until the hold is dropped, at once.
    pub(crate) fn hold(&self) -> Option<Hold> {
        self.log.lock().link.as_ref().map(Link::hold)
    }

    /// What is known of each choice that has more to come, with its index.
    pub(crate) fn open_choices(&self) -> Vec<(usize, Progress)> {
        let log = self.log.lock();
        let choices = log.choices.iter().copied().enumerate();
        choices.filter(|(_, choice)| !choice.has_ended).collect()
    }

    /// The tokens of a choice.
    pub(crate) fn tokens(&self, choice: usize) -> Vec<u32> {
        let log = self.log.lock();
        let events = decode(&log.bytes, log.choices.len()).into_iter();
        let of_choice = events.filter(|(index, _)| *index == choice);
        of_choice
            .flat_map(|(_, event)| match event {
                Event::Delta { token_ids, .. } => token_ids,
                _ => Vec::new(),
            })
            .collect()
    }

    /// Ends every choice that has more to come with an error.
    pub fn fail(self: &Arc<Self>, error: &WorkerError) {
        let choices = self.log.lock().choices.len();
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
        Cursor { buffer: Arc::clone(self), shown: self.shown.subscribe(), next: 0 }
    }
}

impl Log {
    fn new(choices: usize) -> Self {
        Self {
            bytes: Vec::new(),
            num_shown: 0,
            choices: vec![Progress::default(); choices],
            outcome: Outcome::Active,
            finished_at: None,
            end: None,
            link: None,
        }
    }

    fn is_open(&self, choice: usize) -> bool {
        self.choices.get(choice).is_some_and(|choice| !choice.has_ended)
    }

    fn push(&mut self, choice: usize, event: &Event) {
        let bytes = std::mem::take(&mut self.bytes);
        let entry = (choice as u32, event);
        self.bytes = postcard::to_extend(&entry, bytes).expect("plain data goes into memory");
        self.observe(choice, event);
        if self.finished_at.is_some() {
            self.bytes.shrink_to_fit();
        }
    }

    fn observe(&mut self, choice: usize, event: &Event) {
        self.choices[choice].observe(event);
        let outcome = match event {
            Event::Started { .. } | Event::Delta { .. } => return,
            Event::Failed(error) if [CANCELLED, CLIENT_GONE].contains(&&*error.code) => {
                Outcome::Cancelled
            }
            Event::Failed(_) => Outcome::Failed,
            Event::Finished { reason: FinishReason::Cancelled, .. } => Outcome::Cancelled,
            Event::Finished { .. } => Outcome::Completed,
        };
        if matches!(self.outcome, Outcome::Active | Outcome::Completed) {
            self.outcome = outcome;
        }
        if self.choices.iter().all(|choice| choice.has_ended) {
            self.finished_at = Some(Instant::now());
            let (unix_millis, outcome, usage) = (unix_millis(), self.outcome, self.usage());
            self.end = Some(End { unix_millis, outcome, usage });
        }
    }

    /// Over all choices; a prompt counts once.
    fn usage(&self) -> Usage {
        let per_prompt = self.link.as_ref().map_or(1, Link::choices_per_prompt).max(1);
        let prompts = || self.choices.iter().step_by(per_prompt).map(|choice| choice.usage);
        Usage {
            prompt_tokens: prompts().map(|usage| usage.prompt_tokens).sum(),
            cached_tokens: prompts().map(|usage| usage.cached_tokens).sum(),
            completion_tokens: self.choices.iter().map(|c| c.usage.completion_tokens).sum(),
        }
    }
}

fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as u64
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
            self.shown.wait_for(|&length| next < length).await.ok()?;
        }
    }

    /// The events that are there now, and whether no more will come.
    pub fn ready(&mut self) -> (Vec<(usize, Event)>, bool) {
        let (bytes, finished, choices) = {
            let log = self.buffer.log.lock();
            let all = log.num_shown == log.bytes.len();
            let shown = log.bytes[self.next..log.num_shown].to_vec();
            (shown, log.finished_at.is_some() && all, log.choices.len())
        };
        self.next += bytes.len();
        (decode(&bytes, choices), finished)
    }
}

/// The events of a log, which may have been on a disk: what is no event ends it.
fn decode(mut bytes: &[u8], choices: usize) -> Vec<(usize, Event)> {
    let mut events = Vec::new();
    while !bytes.is_empty() {
        let Ok(((choice, event), rest)) = postcard::take_from_bytes::<(u32, Event)>(bytes) else {
            tracing::error!("the log of a stream does not decode");
            break;
        };
        if (choice as usize) < choices {
            events.push((choice as usize, event));
        }
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
