//! Cog's HTTP API over a native package: at the root when it is the only one, and under `/cog/{package}` always.

mod create;
mod health;
mod node;
mod prediction;
mod read;
mod registry;
mod run;
mod service;
mod sse;
mod target;
mod webhook;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post, put};
use axum::{Json, Router};
use pinion_cog_compat::prediction::Refusal;

use self::service::Service;
use self::webhook::Webhooks;
use crate::app::App;

/// What the handlers share. Cheap to clone.
#[derive(Clone, Debug)]
struct Cog {
    app: App,
    services: Arc<[Arc<Service>]>,
    webhooks: Arc<Webhooks>,
}

/// The routes of every package of the node. Call it on a runtime.
pub(crate) fn routes(app: &App) -> Router<App> {
    routes_with(app, Webhooks::new(app.config()))
}

fn routes_with(app: &App, webhooks: Webhooks) -> Router<App> {
    let mut router = package_routes("/cog/{package}").route("/cog/{package}", get(node::discovery));
    if app.packages().len() == 1 {
        router = router.merge(package_routes(""));
    }
    router
        .method_not_allowed_fallback(|| async { StatusCode::METHOD_NOT_ALLOWED })
        .layer(DefaultBodyLimit::max(app.config().max_body_bytes))
        .with_state(Cog::new(app, webhooks))
}

fn package_routes(prefix: &str) -> Router<Cog> {
    let at = |path: &str| format!("{prefix}{path}");
    // Native packages are not trained; so it is for Cog's own models without `train`.
    let absent = || any(|| async { StatusCode::NOT_FOUND });
    Router::new()
        .route(&at("/"), get(node::discovery))
        .route(&at("/health-check"), get(health::health_check))
        .route(&at("/openapi.json"), get(node::openapi))
        .route(&at("/shutdown"), post(node::shutdown))
        .route(&at("/predictions"), post(create::post))
        .route(&at("/predictions/{id}"), put(create::put).get(read::get))
        .route(&at("/predictions/{id}/cancel"), post(read::cancel))
        .route(&at("/trainings"), absent())
        .route(&at("/trainings/{id}"), absent())
        .route(&at("/trainings/{id}/cancel"), absent())
}

impl Cog {
    fn new(app: &App, webhooks: Webhooks) -> Self {
        let mut services = Vec::with_capacity(app.packages().len());
        for package in app.packages() {
            match Service::new(package.clone()) {
                Ok(service) => {
                    app.spawn(Arc::clone(&service).watch_setup());
                    services.push(service);
                }
                Err(error) => tracing::error!(package = package.name(), "no Cog API: {error}"),
            }
        }
        Self { app: app.clone(), services: services.into(), webhooks: Arc::new(webhooks) }
    }
}

fn refuse(refusal: Refusal) -> Response {
    let code = StatusCode::from_u16(refusal.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (code, Json(refusal.body())).into_response()
}

#[cfg(test)]
mod tests;
