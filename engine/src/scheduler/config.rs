//! Limits of a scheduler.

use crate::{PerClass, RouteClass};

/// Limits of one step and of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// Sequences that run at a time.
    pub max_num_seqs: usize,
    /// Tokens in one step.
    pub max_num_batched_tokens: usize,
    /// Tokens of one sequence in one step, so that a long prompt leaves room for others.
    pub max_chunk: usize,
    /// Longest sequence, prompt and output; at most what the model allows.
    pub max_model_len: usize,
    /// What each class has to itself.
    pub classes: PerClass<ClassConfig>,
    /// Rows of the model's output layer.
    pub vocab_size: usize,
    /// Whether full blocks are found again by the hash of their tokens.
    pub prefix_cache: bool,
    /// Tokens of one sequence that are guessed and checked in one step, at most, where a request
    /// does not say otherwise; zero is off.
    pub num_draft_tokens: usize,
    /// Identity of the package, part of that hash.
    pub package: u128,
}

/// What a class has to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassConfig {
    /// Sequences that may wait.
    pub max_waiting: usize,
    /// Percent of a step's tokens, of the cache blocks, and of the sequences that run at a time,
    /// that are kept for it; what it leaves unused is lent to others. Over 100 in all, the less
    /// urgent classes get less.
    pub share_percent: usize,
}

impl ClassConfig {
    /// Shares that leave a quarter to whoever comes first, and queues of one length.
    pub fn with_max_waiting(max_waiting: usize) -> PerClass<Self> {
        let share_percent = |class| match class {
            RouteClass::Latency | RouteClass::Default => 25,
            RouteClass::Compliance => 15,
            RouteClass::Reasoning => 10,
        };
        PerClass::from_fn(|class| Self { max_waiting, share_percent: share_percent(class) })
    }
}
