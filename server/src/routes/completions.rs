//! `POST /v1/completions`, and what it shares with chat: from a valid request to its answer.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_LOCATION, CONTENT_TYPE};
use axum::response::Response;
use axum::routing::post;
use jiff::Timestamp;
use tokio::time::Instant;
use uuid::Uuid;

use super::controls::Controls;
use super::sse::SseStream;
use super::{Access, Route};
use crate::app::App;
use crate::error::ApiError;
use crate::http::{Tenant, json_object};
use crate::stream::{Begun, Inference, Reader};
use crate::supervisor::Package;
use crate::wire::fields::Fields;
use crate::wire::openai::{Answer, GenerateRequest, Kind, Meta, OpenAiError};
use crate::wire::urgency::urgency;

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
    let controls = Controls::read(&headers, &body, app.config())?;
    drop(body);
    request.salt(tenant.0);
    let package = app.package(request.model.as_deref())?;
    let meta = Meta {
        id: completion_id(request.kind, &app.config().node_name),
        created: Timestamp::now().as_second(),
        model: package.name().to_owned(),
        seed: request.params.seed,
    };
    let started = start(app, package, (meta, request, tenant), controls).await?;
    let inference = Arc::clone(started.reader.inference());
    let mut response = match inference.request.stream {
        Some(_) => SseStream::new(started.reader, 0, app.config().heartbeat).into_response(),
        None => whole(started.reader).await?,
    };
    name_stream(&mut response, &inference);
    let headers = response.headers_mut();
    if !started.resumable {
        headers.insert("x-pinion-resumable", HeaderValue::from_static("0"));
    }
    if started.replayed {
        headers.insert("idempotency-replayed", HeaderValue::from_static("true"));
    }
    Ok(response)
}

struct Started {
    reader: Reader,
    resumable: bool,
    replayed: bool,
}

/// Begins an inference, or joins the one that the caller's key names, and waits for its first
/// token: whatever is refused is refused before an answer has begun.
async fn start(
    app: &App,
    package: &Package,
    (meta, mut request, tenant): (Meta, GenerateRequest, Tenant),
    controls: Controls,
) -> Result<Started, ApiError> {
    let submissions = request.take_submissions();
    let inference = Inference::new(meta, request, tenant, controls.on_disconnect);
    let key = controls.idempotency_key;
    match app.streams().begin(inference, key.clone())? {
        Begun::Known(inference) => {
            let mut reader = inference.read();
            reader.admitted().await?;
            let resumable = app.streams().is_resumable(&inference);
            Ok(Started { reader, resumable, replayed: true })
        }
        Begun::New(inference, can_be_found) => {
            let mut reader = inference.read();
            let journal = app.streams().journal().filter(|_| can_be_found);
            let record = journal.map(|journal| (journal, key));
            let mut admitted = inference.submit(package, submissions, record);
            if admitted.is_ok() {
                admitted = reader.admitted().await;
            }
            // What was refused may be sent again under the same key.
            admitted.inspect_err(|_| app.streams().remove(&inference))?;
            let resumable = can_be_found && app.streams().is_resumable(&inference);
            Ok(Started { reader, resumable, replayed: false })
        }
    }
}

fn completion_id(kind: Kind, node: &str) -> String {
    let prefix = match kind {
        Kind::Chat { .. } => "chatcmpl",
        Kind::Completion => "cmpl",
    };
    format!("{prefix}-{node}-{}", Uuid::now_v7().simple())
}

/// Collects an answer in one piece.
pub(super) async fn whole(mut reader: Reader) -> Result<Response, ApiError> {
    let inference = Arc::clone(reader.inference());
    let mut answer = Answer::new(inference.meta.clone(), &inference.request);
    while let Some((choice, event)) = reader.next().await {
        answer.event(choice, event)?;
    }
    let mut response = Response::new(Body::from(answer.body()));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    Ok(response)
}

/// Says which stream an answer belongs to, and where it is found again.
pub(super) fn name_stream(response: &mut Response, inference: &Inference) {
    let text = |value: String| HeaderValue::try_from(value).expect("ids are header text");
    let (id, headers) = (&inference.meta.id, response.headers_mut());
    headers.insert(CONTENT_LOCATION, text(format!("/v1/streams/{id}")));
    headers.insert("x-pinion-stream-id", text(id.clone()));
    headers.insert("inference-id", text(id.clone()));
}
