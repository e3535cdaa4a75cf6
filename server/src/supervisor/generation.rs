//! One running generation, as a route holds it.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::package::Command;
use crate::ipc::{Event, RequestKey};
use crate::stream::{Cursor, StreamBuffer};

/// Owns a generation: dropping it before its end cancels it.
#[derive(Debug)]
pub struct Generation {
    pub(super) key: RequestKey,
    pub(super) choice: usize,
    pub(super) buffer: Arc<StreamBuffer>,
    pub(super) commands: mpsc::UnboundedSender<Command>,
}

/// A reader of a log with one choice.
#[derive(Debug)]
pub struct Events {
    cursor: Cursor,
    ready: VecDeque<(usize, Event)>,
}

impl Generation {
    /// Reads from the first event on.
    pub fn events(&self) -> Events {
        Events { cursor: self.buffer.read(), ready: VecDeque::new() }
    }

    /// Asks the worker to stop, unless it has; the final event says that it did.
    pub fn cancel(&self) {
        // A closed channel means that the package is gone, and so has failed the generation.
        let _ = self.commands.send(Command::Cancel(self.key));
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        if self.buffer.is_open(self.choice) {
            self.cancel();
        }
    }
}

impl Events {
    /// The next event; none after the final one.
    pub async fn next(&mut self) -> Option<Event> {
        if self.ready.is_empty() {
            self.ready.extend(self.cursor.next_batch().await?);
        }
        self.ready.pop_front().map(|(_, event)| event)
    }
}
