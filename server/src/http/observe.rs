//! Counts every answer, and names it for logs on both sides.

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use uuid::Uuid;

use crate::app::App;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MAX_REQUEST_ID_BYTES: usize = 128;

/// Counts the answer, and gives it the request's id or a new one.
pub(super) async fn observe(State(app): State<App>, request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let sent = request.headers().get(&REQUEST_ID);
    let id = sent.filter(|id| id.len() <= MAX_REQUEST_ID_BYTES).cloned().unwrap_or_else(new_id);
    let mut response = next.run(request).await;
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    app.http_metrics().answered(&method, route, response.status());
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

fn new_id() -> HeaderValue {
    let id = format!("req_{}", Uuid::now_v7().simple());
    HeaderValue::try_from(id).expect("hexadecimal digits are header text")
}
