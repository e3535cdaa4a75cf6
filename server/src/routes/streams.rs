//! `GET`, `HEAD` and `DELETE /v1/streams/{id}`: an inference found again.

use std::time::{Duration, SystemTime};

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, head};
use jiff::Timestamp;
use serde::Deserialize;

use super::completions::{name_stream, whole};
use super::sse::SseStream;
use super::{Access, Route};
use crate::app::App;
use crate::error::ApiError;
use crate::http::Tenant;
use crate::stream::Inference;
use crate::wire::openai::OpenAiError;

const PATHS: &[&str] = &["/v1/streams/{id}", "/streams/{id}"];

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        paths: PATHS,
        access: Access::Key,
        summary: "Read a stream again, from a place in it on.",
        body: None,
        handler: || get(read),
    },
    Route {
        method: "HEAD",
        paths: PATHS,
        access: Access::Key,
        summary: "How far a stream is.",
        body: None,
        handler: || head(look),
    },
    Route {
        method: "DELETE",
        paths: PATHS,
        access: Access::Key,
        summary: "Cancel and forget a stream.",
        body: None,
        handler: || delete(remove),
    },
    Route {
        method: "GET",
        paths: &["/v1/chat/completions/{id}", "/chat/completions/{id}"],
        access: Access::Key,
        summary: "The answer to a conversation, once it is whole.",
        body: None,
        handler: || get(answer),
    },
];

#[derive(Debug, Default, Deserialize)]
struct Place {
    starting_after: Option<String>,
    from: Option<String>,
}

async fn read(
    State(app): State<App>,
    Extension(tenant): Extension<Tenant>,
    Path(id): Path<String>,
    Query(place): Query<Place>,
    headers: HeaderMap,
) -> Result<Response, OpenAiError> {
    let inference = app.streams().get(&id, tenant)?;
    let last_event = headers.get("last-event-id");
    let from = match last_event {
        Some(value) => after_event(&id, value)?,
        None => place.first(&id)?,
    };
    let mut sse = SseStream::new(inference.read(), from, app.config().heartbeat);
    let finished = sse.catch_up();
    let mut response = if finished && sse.is_empty() && last_event.is_some() {
        // This status is what stops a browser's EventSource from asking again.
        StatusCode::NO_CONTENT.into_response()
    } else {
        sse.into_response()
    };
    name_stream(&mut response, &inference);
    Ok(response)
}

async fn look(
    State(app): State<App>,
    Extension(tenant): Extension<Tenant>,
    Path(id): Path<String>,
) -> Result<Response, OpenAiError> {
    let inference = app.streams().get(&id, tenant)?;
    // A look is no reader: it neither keeps an inference alive nor ends one.
    let next = SseStream::count(&inference);
    let mut response = Response::new(Body::empty());
    name_stream(&mut response, &inference);
    let headers = response.headers_mut();
    let state = HeaderValue::from_static(inference.buffer.outcome().as_str());
    headers.insert("x-pinion-stream-state", state);
    headers.insert("x-pinion-stream-next", HeaderValue::from(next));
    if let Some(expires) = expires(&inference, app.streams().limits().ttl) {
        headers.insert("expires", expires);
    }
    Ok(response)
}

async fn remove(
    State(app): State<App>,
    Extension(tenant): Extension<Tenant>,
    Path(id): Path<String>,
) -> Result<StatusCode, OpenAiError> {
    let inference = app.streams().get(&id, tenant)?;
    app.streams().remove(&inference);
    inference.cancel();
    Ok(StatusCode::NO_CONTENT)
}

async fn answer(
    State(app): State<App>,
    Extension(tenant): Extension<Tenant>,
    Path(id): Path<String>,
) -> Result<Response, OpenAiError> {
    let inference = app.streams().get(&id, tenant)?;
    let mut response = whole(inference.read()).await?;
    name_stream(&mut response, &inference);
    Ok(response)
}

impl Place {
    /// Number of the first event that is wanted.
    fn first(&self, id: &str) -> Result<u64, ApiError> {
        if let Some(text) = &self.starting_after {
            return Ok(number(id, text)?.saturating_add(1));
        }
        self.from.as_deref().map_or(Ok(0), |text| number(id, text))
    }
}

/// The number after that of `Last-Event-ID: {stream}:{number}`.
fn after_event(id: &str, value: &HeaderValue) -> Result<u64, ApiError> {
    let text = value.to_str().map_err(|_opaque| bad_cursor(id, "it is not text"))?;
    match text.rsplit_once(':') {
        Some((stream, place)) if stream == id => Ok(number(id, place)?.saturating_add(1)),
        _ => Err(bad_cursor(id, text)),
    }
}

fn number(id: &str, text: &str) -> Result<u64, ApiError> {
    text.parse().map_err(|_not_a_number| bad_cursor(id, text))
}

fn bad_cursor(id: &str, text: &str) -> ApiError {
    let message = format!("this is no place in the stream {id}: {text}");
    ApiError::invalid("bad_cursor", message)
}

/// When an ended inference is forgotten, as an HTTP date.
fn expires(inference: &Inference, ttl: Duration) -> Option<HeaderValue> {
    let ended = inference.buffer.finished_at()?;
    let at = SystemTime::now() + ttl.saturating_sub(ended.elapsed());
    let text = Timestamp::try_from(at).ok()?.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    HeaderValue::try_from(text).ok()
}
