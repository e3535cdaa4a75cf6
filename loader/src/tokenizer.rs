//! The tokenizer of a package: a library that can panic on what it reads, behind functions that cannot.

use std::fmt;
use std::sync::Arc;

use serde::de::IgnoredAny;
use thiserror::Error;
use tokenizers::Tokenizer;

use crate::files::{FileError, PackageFiles};
use crate::limits::LIMITS;
use crate::quiet;

pub(crate) mod compact;
#[cfg(test)]
pub(crate) mod tests;

/// A tokenizer that was loaded and checked against the model's vocabulary.
#[derive(Clone)]
pub struct PackageTokenizer {
    inner: Arc<Tokenizer>,
    vocab_size: usize,
}

/// A tokenizer that cannot be loaded, or a text that it cannot encode.
#[derive(Debug, Error)]
pub enum TokenizerError {
    /// The file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is none.
    #[error("tokenizer is missing: {file}")]
    Missing {
        /// Where it should be.
        file: String,
    },
    /// The file is no JSON.
    #[error("tokenizer is not JSON: {source}: {file}")]
    Json {
        /// The file.
        file: String,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The file is JSON, and not a tokenizer.
    #[error("tokenizer is invalid: {reason}: {file}")]
    Invalid {
        /// The file.
        file: String,
        /// What the library said, or why it gave up.
        reason: String,
    },
    /// Its tokens do not fit the model.
    #[error("tokenizer has token id {id}, and the model has {vocab_size} tokens: {file}")]
    Vocabulary {
        /// The file.
        file: String,
        /// Its largest id.
        id: u32,
        /// Rows of the model's output.
        vocab_size: usize,
    },
    /// A text is longer than any prompt may be.
    #[error("text has {size} bytes, and {limit} are allowed")]
    TooLong {
        /// Bytes it has.
        size: usize,
        /// Bytes it may have.
        limit: usize,
    },
    /// The tokenizer failed on a text.
    #[error("tokenizer cannot encode this text: {reason}")]
    Encode {
        /// What the library said, or why it gave up.
        reason: String,
    },
    /// The text holds a token that the model does not have.
    #[error("text holds token {id}, and the model has {vocab_size} tokens")]
    OutOfVocabulary {
        /// The token.
        id: u32,
        /// Rows of the model's output.
        vocab_size: usize,
    },
    /// The tokenizer failed on ids.
    #[error("tokenizer cannot decode these tokens: {reason}")]
    Decode {
        /// What the library said, or why it gave up.
        reason: String,
    },
}

impl PackageTokenizer {
    /// Loads `file` for a model with `vocab_size` output rows.
    ///
    /// Truncation and padding that the file asks for are off: they would change prompts silently.
    pub fn load(
        files: &PackageFiles,
        file: &str,
        vocab_size: usize,
    ) -> Result<Self, TokenizerError> {
        Self::parse(&Self::text(files, file)?, file, vocab_size)
    }

    /// The text of `file`.
    pub(crate) fn text(files: &PackageFiles, file: &str) -> Result<String, TokenizerError> {
        let text = files.read_text(file, LIMITS.tokenizer_bytes)?;
        text.ok_or_else(|| TokenizerError::Missing { file: file.to_owned() })
    }

    /// As [`Self::load`], from the text of a file.
    pub fn parse(text: &str, file: &str, vocab_size: usize) -> Result<Self, TokenizerError> {
        let file = || file.to_owned();
        // The library panics on some texts that are no JSON at all.
        serde_json::from_str::<IgnoredAny>(text)
            .map_err(|source| TokenizerError::Json { file: file(), source })?;
        let make = || {
            let tokenizer = Tokenizer::from_bytes(text.as_bytes())?;
            let largest = tokenizer.get_vocab(false).into_values().max();
            Ok((tokenizer, largest))
        };
        Self::checked(&make, file(), vocab_size)
    }

    /// From the bytes that [`compact::encode`] made of a `tokenizer.json`.
    pub(crate) fn decode_compact(
        bytes: &[u8],
        file: &str,
        vocab_size: usize,
    ) -> Result<Self, TokenizerError> {
        Self::checked(&|| compact::decode(bytes), file.to_owned(), vocab_size)
    }

    fn checked(
        make: &dyn Fn() -> tokenizers::Result<(Tokenizer, Option<u32>)>,
        file: String,
        vocab_size: usize,
    ) -> Result<Self, TokenizerError> {
        let load = || -> tokenizers::Result<(Tokenizer, Option<u32>)> {
            let (mut tokenizer, largest) = make()?;
            tokenizer.with_truncation(None)?;
            tokenizer.with_padding(None);
            Ok((tokenizer, largest))
        };
        let invalid = |reason| TokenizerError::Invalid { file: file.clone(), reason };
        let (inner, largest) =
            quiet::catch(load).map_err(invalid)?.map_err(|e| invalid(e.to_string()))?;
        match largest {
            Some(id) if id as usize >= vocab_size => {
                Err(TokenizerError::Vocabulary { file, id, vocab_size })
            }
            _ => Ok(Self { inner: Arc::new(inner), vocab_size }),
        }
    }

    /// Tokens of a plain prompt, with the special tokens that the tokenizer itself puts around a text.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        self.encode(text, true)
    }

    /// Tokens of a rendered chat, whose template has written all special tokens.
    pub fn encode_chat(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        self.encode(text, false)
    }

    /// Text of tokens. `skip_special` leaves out what the tokenizer calls special.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TokenizerError> {
        quiet::catch(|| self.inner.decode(ids, skip_special).map_err(|e| e.to_string()))
            .flatten()
            .map_err(|reason| TokenizerError::Decode { reason })
    }

    /// The id of a token by its exact text.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Added tokens whose ids the model does not have; using one in a prompt is an error.
    pub fn added_out_of_vocabulary(&self) -> Vec<String> {
        let mut tokens: Vec<(u32, String)> = self
            .inner
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(id, _)| *id as usize >= self.vocab_size)
            .map(|(id, token)| (id, token.content))
            .collect();
        tokens.sort_unstable();
        tokens.into_iter().map(|(_, token)| token).collect()
    }

    /// Rows of the model's output, which every id is below.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The library's tokenizer, for incremental decoding. Its functions may panic.
    pub fn shared(&self) -> Arc<Tokenizer> {
        Arc::clone(&self.inner)
    }

    fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, TokenizerError> {
        let (size, limit) = (text.len(), LIMITS.prompt_bytes);
        if size > limit {
            return Err(TokenizerError::TooLong { size, limit });
        }
        let encode = || {
            self.inner
                .encode_fast(text, add_special_tokens)
                .map(|encoding| encoding.get_ids().to_vec())
                .map_err(|e| e.to_string())
        };
        let ids =
            quiet::catch(encode).flatten().map_err(|reason| TokenizerError::Encode { reason })?;
        let vocab_size = self.vocab_size;
        match ids.iter().find(|&&id| id as usize >= vocab_size) {
            Some(&id) => Err(TokenizerError::OutOfVocabulary { id, vocab_size }),
            None => Ok(ids),
        }
    }
}

impl fmt::Debug for PackageTokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackageTokenizer")
            .field("vocab_size", &self.vocab_size)
            .finish_non_exhaustive()
    }
}

impl TokenizerError {
    /// A stable name of the cause.
    pub fn code(&self) -> &'static str {
        match self {
            Self::File(e) => e.code(),
            Self::Missing { .. } => "tokenizer_missing",
            Self::Json { .. } | Self::Invalid { .. } => "tokenizer_invalid",
            Self::Vocabulary { .. } => "tokenizer_does_not_fit_model",
            Self::TooLong { .. } => "text_too_long",
            Self::Encode { .. } => "text_not_encodable",
            Self::OutOfVocabulary { .. } => "token_out_of_vocabulary",
            Self::Decode { .. } => "tokens_not_decodable",
        }
    }

    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::File(e) => e.hint(),
            Self::Missing { .. } => Some(
                "add the tokenizer.json of the model; one can be made from other formats with transformers' AutoTokenizer.save_pretrained",
            ),
            Self::Json { .. } | Self::Invalid { .. } => {
                Some("take tokenizer.json again from where the weights came from")
            }
            Self::Vocabulary { .. } => {
                Some("tokenizer.json and the weights belong to different models")
            }
            Self::TooLong { .. } => Some("send a shorter prompt"),
            Self::Encode { .. } | Self::Decode { .. } => {
                Some("the tokenizer of this package is broken: replace its tokenizer.json")
            }
            Self::OutOfVocabulary { .. } => {
                Some("leave the added token out of the prompt: the weights have no row for it")
            }
        }
    }
}
