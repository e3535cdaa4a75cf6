//! What comes out of an engine.

use std::time::Duration;

use crate::{PerClass, RequestId, RouteClass};

/// All that one step produced, in one message.
#[derive(Clone, Debug, PartialEq)]
pub struct StepOutput {
    /// In order for each sequence, one a token; never empty when sent.
    pub outputs: Vec<SequenceOutput>,
    /// Counters after the step.
    pub stats: EngineStats,
}

/// What a step meant for one sequence. The one with `finish` is the last of its sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct SequenceOutput {
    /// Which.
    pub id: RequestId,
    /// The new token; `None` when the sequence was aborted, refused or failed.
    pub token: Option<SampledToken>,
    /// Why it ended, on the last output. With [`FinishReason::Stop`], `token` is the end token,
    /// which is not part of the text.
    pub finish: Option<FinishReason>,
    /// What is known of the prompt, on the first output that comes of computing it.
    pub prompt: Option<Box<PromptOutput>>,
}

/// What came of computing a prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PromptOutput {
    /// How many of its tokens came from the prefix cache.
    pub num_cached_tokens: usize,
    /// Its tokens from the second on, if their log probabilities were asked for.
    pub logprobs: Vec<SampledToken>,
}

/// A token and how probable it was.
#[derive(Clone, Debug, PartialEq)]
pub struct SampledToken {
    /// The token.
    pub id: u32,
    /// Natural logarithm of its probability under the model, before any sampling parameter;
    /// `None` unless asked for.
    pub logprob: Option<f32>,
    /// The most probable tokens, best first, as many as asked for.
    pub top: Vec<TokenLogprob>,
}

/// One alternative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub id: u32,
    /// Natural logarithm of its probability under the model.
    pub logprob: f32,
}

/// Why a sequence ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// An end token.
    Stop,
    /// `max_tokens` or the model's length.
    Length,
    /// The caller gave up, or the engine was shut down.
    Aborted,
    /// Something went wrong.
    Error(SequenceError),
}

/// What went wrong with one sequence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    /// The model's output was not a number; nothing can be sampled from it.
    #[error("the model returned logits that are not finite, at token {position}")]
    NonFiniteLogits {
        /// Index of the token that was to be sampled.
        position: usize,
    },
    /// The step that the sequence was part of failed; a new try may succeed.
    #[error("the model failed: {message}")]
    StepFailed {
        /// What the model, or its panic, said.
        message: String,
    },
    /// The first token was not there in time; the request had waited all the while.
    #[error("the deadline has passed before the first token: {} ms ago", .late_by.as_millis())]
    DeadlineExceeded {
        /// How long ago.
        late_by: Duration,
    },
    /// The request was refused after it had been handed over.
    #[error(transparent)]
    Refused(#[from] SubmitError),
}

/// Why a request is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// A sampling or stop parameter has no meaning.
    #[error(transparent)]
    Param(#[from] crate::ParamError),
    /// There is nothing to continue.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// The prompt leaves no room for a token.
    #[error(
        "the prompt has {num_tokens} tokens, the model takes fewer than {max_model_len} with its output"
    )]
    PromptTooLong {
        /// Tokens of the prompt.
        num_tokens: usize,
        /// Longest sequence, prompt and output.
        max_model_len: usize,
    },
    /// Not even an empty cache could hold it.
    #[error("prompt and output need {num_blocks} cache blocks, there are {blocks_total}")]
    NeverFits {
        /// Blocks for the longest output asked for.
        num_blocks: usize,
        /// Blocks of the whole cache.
        blocks_total: usize,
    },
    /// Too many requests of the class wait already; try later.
    #[error("the queue of the class is full: {}: {max_waiting}", .class.name())]
    QueueFull {
        /// Whose queue.
        class: RouteClass,
        /// How many may wait there.
        max_waiting: usize,
        /// When the queue is probably shorter; `None` before steps were measured.
        retry_after: Option<Duration>,
    },
    /// What is ahead of it, and its own prompt, probably take longer than it can wait.
    #[error(
        "the first token would come after the deadline: in {} ms instead of {} ms",
        .needed.as_millis(),
        .left.as_millis()
    )]
    DeadlineUnmeetable {
        /// Time to the first token, from what recent steps took.
        needed: Duration,
        /// Time to the deadline.
        left: Duration,
    },
    /// The engine holds a request of this name.
    #[error("a request with this id is running: {}", .0.0)]
    DuplicateId(RequestId),
    /// The engine has ended.
    #[error("the engine has stopped")]
    Stopped,
}

/// Counters and gauges of an engine; counters only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Sequences that own blocks.
    pub running: usize,
    /// Sequences in the queue, preempted ones included.
    pub waiting: usize,
    /// Blocks that can be handed out.
    pub blocks_total: usize,
    /// Blocks that no sequence owns; some of them hold cached prefixes.
    pub blocks_free: usize,
    /// The same by class.
    pub classes: PerClass<ClassStats>,
    /// Times a sequence gave its blocks back.
    pub num_preemptions: u64,
    /// Tokens looked up in the prefix cache.
    pub prefix_queries: u64,
    /// Tokens found there.
    pub prefix_hits: u64,
    /// Steps that ran.
    pub steps: u64,
    /// Steps that failed.
    pub failed_steps: u64,
    /// Prompt tokens of the requests that started, cached ones included.
    pub prompt_tokens: u64,
    /// Tokens of the text.
    pub generation_tokens: u64,
    /// Tokens that were guessed and checked.
    pub draft_tokens: u64,
    /// Of these, the ones that were right.
    pub accepted_draft_tokens: u64,
    /// Integrity checks of the prefix cache.
    pub cache_checks: u64,
    /// Of these, those that found something wrong; each emptied the cache.
    pub cache_faults: u64,
}

/// Gauges of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassStats {
    /// Sequences that own blocks.
    pub running: usize,
    /// Sequences in the queue, preempted ones included.
    pub waiting: usize,
    /// Time until a new request would have its first step, from what recent steps took; `None`
    /// before steps were measured.
    pub wait: Option<Duration>,
}
