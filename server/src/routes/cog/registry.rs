//! The predictions of a package: those in flight, and the last ones that ended.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::prediction::{Prediction, Progress};

/// Ended predictions that can still be asked for.
const MAX_ENDED: usize = 1000;
/// Bytes of JSON that these may take.
const MAX_ENDED_BYTES: usize = 16 << 20;

/// Predictions by id. An id is a key here and nothing else.
#[derive(Debug, Default)]
pub(super) struct Registry {
    /// A mutex because every request and every end changes it; held for map operations.
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    in_flight: HashMap<String, Arc<Prediction>>,
    /// The oldest first.
    ended: VecDeque<(String, Bytes)>,
    ended_bytes: usize,
}

/// What became of a new prediction.
pub(super) enum Admitted<T> {
    /// It is in flight now.
    New(T),
    /// One with its id is in flight already.
    Existing(Arc<Prediction>),
}

impl Registry {
    /// The prediction in flight with this id.
    pub(super) fn in_flight(&self, id: &str) -> Option<Arc<Prediction>> {
        self.entries.lock().in_flight.get(id).cloned()
    }

    /// The JSON of a prediction that is in flight or ended a while ago.
    pub(super) fn snapshot(&self, id: &str) -> Option<Bytes> {
        let entries = self.entries.lock();
        if let Some(prediction) = entries.in_flight.get(id).cloned() {
            drop(entries);
            return Some(snapshot(&prediction.progress()));
        }
        let mut newest_first = entries.ended.iter().rev();
        newest_first.find(|(ended, _)| ended == id).map(|(_, json)| json.clone())
    }

    /// Makes a prediction and holds it, unless its id is in flight or `make` fails. Nobody sees it before `make` is
    /// done, and no two with one id are made.
    pub(super) fn admit<T, E>(
        &self,
        id: &str,
        make: impl FnOnce() -> Result<(Arc<Prediction>, T), E>,
    ) -> Result<Admitted<T>, E> {
        let mut entries = self.entries.lock();
        if let Some(existing) = entries.in_flight.get(id) {
            return Ok(Admitted::Existing(Arc::clone(existing)));
        }
        let (prediction, rest) = make()?;
        entries.in_flight.insert(id.to_owned(), prediction);
        Ok(Admitted::New(rest))
    }

    /// Takes the last step of a prediction and lets go of it. Who learns of the end finds the id free.
    pub(super) fn end(&self, prediction: &Prediction, last_step: impl FnOnce(&mut Progress)) {
        let mut entries = self.entries.lock();
        let mut json = Bytes::new();
        prediction.advance(|progress| {
            last_step(progress);
            json = snapshot(progress);
        });
        entries.in_flight.remove(prediction.id());
        entries.remember(prediction.id(), json);
    }
}

impl Entries {
    fn remember(&mut self, id: &str, json: Bytes) {
        self.ended_bytes += json.len();
        self.ended.push_back((id.to_owned(), json));
        while MAX_ENDED < self.ended.len() || MAX_ENDED_BYTES < self.ended_bytes {
            let Some((_, json)) = self.ended.pop_front() else { break };
            self.ended_bytes -= json.len();
        }
    }
}

fn snapshot(progress: &Progress) -> Bytes {
    Bytes::from(progress.state.in_flight().to_string())
}

#[cfg(test)]
mod tests;
