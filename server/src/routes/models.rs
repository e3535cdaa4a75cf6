//! `GET /v1/models`: what is served.

use axum::Json;
use axum::extract::{Path, State};
use axum::routing::get;
use serde::Serialize;

use super::{Access, Route};
use crate::app::App;
use crate::supervisor::{Package, StateKind};
use crate::wire::openai::OpenAiError;

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        paths: &["/v1/models", "/models"],
        access: Access::Key,
        summary: "List the served packages.",
        body: None,
        handler: || get(list),
    },
    Route {
        method: "GET",
        paths: &["/v1/models/{*id}", "/models/{*id}"],
        access: Access::Key,
        summary: "Describe a served package.",
        body: None,
        handler: || get(one),
    },
];

#[derive(Serialize)]
struct List {
    object: &'static str,
    data: Vec<Model>,
}

/// OpenAI's fields, those that vLLM adds for routers, and whether requests are taken now.
#[derive(Serialize)]
struct Model {
    id: String,
    object: &'static str,
    created: i64,
    owned_by: &'static str,
    root: String,
    parent: Option<String>,
    max_model_len: Option<u32>,
    is_ready: bool,
}

async fn list(State(app): State<App>) -> Json<List> {
    let data = app.packages().iter().map(model).collect();
    Json(List { object: "list", data })
}

async fn one(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Model>, OpenAiError> {
    Ok(Json(model(app.package(Some(&id))?)))
}

fn model(package: &Package) -> Model {
    Model {
        id: package.name().to_owned(),
        object: "model",
        created: package.created(),
        owned_by: "pinion",
        root: package.name().to_owned(),
        parent: None,
        max_model_len: package.info().map(|info| info.max_model_len),
        is_ready: package.state().kind() == StateKind::Ready,
    }
}
