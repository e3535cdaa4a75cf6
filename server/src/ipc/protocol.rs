//! Messages between daemon and worker: plain data, one message a step and direction.
//!
//! JSON that only the worker may interpret (chat messages, tools) travels as text, so that the
//! daemon never acts on it and the frames stay compact.

use std::path::PathBuf;

use pinion_engine::RouteClass;
use serde::{Deserialize, Serialize};

use super::{SnapshotNews, SnapshotRequest, Urgency};

/// Both sides must name the same number in their first message.
pub const PROTOCOL_VERSION: u32 = 3;

/// Names one sequence on one connection; never reused.
pub type RequestKey = u64;

/// Daemon to worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToWorker {
    /// First message: what to load, within which limits.
    Load(Box<LoadRequest>),
    /// Generate.
    Submit(Box<Submit>),
    /// Stop generating; answered by a final event, unless one is already on its way.
    Cancel(RequestKey),
    /// Count or list tokens; answered by `Tokens`.
    Tokenize {
        /// Echoed in the answer.
        key: RequestKey,
        /// What to tokenize.
        input: TokenizeInput,
    },
    /// Prove that the connection is read; answered by `Pong`.
    Ping {
        /// Echoed in the answer.
        nonce: u64,
    },
    /// Write a snapshot of what was loaded, or forget what was kept for one.
    WriteSnapshot {
        /// Digest of the package; without one nothing is written. Else `Snapshot` answers.
        package: Option<String>,
    },
    /// Exit once nothing runs.
    Shutdown,
}

/// Worker to daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromWorker {
    /// First message.
    Hello {
        /// `PROTOCOL_VERSION` of the worker's build.
        protocol: u32,
    },
    /// How far loading is.
    Loading {
        /// What is being done.
        stage: LoadStage,
        /// Bytes done.
        done: u64,
        /// Bytes in all, zero if unknown.
        total: u64,
    },
    /// The package serves.
    Ready(Box<ModelInfo>),
    /// The package cannot be served; the worker exits.
    LoadFailed(WorkerError),
    /// What became of a snapshot.
    Snapshot(SnapshotNews),
    /// What one step, or one rejection, meant for each sequence it touched.
    Step {
        /// In order for each key.
        events: Vec<(RequestKey, Event)>,
        /// After the step.
        stats: Stats,
    },
    /// Answer to `Tokenize`.
    Tokens {
        /// From the question.
        key: RequestKey,
        /// Ids, or why not; for `Detokenize` the text.
        result: Result<Tokenized, WorkerError>,
    },
    /// Answer to `Ping`, with what the daemon judges hangs by.
    Pong {
        /// From the question.
        nonce: u64,
        /// Milliseconds that the engine has spent in its current step; zero when idle.
        step_millis: u64,
        /// Milliseconds that the oldest template rendering or tokenization has run.
        render_millis: u64,
    },
}

/// Where the package lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PackageSource {
    /// The package inside the binary.
    Starter,
    /// A package directory.
    Directory(PathBuf),
}

/// What to load and how much of the machine it may use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadRequest {
    /// Where the package lies.
    pub source: PackageSource,
    /// `auto`, `cpu` or `cuda:N`.
    pub device: String,
    /// Weight type by name; none keeps the package's own.
    pub dtype: Option<String>,
    /// Longest sequence, prompt and output; none takes the model's.
    pub max_model_len: Option<u32>,
    /// Sequences that run at once.
    pub max_num_seqs: u32,
    /// Tokens of one step.
    pub max_num_batched_tokens: u32,
    /// Sequences that may wait.
    pub max_waiting: u32,
    /// Percent of the engine that is kept for each route class, in their order.
    pub class_shares: [u32; RouteClass::ALL.len()],
    /// Bytes of KV cache; none sizes it from free memory.
    pub kv_cache_bytes: Option<u64>,
    /// Type of keys and values: `f32`, `bf16` or `f16`; none takes f32 for f32 weights, else bf16.
    pub kv_cache_dtype: Option<String>,
    /// Compute threads; none uses every CPU the process may use.
    pub threads: Option<u32>,
    /// Bytes the process may allocate on top of the loaded model.
    pub memory_headroom_bytes: u64,
    /// Whether full prefix blocks are found again.
    pub prefix_cache: bool,
    /// Tokens that are guessed and checked in one step, at most, where a request does not say.
    pub speculative_tokens: u32,
    /// What of snapshots is used and made.
    pub snapshot: SnapshotRequest,
}

/// What a worker is doing before it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoadStage {
    /// Reading and checking the package.
    Inspecting,
    /// Reading and packing weights.
    Weights,
    /// Allocating the cache and running the first step.
    Warming,
}

/// What a served package can do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// `architectures[0]`.
    pub architecture: String,
    /// Weight type.
    pub dtype: String,
    /// What the kernels run on, for people.
    pub device: String,
    /// Parameters.
    pub num_parameters: u64,
    /// Bytes of packed weights.
    pub weight_bytes: u64,
    /// Longest sequence.
    pub max_model_len: u32,
    /// Sequences that run at once.
    pub max_num_seqs: u32,
    /// Tokens per KV block.
    pub block_size: u32,
    /// KV blocks.
    pub num_blocks: u32,
    /// Rows of the output layer.
    pub vocab_size: u32,
    /// Whether chat messages can be rendered.
    pub has_chat_template: bool,
    /// Milliseconds from `Load` to `Ready`.
    pub load_millis: u64,
    /// Sampling defaults of the package.
    pub temperature: Option<f32>,
    /// See `temperature`.
    pub top_p: Option<f32>,
    /// See `temperature`.
    pub top_k: Option<u32>,
    /// The same for a package that gives the same tokens.
    pub identity: String,
    /// What the loader noticed and served anyway.
    pub warnings: Vec<String>,
}

/// One generation of one sequence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Submit {
    /// Names it from here on.
    pub key: RequestKey,
    /// What to continue.
    pub prompt: Prompt,
    /// How.
    pub params: GenerationParams,
    /// The time that a chat template is told.
    pub unix_seconds: i64,
    /// What was generated before, by a worker that died.
    pub resume: Option<Resume>,
    /// Further answers to the same prompt, which is prepared and computed once: name and seed of
    /// each. They run, end and are cancelled alone.
    pub choices: Vec<(RequestKey, u64)>,
}

/// What was generated and delivered before the worker that generated it died.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// Tokens generated.
    pub token_ids: Vec<u32>,
    /// Tokens of the prompt that were found in the prefix cache.
    pub cached_tokens: u32,
}

impl Submit {
    /// The names of all answers.
    pub fn keys(&self) -> impl Iterator<Item = RequestKey> {
        std::iter::once(self.key).chain(self.choices.iter().map(|(key, _)| *key))
    }

    /// A submission of its own for each answer.
    pub fn split(self) -> impl Iterator<Item = Self> {
        let Self { key, choices, .. } = self;
        let all = std::iter::once((key, self.params.seed)).chain(choices);
        all.map(move |(key, seed)| Self {
            key,
            prompt: self.prompt.clone(),
            params: GenerationParams { seed, ..self.params.clone() },
            unix_seconds: self.unix_seconds,
            resume: self.resume.clone(),
            choices: Vec::new(),
        })
    }
}

/// What to continue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Prompt {
    /// Text, tokenized as the tokenizer's post-processor wants it.
    Text(String),
    /// Tokens.
    Tokens(Vec<u32>),
    /// Messages for the chat template.
    Chat {
        /// JSON array of OpenAI messages.
        messages: String,
        /// JSON array of OpenAI tools.
        tools: Option<String>,
        /// JSON object of further template variables.
        template_kwargs: Option<String>,
        /// Join the texts of the messages if the package has no template, instead of failing.
        plain_fallback: bool,
    },
}

/// What `Tokenize` tokenizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum TokenizeInput {
    /// A prompt, as generation would see it.
    Prompt(Prompt),
    /// Tokens back to text.
    Detokenize(Vec<u32>),
}

/// Answer to `Tokenize`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tokenized {
    /// Ids of the prompt.
    Ids(Vec<u32>),
    /// Text of the ids.
    Text(String),
}

/// Sampling and ending. Ranges are checked by the engine, which knows the vocabulary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a field of the request")]
pub struct GenerationParams {
    /// Tokens to generate at most; none fills the model's length, and zero only echoes the prompt.
    pub max_tokens: Option<u32>,
    /// Tokens before an end is allowed.
    pub min_tokens: u32,
    /// None takes the package's default, then 1.
    pub temperature: Option<f32>,
    /// None takes the package's default, then 1.
    pub top_p: Option<f32>,
    /// None takes the package's default, then off.
    pub top_k: Option<u32>,
    /// Probability relative to the most likely token.
    pub min_p: f32,
    /// Fixes the outcome.
    pub seed: u64,
    /// HF repetition penalty, 1 is off.
    pub repetition_penalty: f32,
    /// OpenAI presence penalty.
    pub presence_penalty: f32,
    /// OpenAI frequency penalty.
    pub frequency_penalty: f32,
    /// Added to logits.
    pub logit_bias: Vec<(u32, f32)>,
    /// Strings that end the text and are not part of it.
    pub stop: Vec<String>,
    /// Tokens that end the text.
    pub stop_token_ids: Vec<u32>,
    /// Go on past the end-of-text token.
    pub ignore_eos: bool,
    /// Whether the stop string that ends the text is part of it.
    pub include_stop: bool,
    /// Log probabilities wanted: alternatives a token.
    pub logprobs: Option<u32>,
    /// Log probabilities after bias, penalties and temperature, instead of the model's own.
    pub processed_logprobs: bool,
    /// The text begins with that of the prompt.
    pub echo: bool,
    /// Tokens that are guessed and checked in one step, at most; none takes the package's.
    pub speculative_tokens: Option<u32>,
    /// Separates prefix caches; zero shares.
    pub cache_salt: [u64; 2],
    /// Render special tokens into the text.
    pub keep_special_tokens: bool,
    /// Which queue, and for how long.
    pub urgency: Urgency,
}

impl Default for GenerationParams {
    fn default() -> Self {
        Self {
            max_tokens: None,
            min_tokens: 0,
            temperature: None,
            top_p: None,
            top_k: None,
            min_p: 0.0,
            seed: 0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            stop: Vec::new(),
            stop_token_ids: Vec::new(),
            ignore_eos: false,
            include_stop: false,
            logprobs: None,
            processed_logprobs: false,
            echo: false,
            speculative_tokens: None,
            cache_salt: [0; 2],
            keep_special_tokens: false,
            urgency: Urgency::default(),
        }
    }
}

/// What happened to one sequence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// The first step ran; nothing can be refused any more.
    Started {
        /// Tokens of the prompt.
        prompt_tokens: u32,
        /// Of these, found in the prefix cache.
        cached_tokens: u32,
    },
    /// More text. `text` may be empty while a character is incomplete.
    Delta {
        /// New text.
        text: String,
        /// New tokens.
        token_ids: Vec<u32>,
        /// One entry a token, if asked for.
        logprobs: Vec<TokenLogprob>,
    },
    /// Last event of a sequence that ran.
    Finished {
        /// Why it ended.
        reason: FinishReason,
        /// What it took.
        usage: Usage,
    },
    /// Last event of a sequence that did not run to its end.
    Failed(WorkerError),
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FinishReason {
    /// A stop token or string.
    Stop,
    /// `max_tokens` or the model's length.
    Length,
    /// Cancelled.
    Cancelled,
}

/// What a sequence took, in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Of these, found in the prefix cache.
    pub cached_tokens: u32,
    /// Tokens generated, the stop token included.
    pub completion_tokens: u32,
}

/// A token and what else it could have been.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    /// Text of the token alone.
    pub token: String,
    /// Natural logarithm of its probability before sampling changes; none for the first token of a
    /// prompt, which follows nothing.
    pub logprob: Option<f32>,
    /// The bytes of the token.
    pub bytes: Vec<u8>,
    /// The most likely tokens, best first.
    pub top: Vec<(String, Vec<u8>, f32)>,
}

/// Whose fault a worker's error is, and what may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The request can succeed nowhere.
    InvalidRequest,
    /// No room: try again later.
    Overloaded,
    /// No room now, but probably after so many milliseconds.
    Later {
        /// From now.
        millis: u64,
    },
    /// The package is at fault.
    Package,
    /// The worker or the machine is at fault; another node may answer.
    Internal,
}

/// An error as it crosses the process boundary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerError {
    /// Whose fault.
    pub kind: ErrorKind,
    /// Stable, for programs.
    pub code: String,
    /// For people.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// Field of the request that is wrong.
    pub param: Option<String>,
}

impl WorkerError {
    /// The worker, the machine or the node is at fault, and no more is to be said.
    pub fn internal(code: impl Into<String>, message: impl Into<String>) -> Self {
        let (code, message) = (code.into(), message.into());
        Self { kind: ErrorKind::Internal, code, message, hint: None, param: None }
    }
}

/// The engine's counters after a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Sequences in the batch.
    pub running: u32,
    /// Sequences in the queue.
    pub waiting: u32,
    /// Of those that run, those of each route class, in their order.
    pub class_running: [u32; RouteClass::ALL.len()],
    /// Of those in the queue, those of each route class.
    pub class_waiting: [u32; RouteClass::ALL.len()],
    /// KV blocks in all.
    pub blocks_total: u32,
    /// KV blocks that nobody uses.
    pub blocks_free: u32,
    /// Sequences sent back to the queue, ever.
    pub num_preemptions: u64,
    /// Prompt tokens looked up in the prefix cache, ever.
    pub prefix_queries: u64,
    /// Of these, found.
    pub prefix_hits: u64,
    /// Steps, ever.
    pub steps: u64,
    /// Prompt tokens computed, ever.
    pub prompt_tokens: u64,
    /// Tokens generated, ever.
    pub generation_tokens: u64,
    /// Tokens guessed and checked, ever.
    pub draft_tokens: u64,
    /// Of these, right.
    pub accepted_draft_tokens: u64,
}
