//! What is known of a choice while its events come.

use crate::ipc::{Event, Usage};

/// How far a choice is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// What it took so far.
    pub(crate) usage: Usage,
    /// Whether something of its text was delivered.
    pub(crate) has_text: bool,
    /// Whether its final event is there.
    pub(crate) has_ended: bool,
}

impl Progress {
    /// Counts what an event means.
    pub(crate) fn observe(&mut self, event: &Event) {
        match event {
            Event::Started { prompt_tokens, cached_tokens } => {
                self.usage.prompt_tokens = *prompt_tokens;
                self.usage.cached_tokens = *cached_tokens;
            }
            Event::Delta { token_ids, .. } => {
                self.usage.completion_tokens += token_ids.len() as u32;
                self.has_text = true;
            }
            Event::Finished { usage, .. } => {
                self.usage = *usage;
                self.has_ended = true;
            }
            Event::Failed(_) => self.has_ended = true,
        }
    }
}
