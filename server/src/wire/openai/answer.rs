//! Answers in one piece.

use serde::Serialize;

use super::choice::{Meta, Splitter, call_id};
use super::logprobs::{ChatLogprobs, CompletionLogprobs};
use super::usage::{UsageBody, UsageCount};
use super::{GenerateRequest, Kind};
use crate::error::ApiError;
use crate::ipc::{Event, TokenLogprob};
use crate::tool_parser::Piece;

/// Collects the events of all choices.
pub(crate) struct Answer {
    meta: Meta,
    kind: Kind,
    choices: Vec<Choice>,
    usage: UsageCount,
}

struct Choice {
    splitter: Splitter,
    text: String,
    calls: Vec<(String, String)>,
    logprobs: Vec<TokenLogprob>,
    finish_reason: &'static str,
}

#[derive(Serialize)]
struct Body<'a, C> {
    id: &'a str,
    object: &'static str,
    created: i64,
    model: &'a str,
    choices: Vec<C>,
    usage: UsageBody,
    seed: u64,
}

#[derive(Serialize)]
struct ChatChoice<'a> {
    index: usize,
    message: Message<'a>,
    logprobs: Option<ChatLogprobs<'a>>,
    finish_reason: &'a str,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: Option<&'a str>,
    refusal: Option<()>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall<'a>>,
}

#[derive(Serialize)]
struct ToolCall<'a> {
    id: String,
    r#type: &'static str,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    arguments: &'a str,
}

#[derive(Serialize)]
struct CompletionChoice<'a> {
    index: usize,
    text: &'a str,
    logprobs: Option<CompletionLogprobs<'a>>,
    finish_reason: &'a str,
}

impl Answer {
    /// An answer to a request.
    pub(crate) fn new(meta: Meta, request: &GenerateRequest) -> Self {
        let choices = (0..request.choices).map(|_| Choice::new(request.kind)).collect();
        let usage = UsageCount::new(request.choices, request.n);
        Self { meta, kind: request.kind, choices, usage }
    }

    /// Adds what an event of a choice means.
    pub(crate) fn event(&mut self, index: usize, event: Event) -> Result<(), ApiError> {
        self.usage.observe(index, &event);
        let choice = &mut self.choices[index];
        match event {
            Event::Started { .. } => {}
            Event::Delta { text, logprobs, .. } => {
                choice.logprobs.extend(logprobs);
                let pieces = choice.splitter.push(text);
                choice.add(pieces);
            }
            Event::Finished { reason, .. } => {
                let pieces = choice.splitter.finish();
                choice.add(pieces);
                choice.finish_reason = choice.splitter.finish_reason(reason)?;
            }
            Event::Failed(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// The JSON of the answer.
    pub(crate) fn body(&self) -> String {
        let choices = self.choices.iter().enumerate();
        match self.kind {
            Kind::Chat { .. } => {
                let choices = choices.map(|(index, choice)| choice.chat(index, &self.meta.id));
                self.serialize("chat.completion", choices.collect())
            }
            Kind::Completion => {
                let choices = choices.map(|(index, choice)| choice.completion(index));
                self.serialize("text_completion", choices.collect())
            }
        }
    }

    fn serialize<C: Serialize>(&self, object: &'static str, choices: Vec<C>) -> String {
        let Meta { id, created, model, seed } = &self.meta;
        let (created, seed, usage) = (*created, *seed, self.usage.body());
        let body = Body { id, object, created, model, choices, usage, seed };
        serde_json::to_string(&body).expect("strings and finite numbers serialize")
    }
}

impl Choice {
    fn new(kind: Kind) -> Self {
        Self {
            splitter: Splitter::new(kind),
            text: String::new(),
            calls: Vec::new(),
            logprobs: Vec::new(),
            finish_reason: "stop",
        }
    }

    fn add(&mut self, pieces: Vec<Piece>) {
        for piece in pieces {
            match piece {
                Piece::Text(text) => self.text.push_str(&text),
                Piece::Call { name, arguments } => self.calls.push((name, arguments)),
            }
        }
    }

    fn chat(&self, index: usize, completion: &str) -> ChatChoice<'_> {
        let tool_call = |(call, (name, arguments))| ToolCall {
            id: call_id(completion, index, call),
            r#type: "function",
            function: Function { name, arguments },
        };
        let silent = self.text.is_empty() && !self.calls.is_empty();
        ChatChoice {
            index,
            message: Message {
                role: "assistant",
                content: (!silent).then_some(self.text.as_str()),
                refusal: None,
                tool_calls: self
                    .calls
                    .iter()
                    .map(|(n, a)| (n.as_str(), a.as_str()))
                    .enumerate()
                    .map(tool_call)
                    .collect(),
            },
            logprobs: (!self.logprobs.is_empty()).then(|| ChatLogprobs::new(&self.logprobs)),
            finish_reason: self.finish_reason,
        }
    }

    fn completion(&self, index: usize) -> CompletionChoice<'_> {
        let logprobs = &self.logprobs;
        CompletionChoice {
            index,
            text: &self.text,
            logprobs: (!logprobs.is_empty()).then(|| CompletionLogprobs::new(logprobs, 0)),
            finish_reason: self.finish_reason,
        }
    }
}
