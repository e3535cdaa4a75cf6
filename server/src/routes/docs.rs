//! `GET /docs` and the node's OpenAPI document, both made from the route tables.

use axum::Json;
use axum::extract::State;
use axum::response::Html;
use axum::routing::get;
use serde_json::{Map, Value, json};

use super::{Access, Route};
use crate::app::App;

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        paths: &["/docs"],
        access: Access::Key,
        summary: "The routes, for people.",
        body: None,
        handler: || get(page),
    },
    Route {
        method: "GET",
        paths: &["/docs/openapi.json"],
        access: Access::Key,
        summary: "The routes, for programs.",
        body: None,
        handler: || get(document),
    },
];

const SCHEMAS: &str = include_str!("openapi_schemas.json");

async fn document(State(_app): State<App>) -> Json<Value> {
    Json(node_openapi())
}

async fn page() -> Html<String> {
    let row = |route: &Route| {
        let (method, path) = (route.method, route.paths[0]);
        let others = route.paths[1..].join(", ");
        format!(
            "<tr><td>{method}</td><td><code>{path}</code></td><td>{}</td>\
             <td><code>{others}</code></td></tr>\n",
            route.summary
        )
    };
    let rows: String = super::ROUTES.iter().copied().flatten().map(row).collect();
    Html(include_str!("docs.html").replace("<!-- routes -->", &rows))
}

/// The OpenAPI 3.1 document of the node's own routes.
///
/// # Panics
///
/// Never: the schemas are part of the binary, and a test reads them.
pub fn node_openapi() -> Value {
    let schemas: Value = serde_json::from_str(SCHEMAS).expect("the schemas are JSON");
    let mut paths = Map::new();
    for route in super::ROUTES.iter().copied().flatten() {
        for path in route.paths {
            // A wildcard is the router's affair.
            let entry = paths.entry(path.replace("{*", "{")).or_insert_with(|| json!({}));
            entry[route.method.to_lowercase()] = operation(route, path);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": "pinion", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    })
}

fn operation(route: &Route, path: &str) -> Value {
    let mut operation = json!({
        "operationId": format!("{} {path}", route.method),
        "summary": route.summary,
        "security": match route.access {
            Access::Key => json!([{"bearer": []}, {"key": []}]),
            Access::Open => json!([]),
        },
        "responses": {
            "200": {"description": "The answer."},
            "default": {
                "description": "An error.",
                "content": {"application/json": {"schema": reference("Error")}},
            },
        },
    });
    if let Some(schema) = route.body {
        let content = json!({"application/json": {"schema": reference(schema)}});
        operation["requestBody"] = json!({"required": true, "content": content});
    }
    if path.ends_with("{*id}") || path.ends_with("{id}") {
        operation["parameters"] =
            json!([{"name": "id", "in": "path", "required": true, "schema": {"type": "string"}}]);
    }
    operation
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}
