//! Where inferences are found again, by the id of their stream and by the caller's own key.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Inference, Outcome};
use crate::error::ApiError;
use crate::http::Tenant;
use crate::journal::{Journal, JournalUsage, Restored};

/// What an inference takes besides its log, about.
const OVERHEAD_BYTES: usize = 1024;
/// Bytes of logs that are evicted in one sweep where the disk is full.
const EVICTED_AT_ONCE: usize = 1 << 20;
/// Ids of evicted streams that are remembered, to tell "evicted" from "never there".
const MAX_EVICTED: usize = 4096;

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamLimits {
    /// Time that an ended inference is kept.
    pub(crate) ttl: Duration,
    /// Bytes of all logs. Ended inferences are evicted to stay below, the oldest first.
    pub(crate) bytes: usize,
}

/// A caller's name for a request: the same key and body mean the same inference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IdempotencyKey {
    /// The name.
    pub(crate) key: String,
    /// SHA-256 of the canonical body.
    pub(crate) fingerprint: [u8; 32],
}

/// What a request came to.
#[derive(Debug)]
pub(crate) enum Begun {
    /// A new inference, to be submitted. Whether others can find it.
    New(Arc<Inference>, bool),
    /// One that had begun before under the same key.
    Known(Arc<Inference>),
}

/// What the store holds, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StreamUsage {
    /// Inferences that run.
    pub(crate) active: usize,
    /// Inferences that ended and are kept.
    pub(crate) ended: usize,
    /// Bytes of their logs.
    pub(crate) bytes: usize,
    /// Inferences evicted before their time, ever.
    pub(crate) num_evicted: u64,
    /// Requests that found their inference by their key, ever.
    pub(crate) num_replayed: u64,
    /// Inferences of an earlier node that were found again.
    pub(crate) num_restored: u64,
    /// Bytes that their logs may take.
    pub(crate) limit_bytes: usize,
    /// Time that an ended inference is kept.
    pub(crate) ttl: Duration,
    /// What is on the disk, if anything is written there.
    pub(crate) journal: Option<JournalUsage>,
}

/// All inferences that can be found.
#[derive(Debug)]
pub(crate) struct StreamStore {
    limits: StreamLimits,
    /// Where they are written, if they are.
    journal: Option<Journal>,
    /// A mutex, because every request comes by; held for map operations.
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    by_id: HashMap<String, Arc<Inference>>,
    by_key: HashMap<(Tenant, String), (Arc<Inference>, [u8; 32])>,
    /// The keys of inferences that have one, by id.
    keys: HashMap<String, String>,
    evicted: VecDeque<(Tenant, String)>,
    /// As of the last sweep.
    bytes: usize,
    num_evicted: u64,
    num_replayed: u64,
    num_restored: u64,
}

impl StreamStore {
    /// An empty store.
    pub(crate) fn new(limits: StreamLimits, journal: Option<Journal>) -> Self {
        Self { limits, journal, kept: Mutex::default() }
    }

    /// Where inferences are written, if they are.
    pub(crate) fn journal(&self) -> Option<&Journal> {
        self.journal.as_ref()
    }

    /// Takes in an inference of an earlier node.
    pub(super) fn restore(&self, restored: &Restored) -> Arc<Inference> {
        let key = restored.begin.key.clone();
        let inference = Arc::new(Inference::restored(restored));
        let mut kept = self.kept.lock();
        if let Some(IdempotencyKey { key, fingerprint }) = key {
            let named = (Arc::clone(&inference), fingerprint);
            kept.by_key.insert((inference.tenant, key.clone()), named);
            kept.keys.insert(inference.meta.id.clone(), key);
        }
        kept.by_id.insert(inference.meta.id.clone(), Arc::clone(&inference));
        kept.num_restored += 1;
        inference
    }

    /// How much is kept, and for how long.
    pub(crate) fn limits(&self) -> StreamLimits {
        self.limits
    }

    /// Registers an inference, or finds the one that its key names.
    ///
    /// # Errors
    /// When the key was used with another body.
    pub(crate) fn begin(
        &self,
        inference: Inference,
        key: Option<IdempotencyKey>,
    ) -> Result<Begun, ApiError> {
        let mut kept = self.kept.lock();
        let inference = Arc::new(inference);
        if self.limits.bytes < kept.bytes && key.is_none() {
            return Ok(Begun::New(inference, false));
        }
        if let Some(IdempotencyKey { key, fingerprint }) = key {
            match kept.by_key.entry((inference.tenant, key.clone())) {
                Entry::Occupied(entry) => {
                    let (known, expected) = entry.get();
                    if *expected != fingerprint {
                        return Err(mismatch());
                    }
                    let known = Arc::clone(known);
                    kept.num_replayed += 1;
                    return Ok(Begun::Known(known));
                }
                Entry::Vacant(entry) => {
                    entry.insert((Arc::clone(&inference), fingerprint));
                    kept.keys.insert(inference.meta.id.clone(), key);
                }
            }
        }
        kept.by_id.insert(inference.meta.id.clone(), Arc::clone(&inference));
        Ok(Begun::New(inference, true))
    }

    /// Finds an inference of a tenant.
    ///
    /// # Errors
    /// The same for one that never was and one of somebody else; another for one that was evicted.
    pub(crate) fn get(&self, id: &str, tenant: Tenant) -> Result<Arc<Inference>, ApiError> {
        let kept = self.kept.lock();
        if let Some(found) = kept.by_id.get(id).filter(|found| found.tenant == tenant) {
            return Ok(Arc::clone(found));
        }
        if kept.evicted.iter().any(|(owner, evicted)| *owner == tenant && evicted == id) {
            let message = "the stream was dropped to make room for newer ones";
            return Err(ApiError::invalid("stream_evicted", message));
        }
        Err(ApiError::invalid("stream_not_found", format!("there is no such stream: {id}")))
    }

    /// Whether an inference that can be found will be found after the node has died, too; where
    /// there is no journal, nobody expects that.
    pub(crate) fn is_resumable(&self, inference: &Inference) -> bool {
        self.journal.is_none() || inference.buffer.is_durable()
    }

    /// Forgets an inference.
    pub(crate) fn remove(&self, inference: &Arc<Inference>) {
        self.kept.lock().remove(inference);
    }

    /// Forgets what has been kept for long enough, and what there is no room for.
    pub(crate) fn sweep(&self, now: Instant) {
        let mut room_wanted = 0;
        if let Some(journal) = &self.journal {
            journal.judge(now.into_std());
            room_wanted = if journal.is_full() { EVICTED_AT_ONCE } else { 0 };
        }
        let mut kept = self.kept.lock();
        let mut ended: Vec<(Instant, Arc<Inference>)> = kept
            .by_id
            .values()
            .filter_map(|one| Some((one.buffer.finished_at()?, Arc::clone(one))))
            .collect();
        ended.sort_by_key(|(at, _)| *at);
        kept.bytes = kept.by_id.values().map(|one| size(one)).sum();
        for (at, inference) in ended {
            let expired = self.limits.ttl <= now.saturating_duration_since(at);
            let crowded = self.limits.bytes < kept.bytes || 0 < room_wanted;
            if !expired && !crowded {
                break;
            }
            room_wanted = room_wanted.saturating_sub(size(&inference));
            kept.bytes -= size(&inference);
            kept.remove(&inference);
            if !expired {
                kept.num_evicted += 1;
                kept.evicted.push_back((inference.tenant, inference.meta.id.clone()));
                if MAX_EVICTED < kept.evicted.len() {
                    kept.evicted.pop_front();
                }
            }
        }
    }

    /// What it holds now.
    pub(crate) fn usage(&self) -> StreamUsage {
        let kept = self.kept.lock();
        let is_active = |one: &&Arc<Inference>| one.buffer.outcome() == Outcome::Active;
        let active = kept.by_id.values().filter(is_active).count();
        StreamUsage {
            active,
            ended: kept.by_id.len() - active,
            bytes: kept.by_id.values().map(|one| one.buffer.size()).sum(),
            num_evicted: kept.num_evicted,
            num_replayed: kept.num_replayed,
            num_restored: kept.num_restored,
            limit_bytes: self.limits.bytes,
            ttl: self.limits.ttl,
            journal: self.journal.as_ref().map(Journal::usage),
        }
    }
}

impl Kept {
    fn remove(&mut self, inference: &Arc<Inference>) {
        inference.buffer.forget();
        self.by_id.remove(&inference.meta.id);
        if let Some(key) = self.keys.remove(&inference.meta.id) {
            self.by_key.remove(&(inference.tenant, key));
        }
    }
}

fn size(inference: &Inference) -> usize {
    inference.buffer.size() + OVERHEAD_BYTES
}

fn mismatch() -> ApiError {
    let message = "the idempotency key was used with another request body";
    ApiError::invalid("idempotency_mismatch", message)
}
