//! One error for every route: whose fault, and what a gateway should do next.

use std::borrow::Cow;
use std::time::Duration;

use axum::http::StatusCode;

use crate::ipc::{ErrorKind, WorkerError};

/// Who must change something for a retry to succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request.
    Caller,
    /// The package or its weights.
    Model,
    /// This node: full, starting, draining, broken.
    Node,
}

/// What a gateway may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same answer would come back from anywhere.
    Never,
    /// Another provider may answer; nothing was generated yet.
    Elsewhere,
    /// This node will answer after a while.
    After(Duration),
}

/// What a route returns when it cannot do what was asked. Each dialect renders it in its own form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Whose fault.
    pub fault: Fault,
    /// What next.
    pub retry: Retry,
    /// Stable, for programs.
    pub code: Cow<'static, str>,
    /// For people.
    pub message: String,
    /// The request field that is wrong.
    pub param: Option<String>,
}

/// Codes whose status does not follow from fault and retry.
const STATUS: &[(&str, StatusCode)] = &[
    ("invalid_api_key", StatusCode::UNAUTHORIZED),
    ("forbidden", StatusCode::FORBIDDEN),
    ("model_not_found", StatusCode::NOT_FOUND),
    ("not_found", StatusCode::NOT_FOUND),
    ("method_not_allowed", StatusCode::METHOD_NOT_ALLOWED),
    ("request_too_large", StatusCode::PAYLOAD_TOO_LARGE),
    ("unsupported_media_type", StatusCode::UNSUPPORTED_MEDIA_TYPE),
    ("request_timeout", StatusCode::REQUEST_TIMEOUT),
    ("model_loading", StatusCode::SERVICE_UNAVAILABLE),
    ("model_failed", StatusCode::SERVICE_UNAVAILABLE),
    ("worker_crashed", StatusCode::SERVICE_UNAVAILABLE),
    ("deadline_exceeded", StatusCode::GATEWAY_TIMEOUT),
    ("stream_not_found", StatusCode::NOT_FOUND),
    ("stream_evicted", StatusCode::GONE),
    ("idempotency_mismatch", StatusCode::UNPROCESSABLE_ENTITY),
];

impl ApiError {
    /// A request that no node would accept.
    pub fn invalid(code: &'static str, message: impl Into<String>) -> Self {
        let (fault, retry) = (Fault::Caller, Retry::Never);
        Self { fault, retry, code: code.into(), message: message.into(), param: None }
    }

    /// Names the request field that is wrong.
    #[must_use]
    pub fn at(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// Something of this node is not there or broken; another may do.
    pub fn node(code: &'static str, message: impl Into<String>) -> Self {
        let (fault, retry) = (Fault::Node, Retry::Elsewhere);
        Self { fault, retry, code: code.into(), message: message.into(), param: None }
    }

    /// The package is at fault.
    pub fn model(code: &'static str, message: impl Into<String>) -> Self {
        Self { fault: Fault::Model, ..Self::node(code, message) }
    }

    /// This node will be able after a while.
    pub fn later(code: &'static str, message: impl Into<String>, after: Duration) -> Self {
        Self { retry: Retry::After(after), ..Self::node(code, message) }
    }

    /// The HTTP status that says the same.
    pub fn status(&self) -> StatusCode {
        if let Some((_, status)) = STATUS.iter().find(|(code, _)| *code == self.code) {
            return *status;
        }
        match (self.fault, self.retry) {
            (Fault::Caller, _) => StatusCode::BAD_REQUEST,
            (_, Retry::After(_)) => StatusCode::TOO_MANY_REQUESTS,
            (Fault::Node, Retry::Elsewhere) => StatusCode::SERVICE_UNAVAILABLE,
            (Fault::Node | Fault::Model, _) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whole seconds for `Retry-After`, at least one.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        match self.retry {
            Retry::After(after) => {
                let partial = u64::from(0 < after.subsec_nanos());
                Some((after.as_secs() + partial).max(1))
            }
            Retry::Never | Retry::Elsewhere => None,
        }
    }
}

impl From<WorkerError> for ApiError {
    fn from(error: WorkerError) -> Self {
        let (fault, retry) = match error.kind {
            ErrorKind::InvalidRequest => (Fault::Caller, Retry::Never),
            ErrorKind::Overloaded => (Fault::Node, Retry::After(Duration::from_secs(1))),
            ErrorKind::Later { millis } => {
                (Fault::Node, Retry::After(Duration::from_millis(millis)))
            }
            ErrorKind::Package => (Fault::Model, Retry::Never),
            ErrorKind::Internal => (Fault::Node, Retry::Elsewhere),
        };
        let message = match error.hint {
            Some(hint) => format!("{}; hint: {hint}", error.message),
            None => error.message,
        };
        Self { fault, retry, code: error.code.into(), message, param: error.param }
    }
}
