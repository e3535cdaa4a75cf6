//! One prediction of Cog's HTTP API: what is asked, how it goes, and what is answered.
//!
//! Everything is a value: ids, times and durations come in from outside, JSON and SSE text go out. Objects have their
//! keys in alphabetical order, as Cog's have.
mod answers;
mod event;
mod health;
mod metrics;
mod request;
mod state;

pub use answers::{Refusal, accepted, discovery, id_mismatch};
pub use event::{KEEP_ALIVE, PredictionEvent, StreamFault};
pub use health::{HealthCheck, HealthStatus, Setup, SetupStatus, VersionInfo};
pub use metrics::{MetricError, MetricMode, Metrics};
pub use request::{PredictionRequest, WebhookEvent, wants_async, wants_events};
pub use state::{LogSource, OutputShape, PredictionState, Status, TransitionError};

use serde_json::{Map, Value};

/// The id of a prediction whose caller gave none, made of a time in nanoseconds: `pred_18e9e03760820d8e`.
pub fn prediction_id(nanos: u64) -> String {
    format!("pred_{nanos:x}")
}

/// The same value with the keys of every object in alphabetical order.
pub fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> =
                map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(Map::from_iter(entries))
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}
