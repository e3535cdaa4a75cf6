//! Which event a webhook is told of next.

use std::collections::HashSet;

use pinion_cog_compat::prediction::{
    OutputShape, PredictionEvent, PredictionState, Status, WebhookEvent,
};
use serde_json::Value;

use crate::routes::cog::prediction::Progress;

/// What was reported of one prediction so far.
#[derive(Debug, Default)]
pub(super) struct Reports {
    started: bool,
    outputs: usize,
    completed: bool,
}

impl Reports {
    /// The next wanted event and its body; none if all that happened was reported.
    pub(super) fn next(
        &mut self,
        progress: &Progress,
        wanted: &HashSet<WebhookEvent>,
    ) -> Option<(WebhookEvent, Value)> {
        let state = &progress.state;
        let ran = matches!(progress.events.first(), Some(PredictionEvent::Start { .. }));
        if ran
            && !std::mem::replace(&mut self.started, true)
            && wanted.contains(&WebhookEvent::Start)
        {
            return Some((WebhookEvent::Start, at_start(state.id())));
        }
        let outputs = state.outputs().len();
        if self.outputs < outputs && wanted.contains(&WebhookEvent::Output) {
            self.outputs = outputs;
            return Some((WebhookEvent::Output, running(state)));
        }
        let ended = state.status().is_terminal();
        if ended
            && !std::mem::replace(&mut self.completed, true)
            && wanted.contains(&WebhookEvent::Completed)
        {
            return Some((WebhookEvent::Completed, state.snapshot()));
        }
        None
    }
}

/// A prediction as it was when it began to run.
fn at_start(id: &str) -> Value {
    let mut state = PredictionState::new(id, Value::Null, OutputShape::List);
    // A new prediction can start.
    let _ = state.start();
    state.snapshot()
}

/// A prediction as it was before it ended.
fn running(state: &PredictionState) -> Value {
    let mut snapshot = state.snapshot();
    if state.status().is_terminal()
        && let Value::Object(fields) = &mut snapshot
    {
        fields.insert("status".to_owned(), Status::Processing.name().into());
        fields.shift_remove("error");
        if let Some(Value::Object(metrics)) = fields.get_mut("metrics") {
            metrics.shift_remove("predict_time");
        }
    }
    snapshot
}
