//! Errors in OpenAI's form.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::error::{ApiError, Fault, Retry};

/// An error that answers a request in OpenAI's form.
#[derive(Debug)]
pub(crate) struct OpenAiError(pub(crate) ApiError);

#[derive(Serialize)]
struct Envelope<'a> {
    error: ErrorBody<'a>,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    message: &'a str,
    r#type: &'static str,
    param: Option<&'a str>,
    code: &'a str,
}

/// The JSON of an error.
pub(crate) fn error_body(error: &ApiError) -> String {
    let body = ErrorBody {
        message: &error.message,
        r#type: error_type(error),
        param: error.param.as_deref(),
        code: &error.code,
    };
    serde_json::to_string(&Envelope { error: body }).expect("strings always serialize")
}

fn error_type(error: &ApiError) -> &'static str {
    match (error.status(), error.fault) {
        (StatusCode::UNAUTHORIZED, _) => "authentication_error",
        (StatusCode::FORBIDDEN, _) => "permission_error",
        (StatusCode::TOO_MANY_REQUESTS, _) => "rate_limit_error",
        (_, Fault::Caller) => "invalid_request_error",
        (_, Fault::Model | Fault::Node) => "server_error",
    }
}

impl From<ApiError> for OpenAiError {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for OpenAiError {
    fn into_response(self) -> Response {
        let Self(error) = self;
        let mut response = Response::new(Body::from(error_body(&error)));
        *response.status_mut() = error.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = error.retry_after_seconds() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        // OpenAI's clients repeat every 5xx unless they are told not to.
        let retry = if error.retry == Retry::Never { "false" } else { "true" };
        headers.insert("x-should-retry", HeaderValue::from_static(retry));
        response
    }
}
