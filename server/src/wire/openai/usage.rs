//! What a request took, in tokens.

use serde::Serialize;

use crate::ipc::{Event, Usage};

/// `usage` of an answer.
#[derive(Debug, Serialize)]
pub(crate) struct UsageBody {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u32,
    prompt_tokens_details: PromptTokensDetails,
}

#[derive(Debug, Serialize)]
struct PromptTokensDetails {
    cached_tokens: u32,
}

/// Adds up the usage of all choices.
#[derive(Debug)]
pub(crate) struct UsageCount {
    choices: Vec<Usage>,
    choices_per_prompt: usize,
}

impl UsageCount {
    /// Nothing used yet.
    pub(crate) fn new(choices: usize, choices_per_prompt: usize) -> Self {
        Self { choices: vec![Usage::default(); choices], choices_per_prompt }
    }

    /// Counts what an event of a choice means.
    pub(crate) fn observe(&mut self, choice: usize, event: &Event) {
        let count = &mut self.choices[choice];
        match event {
            Event::Started { prompt_tokens, cached_tokens } => {
                count.prompt_tokens = *prompt_tokens;
                count.cached_tokens = *cached_tokens;
            }
            Event::Delta { token_ids, .. } => count.completion_tokens += token_ids.len() as u32,
            Event::Finished { usage, .. } => *count = *usage,
            Event::Failed(_) => {}
        }
    }

    /// The usage so far. A prompt counts once, however many choices continue it.
    pub(crate) fn body(&self) -> UsageBody {
        let prompts = || self.choices.iter().step_by(self.choices_per_prompt);
        let prompt_tokens = prompts().map(|usage| usage.prompt_tokens).sum();
        let cached_tokens = prompts().map(|usage| usage.cached_tokens).sum();
        let completion_tokens = self.choices.iter().map(|usage| usage.completion_tokens).sum();
        UsageBody {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens + completion_tokens,
            prompt_tokens_details: PromptTokensDetails { cached_tokens },
        }
    }
}
