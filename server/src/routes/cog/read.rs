//! `GET /predictions/{id}`, which Cog has not, and `POST /predictions/{id}/cancel`.

use axum::Json;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use pinion_cog_compat::prediction::Refusal;
use serde_json::json;

use super::refuse;
use super::target::Target;

/// The prediction as it stands, or as it ended.
pub(super) async fn get(Target { service, id, .. }: Target) -> Response {
    match service.predictions.snapshot(&id) {
        Some(json) => ([(CONTENT_TYPE, "application/json")], json).into_response(),
        None => refuse(Refusal::NotFound),
    }
}

/// Asks a prediction to end; it holds its place until the worker has let go of it.
pub(super) async fn cancel(Target { service, id, .. }: Target) -> Response {
    match service.predictions.in_flight(&id) {
        Some(prediction) => {
            prediction.cancel();
            Json(json!({})).into_response()
        }
        None => refuse(Refusal::NothingToCancel),
    }
}
