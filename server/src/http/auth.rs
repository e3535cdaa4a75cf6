//! API keys: every route needs one, unless it is marked open or no key is configured.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::error::ApiError;
use crate::routes::is_open;
use crate::wire::openai::{OpenAiError, first_word};

/// The configured keys. Only their digests are compared, so that neither the length nor the
/// content of a key shows in the time that a comparison takes.
#[derive(Clone, Debug)]
pub(super) struct Keys(Arc<[[u8; 32]]>);

/// Whose request it is: a number for each key, zero where none is needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Tenant(pub(crate) u64);

impl Keys {
    pub(super) fn new(keys: &[String]) -> Self {
        Self(keys.iter().map(digest).collect())
    }

    /// The tenant of a presented key.
    fn tenant(&self, presented: &str) -> Option<Tenant> {
        let presented = digest(presented);
        let known = self.0.iter().fold(Choice::from(0), |known, key| known | key.ct_eq(&presented));
        bool::from(known).then(|| Tenant(first_word(&presented)))
    }
}

/// Lets a request pass if it presents a key, needs none, or none is configured.
pub(super) async fn require(
    State(keys): State<Keys>,
    mut request: Request,
    next: Next,
) -> Response {
    let path = request.extensions().get::<MatchedPath>();
    let open = keys.0.is_empty() || path.is_some_and(|path| is_open(path.as_str()));
    let tenant = if open {
        Some(Tenant::default())
    } else {
        presented(request.headers()).and_then(|key| keys.tenant(key))
    };
    let Some(tenant) = tenant else { return refusal(presented(request.headers()).is_some()) };
    request.extensions_mut().insert(tenant);
    next.run(request).await
}

fn digest(key: impl AsRef<[u8]>) -> [u8; 32] {
    Sha256::digest(key).into()
}

/// The key of a request, as OpenAI's or as Anthropic's clients send it.
fn presented(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let bearer = text(AUTHORIZATION.as_str()).and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    bearer.or_else(|| text("x-api-key"))
}

fn refusal(presented: bool) -> Response {
    let message = if presented {
        "the API key is not known"
    } else {
        "an API key is needed; hint: send `authorization: Bearer KEY`"
    };
    let error = ApiError::invalid("invalid_api_key", message);
    let mut response = OpenAiError(error).into_response();
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}
