//! `GET /`, `GET /openapi.json` and `POST /shutdown`.

use axum::Json;
use axum::extract::State;
use pinion_cog_compat::prediction;
use serde_json::{Value, json};

use super::Cog;
use super::service::VERSION;
use super::target::Target;

/// Where everything is.
pub(super) async fn discovery(Target { service, prefix, .. }: Target) -> Json<Value> {
    let mut body = prediction::discovery(VERSION, service.schema.has_training());
    if let Value::Object(fields) = &mut body {
        for path in fields.values_mut() {
            if let Some(text) = path.as_str().filter(|text| text.starts_with('/')) {
                *path = format!("{prefix}{text}").into();
            }
        }
    }
    Json(body)
}

/// The schema; it follows from the manifest, so it is there before the model is.
pub(super) async fn openapi(Target { service, .. }: Target) -> Json<Value> {
    Json(service.schema.document().clone())
}

/// Stops the node once what runs has ended.
pub(super) async fn shutdown(State(cog): State<Cog>, _target: Target) -> Json<Value> {
    tracing::info!("shutdown was asked for over HTTP");
    cog.app.stopping().cancel();
    Json(json!({}))
}
