//! `POST /v1/chat/completions`.

use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;

use super::completions::answer;
use super::{Access, Route};
use crate::app::App;
use crate::wire::openai::{GenerateRequest, OpenAiError};

pub(super) const ROUTES: &[Route] = &[Route {
    method: "POST",
    paths: &["/v1/chat/completions", "/chat/completions"],
    access: Access::Key,
    summary: "Answer a conversation.",
    body: Some("ChatRequest"),
    handler: || post(chat),
}];

async fn chat(State(app): State<App>, request: Request) -> Result<Response, OpenAiError> {
    answer(&app, request, GenerateRequest::chat).await
}
