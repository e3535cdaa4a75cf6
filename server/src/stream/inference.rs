//! One inference: what was asked, its log, who reads it, and what becomes of it when nobody does.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::{CANCELLED, CLIENT_GONE, Cursor, IdempotencyKey, StreamBuffer};
use crate::error::ApiError;
use crate::http::Tenant;
use crate::ipc::{Event, WorkerError};
use crate::journal::{Begin, Journal, Restored};
use crate::supervisor::{Generation, Package};
use crate::wire::openai::{GenerateRequest, Meta, Submission};

/// What becomes of an inference when its last reader leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum OnDisconnect {
    /// It goes on for so long, in case a reader comes back.
    Linger(Duration),
    /// It ends at once.
    Cancel,
    /// It goes on to its end.
    Complete,
}

/// An inference, running or ended.
#[derive(Debug)]
pub(crate) struct Inference {
    /// What is constant in its answers; `meta.id` is the id of its stream.
    pub(crate) meta: Meta,
    /// What was asked, without the prompts.
    pub(crate) request: GenerateRequest,
    /// Whose it is.
    pub(crate) tenant: Tenant,
    /// Its log.
    pub(crate) buffer: Arc<StreamBuffer>,
    pub(super) on_disconnect: OnDisconnect,
    readers: AtomicUsize,
    /// A mutex, because they are submitted after others may have found the inference.
    generations: Mutex<Vec<Generation>>,
}

/// A reader of an inference, from its first event on.
#[derive(Debug)]
pub(crate) struct Reader {
    inference: Arc<Inference>,
    cursor: Cursor,
    ready: VecDeque<(usize, Event)>,
}

impl Inference {
    /// An inference that nothing was submitted for yet.
    pub(crate) fn new(
        meta: Meta,
        request: GenerateRequest,
        tenant: Tenant,
        on_disconnect: OnDisconnect,
    ) -> Self {
        let buffer = StreamBuffer::new(request.choices);
        let (readers, generations) = (AtomicUsize::new(0), Mutex::default());
        Self { meta, request, tenant, buffer, on_disconnect, readers, generations }
    }

    /// One of an earlier node.
    pub(super) fn restored(restored: &Restored) -> Self {
        let Restored { begin, buffer } = restored;
        let (readers, generations) = (AtomicUsize::new(0), Mutex::default());
        let (meta, request, buffer) = (begin.meta.clone(), begin.request.clone(), buffer.clone());
        let (tenant, on_disconnect) = (begin.tenant, begin.on_disconnect);
        Self { meta, request, tenant, buffer, on_disconnect, readers, generations }
    }

    /// Submits a generation a choice; all of them or none. Where there is a journal, what is
    /// submitted is written there.
    pub(crate) fn submit(
        &self,
        package: &Package,
        submissions: Vec<Submission>,
        record: Option<(&Journal, Option<IdempotencyKey>)>,
    ) -> Result<(), ApiError> {
        let submitted = package.admit(self.request.choices).and_then(|places| {
            if let Some((journal, key)) = record {
                journal.begin(&self.buffer, &self.recipe(package, &submissions, key));
            }
            let submission = |one: Submission| (one.prompt, one.params, one.further_seeds);
            let submissions = submissions.into_iter().map(submission).collect();
            package.generate_all(&self.buffer, places, submissions, self.meta.created)
        });
        if let Err(error) = &submitted {
            self.buffer.fail(&WorkerError::internal(&*error.code, &*error.message));
        }
        *self.generations.lock() = submitted?;
        Ok(())
    }

    fn recipe(
        &self,
        package: &Package,
        submissions: &[Submission],
        key: Option<IdempotencyKey>,
    ) -> Begin {
        Begin {
            meta: self.meta.clone(),
            request: self.request.clone(),
            prompts: submissions.iter().map(|one| one.prompt.clone()).collect(),
            tenant: self.tenant,
            key,
            on_disconnect: self.on_disconnect,
            identity: package.info().map(|info| info.identity.clone()).unwrap_or_default(),
        }
    }

    /// Takes the generations that go on with it. They are cancelled if it has ended meanwhile.
    pub(super) fn adopt(&self, generations: Vec<Generation>) {
        *self.generations.lock() = generations;
        if self.buffer.is_finished() {
            self.generations.lock().iter().for_each(Generation::cancel);
        }
    }

    /// Reads from the first event on.
    pub(crate) fn read(self: &Arc<Self>) -> Reader {
        self.readers.fetch_add(1, Ordering::AcqRel);
        let cursor = self.buffer.read();
        Reader { inference: Arc::clone(self), cursor, ready: VecDeque::new() }
    }

    /// Ends it by name; its readers are told.
    pub(crate) fn cancel(&self) {
        self.end(CANCELLED, "the inference was cancelled");
    }

    fn end(&self, code: &str, message: &str) {
        self.buffer.fail(&WorkerError::internal(code, message));
        self.generations.lock().iter().for_each(Generation::cancel);
    }

    fn leave(self: &Arc<Self>) {
        let was_last = self.readers.fetch_sub(1, Ordering::AcqRel) == 1;
        if !was_last || self.buffer.is_finished() {
            return;
        }
        match self.on_disconnect {
            OnDisconnect::Complete => {}
            OnDisconnect::Linger(time) => self.linger(time),
            OnDisconnect::Cancel => self.end_unless_read(),
        }
    }

    /// Ends it after a while if nobody reads it then.
    pub(super) fn linger(self: &Arc<Self>, time: Duration) {
        let Ok(runtime) = Handle::try_current() else { return self.end_unless_read() };
        let inference = Arc::clone(self);
        runtime.spawn(async move {
            tokio::time::sleep(time).await;
            inference.end_unless_read();
        });
    }

    fn end_unless_read(&self) {
        if self.readers.load(Ordering::Acquire) == 0 {
            self.end(CLIENT_GONE, "nobody read the stream any more");
        }
    }
}

impl Reader {
    /// The inference that it reads.
    pub(crate) fn inference(&self) -> &Arc<Inference> {
        &self.inference
    }

    /// Waits for the first token of any choice, or fails as a choice did that has none, so that a
    /// route can still choose its status. The events are read again by `next`.
    pub(crate) async fn admitted(&mut self) -> Result<(), ApiError> {
        let mut begun = BTreeSet::new();
        while begun.is_empty() {
            let Some(batch) = self.cursor.next_batch().await else { return Ok(()) };
            for (choice, event) in &batch {
                match event {
                    Event::Failed(error) if !begun.contains(choice) => {
                        return Err(error.clone().into());
                    }
                    Event::Started { .. } => {}
                    _ => drop(begun.insert(*choice)),
                }
            }
            self.ready.extend(batch);
        }
        Ok(())
    }

    /// The next event and its choice; none after the last.
    pub(crate) async fn next(&mut self) -> Option<(usize, Event)> {
        if self.ready.is_empty() {
            self.ready.extend(self.cursor.next_batch().await?);
        }
        self.pop()
    }

    /// The next event and its choice, if it is there already.
    pub(crate) fn next_ready(&mut self) -> Option<(usize, Event)> {
        if self.ready.is_empty() {
            self.ready.extend(self.cursor.ready().0);
        }
        self.pop()
    }

    /// Whether `next` is known to have no more.
    pub(crate) fn is_finished(&mut self) -> bool {
        self.ready.is_empty() && {
            let (batch, finished) = self.cursor.ready();
            self.ready.extend(batch);
            self.ready.is_empty() && finished
        }
    }

    /// An answer with an error in one choice is over, so the others are cancelled.
    fn pop(&mut self) -> Option<(usize, Event)> {
        let next = self.ready.pop_front();
        if let Some((_, Event::Failed(_))) = next {
            self.inference.generations.lock().iter().for_each(Generation::cancel);
        }
        next
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.inference.leave();
    }
}
