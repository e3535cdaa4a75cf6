//! Finds stop strings in text that comes in pieces.

use super::Delta;

#[derive(Debug)]
pub(super) struct StopMatcher {
    stop: Vec<String>,
    include_stop: bool,
    /// Text that may be the start of a stop string.
    held: String,
    has_stopped: bool,
}

impl StopMatcher {
    pub(super) fn new(stop: Vec<String>, include_stop: bool) -> Self {
        Self { stop, include_stop, held: String::new(), has_stopped: false }
    }

    /// Of several stop strings the one that is complete first counts, and of those that end
    /// together the longest: so the pieces in which text comes make no difference.
    pub(super) fn push(&mut self, text: &str) -> Delta {
        if self.has_stopped {
            return Delta::default();
        }
        self.held.push_str(text);
        if let Some((start, end, index)) = self.find() {
            self.has_stopped = true;
            self.held.truncate(if self.include_stop { end } else { start });
            return Delta { text: std::mem::take(&mut self.held), stop: Some(index) };
        }
        let rest = self.held.split_off(self.held.len() - self.num_uncertain());
        Delta { text: std::mem::replace(&mut self.held, rest), stop: None }
    }

    /// Nothing follows, so what is held is text.
    pub(super) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    fn find(&self) -> Option<(usize, usize, usize)> {
        let matches = self.stop.iter().enumerate().filter(|(_, stop)| !stop.is_empty());
        let matches = matches.filter_map(|(index, stop)| {
            self.held.find(stop).map(|start| (start, start + stop.len(), index))
        });
        matches.min_by_key(|&(start, end, _)| (end, start))
    }

    /// Bytes of the longest end of `held` that starts a stop string.
    fn num_uncertain(&self) -> usize {
        let longest = |stop: &String| {
            let starts = stop.char_indices().map(|(at, _)| &stop[..at]).rev();
            starts.map(|start| if self.held.ends_with(start) { start.len() } else { 0 }).max()
        };
        self.stop.iter().filter_map(longest).max().unwrap_or(0)
    }
}
