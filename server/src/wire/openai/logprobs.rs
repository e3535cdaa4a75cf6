//! Log probabilities in the two forms of the two endpoints.

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::ipc::TokenLogprob;

/// JSON has no infinity; this is what OpenAI writes.
const IMPOSSIBLE: f32 = -9999.0;

/// `logprobs` of a chat choice.
#[derive(Debug, Serialize)]
pub(crate) struct ChatLogprobs<'a> {
    content: Vec<ChatToken<'a>>,
    refusal: Option<()>,
}

#[derive(Debug, Serialize)]
struct ChatToken<'a> {
    #[serde(flatten)]
    token: TokenBody<'a>,
    top_logprobs: Vec<TokenBody<'a>>,
}

#[derive(Debug, Serialize)]
struct TokenBody<'a> {
    token: &'a str,
    logprob: f32,
    bytes: &'a [u8],
}

/// `logprobs` of a choice of the completions endpoint.
#[derive(Debug, Serialize)]
pub(crate) struct CompletionLogprobs<'a> {
    tokens: Vec<&'a str>,
    token_logprobs: Vec<Option<f32>>,
    top_logprobs: Vec<Option<Top<'a>>>,
    text_offset: Vec<usize>,
}

/// A token that has a log probability, and that.
#[derive(Debug)]
struct Top<'a>(&'a TokenLogprob, f32);

impl<'a> ChatLogprobs<'a> {
    /// The entries of some tokens.
    pub(crate) fn new(tokens: &'a [TokenLogprob]) -> Self {
        let content = tokens
            .iter()
            .map(|entry| ChatToken {
                token: TokenBody::new(
                    &entry.token,
                    &entry.bytes,
                    entry.logprob.unwrap_or(IMPOSSIBLE),
                ),
                top_logprobs: entry
                    .top
                    .iter()
                    .map(|(token, bytes, logprob)| TokenBody::new(token, bytes, *logprob))
                    .collect(),
            })
            .collect();
        Self { content, refusal: None }
    }
}

impl<'a> CompletionLogprobs<'a> {
    /// The entries of some tokens, the first of which begins `offset` characters into the text.
    pub(crate) fn new(tokens: &'a [TokenLogprob], mut offset: usize) -> Self {
        let text_offset = tokens
            .iter()
            .map(|entry| {
                let start = offset;
                offset += entry.token.chars().count();
                start
            })
            .collect();
        Self {
            tokens: tokens.iter().map(|entry| entry.token.as_str()).collect(),
            token_logprobs: tokens.iter().map(|entry| entry.logprob.map(finite)).collect(),
            top_logprobs: tokens.iter().map(Top::new).collect(),
            text_offset,
        }
    }
}

/// Characters that the tokens take in the text.
pub(crate) fn text_length(tokens: &[TokenLogprob]) -> usize {
    tokens.iter().map(|entry| entry.token.chars().count()).sum()
}

impl<'a> TokenBody<'a> {
    fn new(token: &'a str, bytes: &'a [u8], logprob: f32) -> Self {
        Self { token, logprob: finite(logprob), bytes }
    }
}

impl<'a> Top<'a> {
    fn new(entry: &'a TokenLogprob) -> Option<Self> {
        entry.logprob.map(|logprob| Self(entry, logprob))
    }
}

impl Serialize for Top<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (TokenLogprob { top, token: sampled, .. }, logprob) = (self.0, self.1);
        let mut map = serializer.serialize_map(None)?;
        for (index, (token, _, logprob)) in top.iter().enumerate() {
            // Tokens that are parts of characters can look the same; the best one is kept.
            if top[..index].iter().all(|(better, ..)| better != token) {
                map.serialize_entry(token, &finite(*logprob))?;
            }
        }
        // The token itself comes in addition to the best ones.
        if top.iter().all(|(token, ..)| token != sampled) {
            map.serialize_entry(sampled, &finite(logprob))?;
        }
        map.end()
    }
}

fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { IMPOSSIBLE }
}
