//! `GET /metrics`, for Prometheus.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;

use super::{Access, Route};
use crate::app::App;
use crate::telemetry;

pub(super) const ROUTES: &[Route] = &[Route {
    method: "GET",
    paths: &["/metrics"],
    access: Access::Key,
    summary: "Counters and gauges in Prometheus' text format.",
    body: None,
    handler: || get(metrics),
}];

async fn metrics(State(app): State<App>) -> impl IntoResponse {
    let text = telemetry::render(app.packages(), app.http_metrics(), &app.streams().usage());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}
