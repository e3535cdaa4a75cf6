//! What a snapshot knows besides bytes: what loading found out, and what the model must answer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::metadata::GenerationDefaults;

/// What loading a package found out, so that a warm start need not look.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notes {
    /// As `config.json` names it.
    pub architecture: String,
    /// What the matrices are kept as.
    pub dtype: String,
    /// The type that matrices were converted to; none kept their own.
    pub kept_as: Option<String>,
    /// Rows of the model's output.
    pub vocab_size: usize,
    /// Tokens that end an answer, ascending.
    pub eos_token_ids: Vec<u32>,
    /// Sampling where a request does not say.
    pub defaults: GenerationDefaults,
    /// Worth telling.
    pub warnings: Vec<String>,
    /// Matrices of the checkpoint that are stored in quantized blocks, and their types.
    pub block_types: BTreeMap<String, String>,
}

/// A prompt and its answer on the machine that made the snapshot. Equal bits mean that weights, kernels and tokenizer
/// are what they were.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// Tokens of the prompt.
    pub prompt: Vec<u32>,
    /// Type of keys and values.
    pub kv_cache_dtype: String,
    /// The most likely next tokens, best first.
    pub tokens: Vec<u32>,
    /// Bits of their log probabilities in f32.
    pub logprob_bits: Vec<u32>,
    /// Text of prompt and tokens.
    pub text: String,
}

impl Canary {
    /// Tokens of the prompt at most.
    const LENGTH: u32 = 8;

    /// The prompt for a vocabulary: tokens spread over it.
    pub fn prompt(vocab_size: usize) -> Vec<u32> {
        let vocab = u32::try_from(vocab_size).unwrap_or(u32::MAX).max(1);
        (0..Self::LENGTH).map(|at| vocab / (Self::LENGTH + 1) * (at + 1) % vocab).collect()
    }

    /// The first thing that differs from `found`, if anything does.
    pub fn difference(&self, found: &Self) -> Option<&'static str> {
        // A shorter model length cuts the prompt: then there is nothing to compare.
        if self.prompt != found.prompt {
            return None;
        }
        if self.text != found.text && self.tokens == found.tokens {
            return Some("text");
        }
        // Other keys and values are other numbers: then there is nothing to compare.
        if self.kv_cache_dtype != found.kv_cache_dtype {
            return None;
        }
        if self.tokens != found.tokens {
            return Some("tokens");
        }
        (self.logprob_bits != found.logprob_bits).then_some("log probabilities")
    }
}
