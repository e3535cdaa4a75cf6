//! Request bodies: JSON, bounded in size and time.

use std::time::Duration;

use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Map, Value};

use crate::app::App;
use crate::error::ApiError;

/// Time for a body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_mins(1);

/// Reads a request's body as a JSON object.
pub(crate) async fn json_object(
    app: &App,
    request: Request,
) -> Result<Map<String, Value>, ApiError> {
    check_content_type(request.headers())?;
    let bytes = read(request, app.config().max_body_bytes).await?;
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(ApiError::invalid("invalid_json", "the request body must be a JSON object")),
        Err(error) => {
            let message = format!("the request body is not valid JSON: {error}");
            Err(ApiError::invalid("invalid_json", message))
        }
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let full = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = full.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "application/json" || essence.ends_with("+json") {
        return Ok(());
    }
    let sent = if full.is_empty() { "none" } else { full };
    let message = format!("the content type must be application/json: {sent}");
    Err(ApiError::invalid("unsupported_media_type", message))
}

async fn read(request: Request, limit: usize) -> Result<Bytes, ApiError> {
    let body = Limited::new(request.into_body(), limit);
    match tokio::time::timeout(BODY_TIMEOUT, body.collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let message = format!("the request body is longer than {limit} bytes");
            Err(ApiError::invalid("request_too_large", message))
        }
        Ok(Err(error)) => {
            let message = format!("the request body could not be read: {error}");
            Err(ApiError::invalid("invalid_body", message))
        }
        Err(_elapsed) => {
            let message = format!("the request body took longer than {BODY_TIMEOUT:?}");
            Err(ApiError::invalid("request_timeout", message))
        }
    }
}
