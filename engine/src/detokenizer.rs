//! From tokens to text, piece by piece: no broken UTF-8, no half of a stop string.

use std::sync::Arc;

use tokenizers::Tokenizer;

use self::stop::StopMatcher;
use self::window::Window;

mod stop;
#[cfg(test)]
mod tests;
mod window;

/// What a caller wants of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetokenizerOptions {
    /// Texts that end the output; empty ones are ignored.
    pub stop: Vec<String>,
    /// Whether the stop string found is part of the output.
    pub include_stop: bool,
    /// Stop strings are looked for only in the text after this many tokens.
    pub min_tokens: usize,
    /// Leaves out tokens such as `<|im_end|>`.
    pub skip_special_tokens: bool,
}

/// Text that is new, and certain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Often empty: what could become something else is held back.
    pub text: String,
    /// Index of the stop string that ended the output. Nothing follows.
    pub stop: Option<usize>,
}

/// A tokenizer that cannot turn its own tokens into text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the tokenizer failed to decode: {0}")]
pub struct DecodeError(pub String);

/// The text of one sequence.
///
/// The deltas of [`push`](Self::push) and [`finish`](Self::finish), joined, are the text of all
/// tokens decoded at once, up to the stop string that is complete first.
#[derive(Debug)]
pub struct Detokenizer {
    window: Window,
    stop: StopMatcher,
    num_unchecked_tokens: usize,
}

impl Detokenizer {
    /// Starts after `context`, the last tokens of the prompt: some tokenizers write a space only
    /// between words. Empty for text that stands alone, as an answer does.
    pub fn new(
        tokenizer: Arc<Tokenizer>,
        context: &[u32],
        options: DetokenizerOptions,
    ) -> Result<Self, DecodeError> {
        Ok(Self {
            window: Window::new(tokenizer, context, options.skip_special_tokens)?,
            stop: StopMatcher::new(options.stop, options.include_stop),
            num_unchecked_tokens: options.min_tokens,
        })
    }

    /// Takes the next token; not the end token, which is no text.
    pub fn push(&mut self, token: u32) -> Result<Delta, DecodeError> {
        let text = self.window.push(token)?;
        if 0 < self.num_unchecked_tokens {
            self.num_unchecked_tokens -= 1;
            return Ok(Delta { text, stop: None });
        }
        Ok(self.stop.push(&text))
    }

    /// Gives out what was held back; for sequences that end without a stop string.
    pub fn finish(&mut self) -> Result<Delta, DecodeError> {
        let text = self.window.finish()?;
        let mut delta = self.stop.push(&text);
        delta.text.push_str(&self.stop.finish());
        Ok(delta)
    }
}
