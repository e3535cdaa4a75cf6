//! Inferences of an earlier node go on, as soon as their packages can.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::{Inference, OnDisconnect, StreamStore};
use crate::app::App;
use crate::ipc::{GenerationParams, Prompt, WorkerError};
use crate::journal::{Begin, Restored};
use crate::supervisor::{Package, PackageState, Resumption, StateKind};

/// Code of the error that ends a stream that the node cannot go on with.
const NODE_RESTARTED: &str = "node_restarted";

/// An inference that has not ended, and what it takes to go on.
#[derive(Debug)]
pub(crate) struct Unfinished {
    inference: Arc<Inference>,
    begin: Begin,
}

/// Takes in what an earlier node left, and says what of it has not ended.
pub(crate) fn restore(store: &StreamStore, restored: Vec<Restored>) -> Vec<Unfinished> {
    let mut unfinished = Vec::new();
    for one in restored {
        let (inference, begin) = (store.restore(&one), one.begin);
        if one.buffer.finished_at().is_none() {
            unfinished.push(Unfinished { inference, begin });
        }
    }
    unfinished
}

/// Goes on with what an earlier node left. Call it on a runtime.
pub(crate) fn go_on(app: &App, unfinished: Vec<Unfinished>) {
    let mut by_package: BTreeMap<String, Vec<Unfinished>> = BTreeMap::new();
    for one in unfinished {
        by_package.entry(one.begin.meta.model.clone()).or_default().push(one);
    }
    for (name, streams) in by_package {
        if let Some(package) = app.packages().iter().find(|package| package.name() == name) {
            app.spawn(when_ready(app.clone(), package.clone(), streams));
        } else {
            let reason = format!("its package is not served any more: {name}");
            streams.iter().for_each(|one| one.give_up(&reason));
        }
    }
}

/// Waits for the package, and goes on if it is the same.
async fn when_ready(app: App, package: Package, streams: Vec<Unfinished>) {
    let mut states = package.watch_state();
    let decided = |state: &PackageState| {
        let kind = state.kind();
        matches!(kind, StateKind::Ready | StateKind::Failed | StateKind::Stopped)
    };
    let state = tokio::select! {
        // They are on the disk: the next node goes on.
        () = app.stopping().cancelled() => return,
        state = states.wait_for(decided) => state.map(|state| state.clone()),
    };
    let identity = package.info().map(|info| info.identity.clone()).unwrap_or_default();
    for one in streams {
        match &state {
            Ok(PackageState::Failed(error)) => {
                one.give_up(&format!("its package does not load: {error}"));
            }
            Ok(PackageState::Ready) if one.begin.identity == identity => {
                one.go_on(&package, app.config().linger);
            }
            Ok(PackageState::Ready) => one.give_up("its package has changed"),
            Ok(_) | Err(_) => {}
        }
    }
}

impl Unfinished {
    /// Ends it, and says why.
    fn give_up(&self, reason: &str) {
        let message = format!("the node was restarted and cannot go on with the stream: {reason}");
        self.inference.buffer.fail(&WorkerError::internal(NODE_RESTARTED, message));
    }

    /// Submits what is left of each choice. Readers have as long to come back as they have when
    /// they leave by themselves.
    fn go_on(self, package: &Package, linger: Duration) {
        let Self { inference, begin } = self;
        let created = begin.meta.created;
        let recipes = recipes(begin);
        let open = inference.buffer.open_choices().into_iter();
        let resumption = |(choice, progress): (usize, super::Progress)| {
            let (prompt, mut params) = recipes.get(choice)?.clone();
            let deadline = params.urgency.deadline_millis.take();
            if !progress.has_text {
                params.urgency.deadline_millis = deadline.map(|limit| left(limit, created));
            }
            let token_ids = inference.buffer.tokens(choice);
            Some(Resumption { choice, prompt, params, progress, token_ids })
        };
        let resumptions = open.filter_map(resumption).collect();
        match package.resume_all(&inference.buffer, resumptions, created) {
            Ok(generations) => inference.adopt(generations),
            Err(error) => {
                let (code, message) = (NODE_RESTARTED, error.message);
                return inference.buffer.fail(&WorkerError::internal(code, message));
            }
        }
        match inference.on_disconnect {
            OnDisconnect::Complete => {}
            OnDisconnect::Linger(time) => inference.linger(time.max(linger)),
            OnDisconnect::Cancel => inference.linger(linger),
        }
    }
}

/// What each choice continues, and how.
fn recipes(begin: Begin) -> Vec<(Prompt, GenerationParams)> {
    let mut request = begin.request;
    request.restore_prompts(begin.prompts);
    let mut recipes = Vec::with_capacity(request.choices);
    for one in request.take_submissions() {
        for seed in std::iter::once(one.params.seed).chain(one.further_seeds) {
            recipes.push((one.prompt.clone(), GenerationParams { seed, ..one.params.clone() }));
        }
    }
    recipes
}

/// What is left of a deadline, by the clock on the wall.
fn left(limit_millis: u64, created: i64) -> u64 {
    let elapsed = Timestamp::now().as_second().saturating_sub(created).max(0);
    limit_millis.saturating_sub(elapsed.unsigned_abs().saturating_mul(1000))
}
