//! Which package, and which prediction of it, a path names.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::Cog;
use super::service::Service;

/// The package that a path names, and the prediction.
pub(super) struct Target {
    /// The package; the only one where the path names none.
    pub(super) service: Arc<Service>,
    /// The prediction; empty where the path names none.
    pub(super) id: String,
    /// What the paths of this package's routes begin with.
    pub(super) prefix: String,
}

impl FromRequestParts<Cog> for Target {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, cog: &Cog) -> Result<Self, Response> {
        let params = RawPathParams::from_request_parts(parts, cog)
            .await
            .map_err(IntoResponse::into_response)?;
        let param = |name| params.iter().find(|(key, _)| *key == name).map(|(_, value)| value);
        let package = cog.app.package(param("package")).map_err(|error| {
            let status = StatusCode::NOT_FOUND;
            (status, Json(json!({"error": error.message}))).into_response()
        })?;
        let service = cog.services.iter().find(|service| service.package.name() == package.name());
        let service = service.ok_or_else(|| StatusCode::NOT_FOUND.into_response())?;
        Ok(Self {
            service: Arc::clone(service),
            id: param("id").unwrap_or_default().to_owned(),
            prefix: param("package").map(|name| format!("/cog/{name}")).unwrap_or_default(),
        })
    }
}
