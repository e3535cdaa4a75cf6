//! Keeps web pages of others from using a node that trusts whoever can reach it.
//!
//! On loopback without keys, any program of this machine may send requests, and so may any page in
//! its browser: directly, or through a host name that resolves to 127.0.0.1. Browsers send `Origin`
//! with requests that change something, so those from foreign pages are told apart by it.

use axum::extract::{Request, State};
use axum::http::header::ORIGIN;
use axum::http::{HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use url::{Host, Url};

use crate::config::ServeConfig;
use crate::error::ApiError;
use crate::wire::openai::OpenAiError;

/// Whether origins are checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    checked: bool,
}

impl Policy {
    pub(super) fn new(config: &ServeConfig) -> Self {
        Self { checked: config.listen.ip().is_loopback() && config.api_keys.is_empty() }
    }
}

/// Refuses what a foreign page asks to change.
pub(super) async fn require(
    State(policy): State<Policy>,
    request: Request,
    next: Next,
) -> Response {
    let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
    let foreign = request.headers().get_all(ORIGIN).iter().any(|origin| !is_local(origin));
    if policy.checked && !reads && foreign {
        let message = "requests of web pages from other hosts are refused; hint: configure an API \
                       key and send it";
        return OpenAiError(ApiError::invalid("forbidden", message)).into_response();
    }
    next.run(request).await
}

fn is_local(origin: &HeaderValue) -> bool {
    let url = origin.to_str().ok().and_then(|origin| Url::parse(origin).ok());
    match url.as_ref().and_then(Url::host) {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}
