//! `POST /tokenize` and `POST /detokenize`, in vLLM's form.

use axum::Json;
use axum::extract::{Request, State};
use axum::routing::post;
use serde::Serialize;

use super::{Access, Route};
use crate::app::App;
use crate::error::ApiError;
use crate::http::json_object;
use crate::ipc::{Prompt, TokenizeInput, Tokenized};
use crate::wire::fields::Fields;
use crate::wire::openai::{OpenAiError, chat_prompt, refuse_unsupported};

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "POST",
        paths: &["/tokenize", "/v1/tokenize"],
        access: Access::Key,
        summary: "List the tokens of a prompt.",
        body: Some("TokenizeRequest"),
        handler: || post(tokenize),
    },
    Route {
        method: "POST",
        paths: &["/detokenize", "/v1/detokenize"],
        access: Access::Key,
        summary: "Turn tokens back into text.",
        body: Some("DetokenizeRequest"),
        handler: || post(detokenize),
    },
];

#[derive(Serialize)]
struct TokenizeAnswer {
    count: usize,
    max_model_len: Option<u32>,
    tokens: Vec<u32>,
    token_strs: Option<Vec<String>>,
}

#[derive(Serialize)]
struct DetokenizeAnswer {
    prompt: String,
}

async fn tokenize(
    State(app): State<App>,
    request: Request,
) -> Result<Json<TokenizeAnswer>, OpenAiError> {
    let body = json_object(&app, request).await?;
    let fields = Fields::of_body(&body);
    refuse_unsupported(&fields)?;
    let prompt = if fields.get("messages").is_some() {
        chat_prompt(&fields)?.0
    } else {
        Prompt::Text(fields.string("prompt")?.ok_or_else(|| fields.missing("prompt"))?.to_owned())
    };
    let package = app.package(fields.string("model")?)?;
    match package.tokenize(TokenizeInput::Prompt(prompt)).await? {
        Tokenized::Ids(tokens) => Ok(Json(TokenizeAnswer {
            count: tokens.len(),
            max_model_len: package.info().map(|info| info.max_model_len),
            tokens,
            token_strs: None,
        })),
        Tokenized::Text(_) => Err(mixed_up().into()),
    }
}

async fn detokenize(
    State(app): State<App>,
    request: Request,
) -> Result<Json<DetokenizeAnswer>, OpenAiError> {
    let body = json_object(&app, request).await?;
    let fields = Fields::of_body(&body);
    let tokens = fields.token_ids("tokens")?.ok_or_else(|| fields.missing("tokens"))?;
    let package = app.package(fields.string("model")?)?;
    match package.tokenize(TokenizeInput::Detokenize(tokens)).await? {
        Tokenized::Text(prompt) => Ok(Json(DetokenizeAnswer { prompt })),
        Tokenized::Ids(_) => Err(mixed_up().into()),
    }
}

fn mixed_up() -> ApiError {
    ApiError::node("internal_error", "the worker answered another question")
}
