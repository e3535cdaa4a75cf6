//! What both forms of answer know about one choice while it is generated.

use serde::{Deserialize, Serialize};

use crate::error::ApiError;
use crate::ipc::{FinishReason, TokenLogprob};
use crate::tool_parser::{FORMATS, Piece, ToolCallParser};

use super::Kind;

/// What is constant in an answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Meta {
    /// Id of the completion.
    pub(crate) id: String,
    /// Unix seconds.
    pub(crate) created: i64,
    /// Name of the package.
    pub(crate) model: String,
    /// Seed of the first choice.
    pub(crate) seed: u64,
}

/// Splits a choice's text, and counts its calls.
pub(super) struct Splitter {
    parser: Option<Box<dyn ToolCallParser>>,
    calls: usize,
}

impl Splitter {
    /// For a choice of a request of this kind.
    pub(super) fn new(kind: Kind) -> Self {
        let tools = kind == Kind::Chat { tools: true };
        Self { parser: tools.then(|| (FORMATS[0].parser)()), calls: 0 }
    }

    /// What more text means.
    pub(super) fn push(&mut self, text: String) -> Vec<Piece> {
        let mut pieces = Vec::new();
        match &mut self.parser {
            Some(parser) => parser.push(&text, &mut pieces),
            None if text.is_empty() => {}
            None => pieces.push(Piece::Text(text)),
        }
        self.count(pieces)
    }

    /// What was held back.
    pub(super) fn finish(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        if let Some(parser) = &mut self.parser {
            parser.finish(&mut pieces);
        }
        self.count(pieces)
    }

    /// OpenAI's name of the reason; to be asked after `finish`.
    pub(super) fn finish_reason(&self, reason: FinishReason) -> Result<&'static str, ApiError> {
        match reason {
            FinishReason::Stop if 0 < self.calls => Ok("tool_calls"),
            FinishReason::Stop => Ok("stop"),
            FinishReason::Length => Ok("length"),
            FinishReason::Cancelled => {
                Err(ApiError::node("cancelled", "the generation was cancelled"))
            }
        }
    }

    fn count(&mut self, pieces: Vec<Piece>) -> Vec<Piece> {
        self.calls += pieces.iter().filter(|piece| matches!(piece, Piece::Call { .. })).count();
        pieces
    }
}

/// Of the completion's id, from its random end; OpenAI takes ids of 40 characters at most.
const CALL_ID_CHARS: usize = 24;

/// An id that is the same whenever the same completion is rendered.
pub(super) fn call_id(completion: &str, choice: usize, call: usize) -> String {
    let unique = &completion[completion.len().saturating_sub(CALL_ID_CHARS)..];
    format!("call_{unique}_{choice}_{call}")
}

/// Log probabilities of tokens whose text is not out yet.
#[derive(Debug, Default)]
pub(super) struct HeldLogprobs {
    tokens: Vec<TokenLogprob>,
    /// Characters of the text before them.
    offset: usize,
}

impl HeldLogprobs {
    /// Adds those of more tokens.
    pub(super) fn extend(&mut self, tokens: Vec<TokenLogprob>) {
        self.tokens.extend(tokens);
    }

    /// Takes all, with the offset of the first.
    pub(super) fn take(&mut self) -> (Vec<TokenLogprob>, usize) {
        let (tokens, offset) = (std::mem::take(&mut self.tokens), self.offset);
        self.offset += super::logprobs::text_length(&tokens);
        (tokens, offset)
    }
}
