//! A prediction as a stream of server-sent events, in Cog's frames.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use pinion_cog_compat::prediction::PredictionEvent;

use super::prediction::Reader;

/// A comment; it keeps the connection open and shows when the other side is gone.
const HEARTBEAT: &[u8] = b": hb\n";

/// Streams every event from the first on. The stream holds the reader, so that dropping it is leaving.
pub(super) fn respond(mut reader: Reader, heartbeat: Duration) -> Response {
    let frames = async_stream::stream! {
        loop {
            match tokio::time::timeout(heartbeat, reader.next()).await {
                Err(_silence) => yield Bytes::from_static(HEARTBEAT),
                Ok(events) if events.is_empty() => return,
                Ok(events) => {
                    yield Bytes::from(events.iter().map(PredictionEvent::frame).collect::<String>());
                }
            }
        }
    };
    let frames = futures_util::StreamExt::map(frames, Ok::<_, Infallible>);
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(frames)).into_response()
}
