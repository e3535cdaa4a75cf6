//! `POST /v1/completions`, and what it shares with chat: from a valid request to its answer.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use futures_util::stream::unfold;
use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::{Access, Route, Running};
use crate::app::App;
use crate::error::ApiError;
use crate::http::{Tenant, json_object};
use crate::wire::fields::Fields;
use crate::wire::openai::{Answer, ChunkWriter, GenerateRequest, Kind, Meta, OpenAiError};
use crate::wire::urgency::urgency;

/// One newline: with two, clients that remember event ids would see an empty event.
const HEARTBEAT: Bytes = Bytes::from_static(b": hb\n");
/// Events that are ready together go out together, up to this many bytes.
const MAX_WRITE_BYTES: usize = 64 * 1024;

pub(super) const ROUTES: &[Route] = &[Route {
    method: "POST",
    paths: &["/v1/completions", "/completions"],
    access: Access::Key,
    summary: "Continue a text.",
    body: Some("CompletionRequest"),
    handler: || post(completions),
}];

async fn completions(State(app): State<App>, request: Request) -> Result<Response, OpenAiError> {
    answer(&app, request, GenerateRequest::completion).await
}

/// Answers a request of either endpoint.
pub(super) async fn answer(
    app: &App,
    request: Request,
    read: fn(&Fields<'_>) -> Result<GenerateRequest, ApiError>,
) -> Result<Response, OpenAiError> {
    let tenant = request.extensions().get::<Tenant>().copied().unwrap_or_default();
    let (arrived, headers) = (Instant::now(), request.headers().clone());
    let body = json_object(app, request).await?;
    let fields = Fields::of_body(&body);
    let mut request = read(&fields)?;
    request.params.urgency = urgency(&headers, &fields, arrived.elapsed())?;
    drop(body);
    request.salt(tenant.0);
    let package = app.package(request.model.as_deref())?;
    let meta = Meta {
        id: completion_id(request.kind),
        created: Timestamp::now().as_second(),
        model: package.name().to_owned(),
        seed: request.params.seed,
    };
    let id = HeaderValue::try_from(&meta.id).expect("hexadecimal digits are header text");
    let running = Running::start(package, request.take_submissions()).await?;
    let mut response = match request.stream {
        Some(options) => {
            let writer = ChunkWriter::new(meta, &request, options);
            stream(SseStream::new(running, writer, app.config().heartbeat))
        }
        None => whole(running, Answer::new(meta, &request)).await?,
    };
    response.headers_mut().insert(HeaderName::from_static("inference-id"), id);
    Ok(response)
}

fn completion_id(kind: Kind) -> String {
    let prefix = match kind {
        Kind::Chat { .. } => "chatcmpl",
        Kind::Completion => "cmpl",
    };
    format!("{prefix}-{}", Uuid::now_v7().simple())
}

async fn whole(mut running: Running, mut answer: Answer) -> Result<Response, ApiError> {
    while let Some((choice, event)) = running.next().await {
        answer.event(choice, event)?;
    }
    let mut response = Response::new(Body::from(answer.body()));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    Ok(response)
}

fn stream(sse: SseStream) -> Response {
    let writes = unfold(sse, |mut sse| async move {
        let write = sse.next_write().await?;
        Some((Ok::<_, Infallible>(write), sse))
    });
    let mut response = Response::new(Body::from_stream(writes));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    // Without it, nginx keeps the stream back until its buffer is full.
    let buffering = HeaderName::from_static("x-accel-buffering");
    headers.insert(buffering, HeaderValue::from_static("no"));
    response
}

/// A body of server-sent events. Dropping it cancels what still runs.
struct SseStream {
    running: Option<Running>,
    writer: ChunkWriter,
    heartbeat: Duration,
}

impl SseStream {
    fn new(running: Running, writer: ChunkWriter, heartbeat: Duration) -> Self {
        Self { running: Some(running), writer, heartbeat }
    }

    /// The next bytes; none after the end.
    async fn next_write(&mut self) -> Option<Bytes> {
        let silence = Instant::now() + self.heartbeat;
        while self.writer.len() == 0 {
            let running = self.running.as_mut()?;
            let Ok(mut next) = timeout_at(silence, running.next()).await else {
                return Some(HEARTBEAT);
            };
            while let Some((choice, event)) = next {
                if let Err(error) = self.writer.event(choice, event) {
                    self.writer.fail(&error);
                    self.running = None;
                    return Some(self.writer.take());
                }
                if MAX_WRITE_BYTES <= self.writer.len() {
                    return Some(self.writer.take());
                }
                next = running.next_ready();
            }
            if running.is_finished() {
                self.writer.end();
                self.running = None;
            }
        }
        Some(self.writer.take())
    }
}
