//! The answers that are not a prediction: discovery, acceptance, refusals.
use serde_json::{Value, json};

use super::sorted;

/// Why a request is refused before a prediction exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Every slot is taken and nothing may wait.
    AtCapacity,
    /// The model is not set up, or its setup failed.
    NotReady,
    /// An event stream of a model that does not stream.
    NoStreaming,
    /// An event stream of a training.
    NoTrainingStream,
    /// An event stream of a prediction that has just ended.
    NotFound,
    /// A prediction has more readers than are allowed.
    TooManySubscribers,
    /// The event stream of a prediction is broken.
    StreamUnavailable,
    /// There is no schema yet.
    NoSchema,
    /// Cancellation of an id that is not in flight.
    NothingToCancel,
}

impl Refusal {
    /// The HTTP status code.
    pub fn code(self) -> u16 {
        match self {
            Self::NotFound | Self::NothingToCancel => 404,
            Self::NoStreaming | Self::NoTrainingStream => 406,
            Self::AtCapacity => 409,
            Self::TooManySubscribers => 429,
            Self::StreamUnavailable => 500,
            Self::NotReady | Self::NoSchema => 503,
        }
    }

    /// The body.
    pub fn body(self) -> Value {
        let error = match self {
            Self::AtCapacity => "At capacity - all prediction slots busy",
            Self::NotReady => {
                "Setup has not finished yet. Wait until it has finished, or GET /health-check for status."
            }
            Self::NoStreaming => {
                "This model does not support streaming responses. Add @cog.streaming to predict() to enable SSE."
            }
            Self::NoTrainingStream => "Training endpoints do not support streaming responses.",
            Self::NotFound => "Prediction not found",
            Self::TooManySubscribers => "Too many stream subscribers",
            Self::StreamUnavailable => "Prediction stream unavailable",
            Self::NoSchema => "OpenAPI schema not available",
            Self::NothingToCancel => return json!({}),
        };
        match self {
            Self::AtCapacity | Self::NotReady => json!({"error": error, "status": "failed"}),
            _ => json!({"error": error}),
        }
    }
}

/// The body of the 202 that accepts a prediction.
pub fn accepted(id: &str) -> Value {
    json!({"id": id, "status": "starting"})
}

/// The body of the 422 for a `PUT` whose body names another id than its path.
pub fn id_mismatch() -> Value {
    let message = "prediction ID must match the ID supplied in the URL";
    json!({"detail": [{"loc": ["body", "id"], "msg": message, "type": "value_error"}]})
}

/// The body of `GET /`. `cog_version` is the version of the SDK or server that answers.
pub fn discovery(cog_version: &str, has_training: bool) -> Value {
    let mut body = json!({
        "cog_version": cog_version,
        "docs_url": "/docs",
        "healthcheck_url": "/health-check",
        "openapi_url": "/openapi.json",
        "predictions_cancel_url": "/predictions/{prediction_id}/cancel",
        "predictions_idempotent_url": "/predictions/{prediction_id}",
        "predictions_url": "/predictions",
        "shutdown_url": "/shutdown",
    });
    if has_training {
        body["trainings_url"] = "/trainings".into();
        body["trainings_idempotent_url"] = "/trainings/{training_id}".into();
        body["trainings_cancel_url"] = "/trainings/{training_id}/cancel".into();
    }
    sorted(body)
}
