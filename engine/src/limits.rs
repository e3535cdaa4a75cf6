//! Which requests can be served at all.

use crate::sampling_params::in_vocabulary;
use crate::{PerClass, Request, SubmitError};

/// What an engine can hold; known before any request is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Token ids are below this.
    pub vocab_size: usize,
    /// Longest sequence, prompt and output.
    pub max_model_len: usize,
    /// Tokens in a cache block.
    pub block_size: usize,
    /// Cache blocks.
    pub blocks_total: usize,
    /// Sequences of each class that may wait.
    pub max_waiting: PerClass<usize>,
}

impl RequestLimits {
    /// Refuses what is invalid, and what would not fit an idle engine.
    pub fn check(&self, request: &Request) -> Result<(), SubmitError> {
        request.sampling.validate(self.vocab_size)?;
        request.stop.validate(self.vocab_size)?;
        let tops = [("logprobs", request.logprobs), ("prompt_logprobs", request.prompt_logprobs)];
        for (field, n) in tops {
            if let Some(n) = n.filter(|n| self.vocab_size < *n) {
                let allowed = format!("at most {}", self.vocab_size);
                return Err(crate::ParamError::new(field, n, allowed).into());
            }
        }
        if request.adapter != 0 {
            let value = format!("{:x}", request.adapter);
            return Err(
                crate::ParamError::new("adapter", value, "none: no adapter is loaded").into()
            );
        }
        if request.stop.max_tokens == 0 && request.prompt_logprobs.is_none() {
            return Err(crate::ParamError::new("max_tokens", 0, "at least 1").into());
        }
        if request.prompt.is_empty() {
            return Err(SubmitError::EmptyPrompt);
        }
        for &token in &request.prompt {
            in_vocabulary("prompt", token, self.vocab_size)?;
        }
        for &token in &request.generated {
            in_vocabulary("generated", token, self.vocab_size)?;
        }
        let room = request
            .stop
            .max_tokens
            .min(self.max_model_len - request.prompt.len().min(self.max_model_len));
        if !request.generated.is_empty() && room <= request.generated.len() {
            let allowed = format!("fewer than {room} tokens");
            return Err(
                crate::ParamError::new("generated", request.generated.len(), allowed).into()
            );
        }
        self.check_size(request.prompt.len(), request.stop.max_tokens.max(1))
    }

    fn check_size(&self, num_tokens: usize, max_tokens: usize) -> Result<(), SubmitError> {
        if self.max_model_len <= num_tokens {
            let max_model_len = self.max_model_len;
            return Err(SubmitError::PromptTooLong { num_tokens, max_model_len });
        }
        let longest = num_tokens.saturating_add(max_tokens).min(self.max_model_len);
        // The last token is never fed back, so its K/V are not kept.
        let num_blocks = (longest - 1).div_ceil(self.block_size);
        if self.blocks_total < num_blocks {
            return Err(SubmitError::NeverFits { num_blocks, blocks_total: self.blocks_total });
        }
        Ok(())
    }
}
