//! `GET /livez`, `/readyz` and `/health`: for probes and gateways.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use serde::Serialize;

use super::{Access, Route};
use crate::app::App;
use crate::journal::Journal;
use crate::supervisor::{Package, StateKind};

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        paths: &["/livez"],
        access: Access::Open,
        summary: "Whether the node answers at all.",
        body: None,
        handler: || get(livez),
    },
    Route {
        method: "GET",
        paths: &["/readyz", "/health"],
        access: Access::Open,
        summary: "Whether every package takes requests; 503 and the reasons if not.",
        body: None,
        handler: || get(readyz),
    },
];

#[derive(Serialize)]
struct Live {
    status: &'static str,
}

#[derive(Serialize)]
struct Readiness {
    status: &'static str,
    packages: Vec<PackageReadiness>,
    streams: Streams,
}

/// A node whose disk fails serves on: this is for people and alarms.
#[derive(Serialize)]
struct Streams {
    /// `memory`, `durable` or `lost`.
    durability: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Serialize)]
struct PackageReadiness {
    name: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

async fn livez() -> Json<Live> {
    Json(Live { status: "ok" })
}

async fn readyz(State(app): State<App>) -> (StatusCode, Json<Readiness>) {
    let stopping = app.stopping().is_cancelled();
    let ready = |package: &Package| package.state().kind() == StateKind::Ready;
    let (code, status) = match (stopping, app.packages().iter().all(ready)) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        (false, false) => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
        (false, true) => (StatusCode::OK, "ready"),
    };
    let packages = app.packages().iter().map(readiness).collect();
    (code, Json(Readiness { status, packages, streams: streams(&app) }))
}

fn streams(app: &App) -> Streams {
    match app.streams().journal().map(Journal::lost) {
        None => Streams { durability: "memory", reason: None },
        Some(None) => Streams { durability: "durable", reason: None },
        Some(reason) => Streams { durability: "lost", reason },
    }
}

fn readiness(package: &Package) -> PackageReadiness {
    let state = package.state();
    PackageReadiness {
        name: package.name().to_owned(),
        state: state.kind().as_str(),
        reason: state.refusal(package.name()).map(|refusal| refusal.message),
    }
}
