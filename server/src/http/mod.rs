//! The HTTP side of the node: the router with what surrounds every route, and the listener.

mod auth;
mod body;
mod observe;
mod origin;
mod serve;
#[cfg(test)]
mod tests;

use std::any::Any;

use axum::Router;
use axum::extract::Request;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;

use crate::app::App;
use crate::error::{ApiError, Fault, Retry};
use crate::routes::{ROUTES, cog};
use crate::wire::openai::OpenAiError;

pub(crate) use auth::Tenant;
pub(crate) use body::json_object;
pub use serve::serve;

/// Every route of the node, behind authentication. Call it on a runtime.
pub fn router(app: App) -> Router {
    let mut router = Router::new();
    for route in ROUTES.iter().copied().flatten() {
        for path in route.paths {
            router = router.route(path, (route.handler)());
        }
    }
    router = router.merge(cog::routes(&app));
    let keys = auth::Keys::new(&app.config().api_keys);
    let origins = origin::Policy::new(app.config());
    router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(keys, auth::require))
        .layer(from_fn_with_state(origins, origin::require))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(app.clone(), observe::observe))
        .with_state(app)
}

async fn not_found(request: Request) -> OpenAiError {
    let message = format!("no such route: {}", request.uri().path());
    OpenAiError(ApiError::invalid("not_found", message))
}

async fn method_not_allowed(request: Request) -> OpenAiError {
    let (method, path) = (request.method(), request.uri().path());
    let message = format!("the route does not take this method: {method} {path}");
    OpenAiError(ApiError::invalid("method_not_allowed", message))
}

#[expect(clippy::needless_pass_by_value, reason = "the form that the layer calls")]
fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let reason = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("unknown");
    tracing::error!("a request handler panicked: {reason}");
    let error = ApiError {
        fault: Fault::Node,
        retry: Retry::Never,
        code: "internal_error".into(),
        message: "the node failed while it answered the request".to_owned(),
        param: None,
    };
    OpenAiError(error).into_response()
}
