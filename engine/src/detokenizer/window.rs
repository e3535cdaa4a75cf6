//! Decodes the last few tokens only, with enough before them to get the joints right.

use std::sync::Arc;

use tokenizers::Tokenizer;

use super::DecodeError;

/// What decoders write for bytes that are not, or not yet, a character.
const REPLACEMENT: char = '\u{fffd}';

/// Replacement characters at the end that may still become one character: it has at most four
/// bytes, and decoders write at most one replacement for each.
const MAX_UNFINISHED: usize = 3;

/// Tokens after which the window is cut even where no character ends.
const MAX_TOKENS: usize = 32;

/// Tokens after which it is cut anywhere: no text ends inside of a character that often.
const MAX_UNCUT_TOKENS: usize = 128;

/// Tokens that such a cut leaves.
const NUM_KEPT: usize = 8;

#[derive(Debug)]
pub(super) struct Window {
    tokenizer: Arc<Tokenizer>,
    skip_special_tokens: bool,
    /// The first `num_context` are given out, and here only for the joint.
    pub(super) ids: Vec<u32>,
    num_context: usize,
    /// The start of the text of `ids` that is given out.
    emitted: String,
}

impl Window {
    pub(super) fn new(
        tokenizer: Arc<Tokenizer>,
        context: &[u32],
        skip_special_tokens: bool,
    ) -> Result<Self, DecodeError> {
        let ids = context[context.len().saturating_sub(NUM_KEPT)..].to_vec();
        let num_context = ids.len();
        let mut window =
            Self { tokenizer, skip_special_tokens, ids, num_context, emitted: String::new() };
        window.emitted = window.decode(&window.ids)?;
        Ok(window)
    }

    /// The text that `token` makes certain.
    pub(super) fn push(&mut self, token: u32) -> Result<String, DecodeError> {
        self.ids.push(token);
        let text = self.decode(&self.ids)?;
        if !text.starts_with(&self.emitted) {
            return self.resume_without_context();
        }
        let num_certain = certain_len(&text);
        if num_certain < self.emitted.len() {
            return Ok(String::new());
        }
        let delta = text[self.emitted.len()..num_certain].to_owned();
        let is_complete = num_certain == text.len();
        let is_full = MAX_TOKENS <= self.ids.len();
        self.emitted.push_str(&delta);
        if is_full && is_complete && delta.is_empty() {
            // Another special token that is left out.
            self.ids.pop();
        } else if is_complete {
            self.drop_context()?;
        } else if is_full {
            self.cut(&text)?;
        }
        Ok(delta)
    }

    /// All that is left.
    pub(super) fn finish(&mut self) -> Result<String, DecodeError> {
        let text = self.decode(&self.ids)?;
        let delta = match text.strip_prefix(&self.emitted) {
            Some(rest) => rest.to_owned(),
            None => self.decode(&self.ids[self.num_context..])?,
        };
        self.ids.clear();
        self.num_context = 0;
        self.emitted.clear();
        Ok(delta)
    }

    /// All tokens are given out: those that are new become the context.
    fn drop_context(&mut self) -> Result<(), DecodeError> {
        let text = self.decode(&self.ids[self.num_context..])?;
        // Special tokens, and a space at the start of a text, may decode to nothing; then the joint
        // needs what is before them.
        if !text.is_empty() {
            self.ids.drain(..self.num_context);
            self.num_context = self.ids.len();
            self.emitted = text;
        }
        Ok(())
    }

    /// A byte-fallback decoder turns a run of bytes into replacements as a whole, the context
    /// included; wait for the rest of a character, or decode what is new alone.
    fn resume_without_context(&mut self) -> Result<String, DecodeError> {
        let text = self.decode(&self.ids[self.num_context..])?;
        let num_new = self.ids.len() - self.num_context;
        if certain_len(&text) < text.len() && num_new < MAX_TOKENS {
            return Ok(String::new());
        }
        self.ids.drain(..self.num_context);
        self.num_context = self.ids.len();
        self.emitted.clone_from(&text);
        Ok(text)
    }

    /// Drops tokens that are given out, at a place where the texts of both sides add up.
    fn cut(&mut self, text: &str) -> Result<(), DecodeError> {
        let last = self.ids.len() - 1;
        for at in (self.ids.len() - NUM_KEPT..=last).rev() {
            let (before, after) = (self.decode(&self.ids[..at])?, self.decode(&self.ids[at..])?);
            let adds_up = text.strip_prefix(&before) == Some(&after);
            if adds_up && before.len() <= self.emitted.len() {
                self.ids.drain(..at);
                self.num_context = 0;
                self.emitted.drain(..before.len());
                return Ok(());
            }
        }
        if MAX_UNCUT_TOKENS <= self.ids.len() {
            self.ids.drain(..self.ids.len() - NUM_KEPT);
            self.num_context = 0;
            self.emitted = self.decode(&self.ids)?;
            self.emitted.truncate(certain_len(&self.emitted));
        }
        Ok(())
    }

    fn decode(&self, ids: &[u32]) -> Result<String, DecodeError> {
        self.tokenizer
            .decode(ids, self.skip_special_tokens)
            .map_err(|error| DecodeError(error.to_string()))
    }
}

/// Bytes of `text` that later tokens cannot change.
fn certain_len(text: &str) -> usize {
    let unfinished = text.chars().rev().take(MAX_UNFINISHED).take_while(|c| *c == REPLACEMENT);
    text.len() - unfinished.count() * REPLACEMENT.len_utf8()
}
