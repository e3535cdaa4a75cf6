//! The body and headers of a request for a prediction.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The body of `POST /predictions` and `PUT /predictions/{id}`. Unknown keys are ignored.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct PredictionRequest {
    /// The caller's id; may be empty.
    pub id: Option<String>,
    /// The inputs: an object, null or absent. Anything else is for [`crate::validate`] to refuse.
    pub input: Option<Value>,
    /// Words for the model's own code.
    pub context: Option<BTreeMap<String, String>>,
    /// Where events are posted.
    pub webhook: Option<String>,
    /// Which events are posted; all if absent, none if empty.
    pub webhook_events_filter: Option<Vec<WebhookEvent>>,
}

/// An event that a webhook can be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WebhookEvent {
    /// The prediction runs.
    Start,
    /// There is more output.
    Output,
    /// There are more logs.
    Logs,
    /// The prediction has ended.
    Completed,
}

impl PredictionRequest {
    /// The inputs, an empty object if there are none.
    pub fn input(&self) -> Value {
        match &self.input {
            None | Some(Value::Null) => Value::Object(serde_json::Map::new()),
            Some(input) => input.clone(),
        }
    }

    /// Where `event` is to be posted, if anywhere.
    pub fn webhook_for(&self, event: WebhookEvent) -> Option<&str> {
        let wanted =
            self.webhook_events_filter.as_ref().is_none_or(|filter| filter.contains(&event));
        self.webhook.as_deref().filter(|_| wanted)
    }
}

/// Whether an `Accept` header asks for an event stream: one of its parts is exactly `text/event-stream`, whatever its q.
pub fn wants_events(accept: &str) -> bool {
    let media_type =
        |part: &str| part.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    accept.split(',').any(|part| media_type(part) == "text/event-stream")
}

/// Whether a `Prefer` header asks for an answer at once: it is exactly `respond-async`.
pub fn wants_async(prefer: &str) -> bool {
    prefer == "respond-async"
}
