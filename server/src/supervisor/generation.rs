//! One running generation, as a route holds it.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::package::{Command, InFlight};
use crate::error::ApiError;
use crate::ipc::{Event, RequestKey};
use crate::stream::{Cursor, StreamBuffer};

/// Owns a generation: dropping it before its end cancels it.
#[derive(Debug)]
pub struct Generation {
    pub(super) key: RequestKey,
    pub(super) buffer: Arc<StreamBuffer>,
    pub(super) commands: mpsc::UnboundedSender<Command>,
    /// Held for its `Drop`: the place in the package's admission count.
    pub(super) _in_flight: InFlight,
}

/// A reader of a generation.
#[derive(Debug)]
pub struct Events {
    cursor: Cursor,
    ready: std::collections::VecDeque<Event>,
}

impl Generation {
    /// Reads from the first event on.
    pub fn events(&self) -> Events {
        Events { cursor: self.buffer.read_from(0), ready: std::collections::VecDeque::new() }
    }

    /// Asks the worker to stop; the final event says that it did.
    pub fn cancel(&self) {
        // A closed channel means that the package is gone, and so has failed the generation.
        let _ = self.commands.send(Command::Cancel(self.key));
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        if !self.buffer.is_finished() {
            self.cancel();
        }
    }
}

impl Events {
    /// The next event; none after the final one.
    pub async fn next(&mut self) -> Option<Event> {
        if self.ready.is_empty() {
            self.ready.extend(self.cursor.next_batch().await?.1);
        }
        self.ready.pop_front()
    }

    /// Waits for the first token, or fails as the generation did, so that a route can still choose
    /// its status. The events are read again by `next`.
    pub async fn admitted(&mut self) -> Result<(), ApiError> {
        loop {
            for event in &self.ready {
                match event {
                    Event::Failed(error) => return Err(error.clone().into()),
                    Event::Delta { .. } | Event::Finished { .. } => return Ok(()),
                    Event::Started { .. } => {}
                }
            }
            match self.cursor.next_batch().await {
                Some((_, batch)) => self.ready.extend(batch),
                None => return Ok(()),
            }
        }
    }
}
