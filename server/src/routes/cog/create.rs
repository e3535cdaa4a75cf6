//! `POST /predictions` and `PUT /predictions/{id}`.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::{FromRequest, Request, State};
use axum::http::header::{ACCEPT, HeaderMap, HeaderName, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use pinion_cog_compat::prediction::{
    PredictionRequest, Refusal, accepted, id_mismatch, prediction_id, wants_async, wants_events,
};
use pinion_cog_compat::validate::{InvalidInput, ValidInput};
use pinion_cog_compat::{GenerationInputs, InputError};

use super::Cog;
use super::prediction::{Prediction, Reader};
use super::registry::Admitted;
use super::run::{Work, run};
use super::service::Service;
use super::target::Target;
use super::{refuse, sse};
use crate::cog_inputs;
use crate::error::ApiError;

/// Time for a body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_mins(1);

/// How a prediction is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// With a stream of its events.
    Events,
    /// At once.
    Async,
    /// When it has ended.
    Sync,
}

impl Mode {
    fn of(headers: &HeaderMap) -> Self {
        let any = |name: HeaderName, wants: fn(&str) -> bool| {
            headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).any(wants)
        };
        if any(ACCEPT, wants_events) {
            Self::Events
        } else if any(HeaderName::from_static("prefer"), wants_async) {
            Self::Async
        } else {
            Self::Sync
        }
    }
}

/// The body of a request. A missing one is an empty one; the rejections of a bad one are axum's, as in Cog.
pub(super) struct Body(PredictionRequest);

impl FromRequest<Cog> for Body {
    type Rejection = Response;

    async fn from_request(request: Request, cog: &Cog) -> Result<Self, Response> {
        let body = Option::<Json<PredictionRequest>>::from_request(request, cog);
        match tokio::time::timeout(BODY_TIMEOUT, body).await {
            Ok(Ok(body)) => Ok(Self(body.map(|Json(request)| request).unwrap_or_default())),
            Ok(Err(rejection)) => Err(rejection.into_response()),
            Err(_elapsed) => Err(StatusCode::REQUEST_TIMEOUT.into_response()),
        }
    }
}

/// `POST /predictions`: an id that is in flight is refused, it does not run twice.
pub(super) async fn post(
    State(cog): State<Cog>,
    target: Target,
    headers: HeaderMap,
    Body(request): Body,
) -> Response {
    let id = request.id.clone().unwrap_or_else(|| fresh_id(&target.service));
    let create = Create { cog, service: target.service, id, mode: Mode::of(&headers), headers };
    match create.start(&request) {
        Ok(Admitted::New(started)) => create.answer(started).await,
        Ok(Admitted::Existing(_)) => refuse(Refusal::AtCapacity),
        Err(rejected) => rejected.into_response(),
    }
}

/// `PUT /predictions/{id}`: an id that is in flight is followed.
pub(super) async fn put(
    State(cog): State<Cog>,
    target: Target,
    headers: HeaderMap,
    Body(request): Body,
) -> Response {
    let Target { service, id, .. } = target;
    if request.id.as_ref().is_some_and(|other| *other != id) {
        return (StatusCode::UNPROCESSABLE_ENTITY, Json(id_mismatch())).into_response();
    }
    let create = Create { cog, service, id, mode: Mode::of(&headers), headers };
    if let Some(existing) = create.service.predictions.in_flight(&create.id) {
        return create.follow(&existing);
    }
    match create.start(&request) {
        Ok(Admitted::New(started)) => create.answer(started).await,
        Ok(Admitted::Existing(existing)) => create.follow(&existing),
        Err(rejected) => rejected.into_response(),
    }
}

struct Create {
    cog: Cog,
    service: Arc<Service>,
    id: String,
    mode: Mode,
    headers: HeaderMap,
}

/// A prediction that runs now, and the reader that keeps it running unless it is detached.
struct Started {
    prediction: Arc<Prediction>,
    reader: Option<Reader>,
    work: Work,
}

impl Create {
    /// Checks in Cog's order, then starts; the place is taken and the id held together.
    fn start(&self, request: &PredictionRequest) -> Result<Admitted<Option<Reader>>, Rejected> {
        let service = &self.service;
        if self.mode == Mode::Events && !service.schema.supports_streaming() {
            return Err(Rejected::Plain(Refusal::NoStreaming));
        }
        let valid = service.validator.validate(&request.input()).map_err(Rejected::Invalid)?;
        if !valid.stripped.is_empty() {
            tracing::warn!(package = service.package.name(), names = ?valid.stripped, "unknown inputs");
        }
        let admitted = service.predictions.admit(&self.id, || {
            let work = self.work(&valid)?;
            let shape = service.schema.output_shape();
            let detached = self.mode == Mode::Async;
            let prediction = Prediction::new(&self.id, valid.given, shape, detached);
            let reader = if detached { None } else { prediction.read() };
            Ok((Arc::clone(&prediction), Started { prediction, reader, work }))
        });
        match admitted.map_err(Rejected::Refused)? {
            Admitted::Existing(existing) => Ok(Admitted::Existing(existing)),
            Admitted::New(Started { prediction, reader, work }) => {
                if let Some(webhook) = self.cog.webhooks.open(request, &self.headers) {
                    let webhooks = Arc::clone(&self.cog.webhooks);
                    let prediction = Arc::clone(&prediction);
                    self.cog.app.spawn(webhooks.deliver(webhook, prediction));
                }
                self.cog.app.spawn(run(Arc::clone(service), prediction, work));
                Ok(Admitted::New(reader))
            }
        }
    }

    /// Takes a place. Inputs that are wrong together need none: such a prediction fails as it does in Cog, where the
    /// model's own code finds that.
    fn work(&self, valid: &ValidInput) -> Result<Work, ApiError> {
        let package = &self.service.package;
        if let Some(refusal) = package.state().refusal(package.name()) {
            return Err(refusal);
        }
        let aliases = &package.manifest().pinion.inputs;
        let generation = GenerationInputs::from_input(&valid.given, aliases)
            .and_then(|inputs| cog_inputs::generation(inputs, cog_inputs::random_seed()));
        match generation {
            Ok((prompt, params)) => package.generate(prompt, params).map(Work::Generate),
            Err(error) => Ok(Work::Fail(InputError::to_string(&error))),
        }
    }

    async fn answer(&self, reader: Option<Reader>) -> Response {
        match (self.mode, reader) {
            (Mode::Events, Some(reader)) => sse::respond(reader, self.cog.app.config().heartbeat),
            (Mode::Sync, Some(mut reader)) => match reader.answer().await {
                Ok(body) => Json(body).into_response(),
                Err(refusal) => refuse(refusal),
            },
            (Mode::Async, _) | (_, None) => {
                (StatusCode::ACCEPTED, Json(accepted(&self.id))).into_response()
            }
        }
    }

    fn follow(&self, existing: &Arc<Prediction>) -> Response {
        if self.mode != Mode::Events {
            let snapshot = existing.progress().state.in_flight();
            return (StatusCode::ACCEPTED, Json(snapshot)).into_response();
        }
        match existing.read() {
            Some(reader) => sse::respond(reader, self.cog.app.config().heartbeat),
            None => refuse(Refusal::TooManySubscribers),
        }
    }
}

/// An id from the clock that is not in flight.
fn fresh_id(service: &Service) -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut nanos = since.as_nanos() as u64;
    loop {
        let id = prediction_id(nanos);
        if service.predictions.in_flight(&id).is_none() {
            return id;
        }
        nanos += 1;
    }
}

/// Why a prediction is not started.
enum Rejected {
    Plain(Refusal),
    Invalid(InvalidInput),
    Refused(ApiError),
}

impl IntoResponse for Rejected {
    /// For a package that takes nothing now, Cog has two refusals: no room, and not ready. `Retry-After` says more.
    fn into_response(self) -> Response {
        let error = match self {
            Self::Plain(refusal) => return refuse(refusal),
            Self::Invalid(invalid) => {
                return (StatusCode::UNPROCESSABLE_ENTITY, Json(invalid.body())).into_response();
            }
            Self::Refused(error) => error,
        };
        let full = error.code == "queue_full";
        let mut response = refuse(if full { Refusal::AtCapacity } else { Refusal::NotReady });
        if let Some(seconds) = error.retry_after_seconds() {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
