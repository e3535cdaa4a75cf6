//! The routes. Each file holds endpoints that belong together, and a table of them; the router,
//! the documentation and the tests read the tables. Cog's API has its own router, because it has
//! its own errors and lies under every package.

mod chat;
pub(crate) mod cog;
mod completions;
mod controls;
mod docs;
mod health;
mod metrics;
mod models;
mod sse;
mod streams;
mod tokenize;

use axum::routing::MethodRouter;

use crate::app::App;

pub use docs::node_openapi;

/// Endpoints of one method, under one or several paths.
pub struct Route {
    /// `GET`, `HEAD`, `POST` or `DELETE`.
    pub method: &'static str,
    /// The path patterns, the documented one first.
    pub paths: &'static [&'static str],
    /// Who may use it.
    pub access: Access,
    /// What it does, for the documentation.
    pub summary: &'static str,
    /// Name of the schema of the request's body, if it takes one.
    pub body: Option<&'static str>,
    pub(crate) handler: fn() -> MethodRouter<App>,
}

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Whoever presents a key, if keys are configured.
    Key,
    /// Everyone; for probes, which carry no keys.
    Open,
}

/// Every route of the node.
pub const ROUTES: &[&[Route]] = &[
    chat::ROUTES,
    completions::ROUTES,
    models::ROUTES,
    streams::ROUTES,
    tokenize::ROUTES,
    health::ROUTES,
    metrics::ROUTES,
    docs::ROUTES,
];

/// Whether a path pattern is that of an open route.
pub(crate) fn is_open(path: &str) -> bool {
    let mut routes = ROUTES.iter().copied().flatten();
    routes.any(|route| route.access == Access::Open && route.paths.contains(&path))
}
