//! Configuration: strings become types once, and remember where they came from.
//!
//! Flags win over `PINION_*` variables, these over `pinion.toml`, that over defaults. This module
//! is the only reader of the environment.

mod resolve;
mod settings;
#[cfg(test)]
mod tests;
mod value;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use pinion_engine::RouteClass;

use crate::ipc::Verify;
pub use crate::journal::JournalConfig;
pub(crate) use resolve::MAX_SPECULATIVE_TOKENS;
pub use resolve::{ConfigError, Origin, Resolved, resolve};
pub use settings::{Flags, SETTINGS, Setting};

/// What the daemon needs to know besides its packages. No value means "default" here.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Keys that clients must present; empty only on loopback or with `--insecure`.
    pub api_keys: Vec<String>,
    /// Longest request body in bytes.
    pub max_body_bytes: usize,
    /// Longest wait for running requests at shutdown.
    pub drain_timeout: Duration,
    /// Silence after which a stream carries a heartbeat.
    pub heartbeat: Duration,
    /// Name in the ids of streams.
    pub node_name: String,
    /// What becomes of an inference that nobody reads, where its request does not say.
    pub on_disconnect: DisconnectPolicy,
    /// Time that an inference goes on without a reader.
    pub linger: Duration,
    /// Time that an ended stream can be read again.
    pub stream_ttl: Duration,
    /// Bytes for the logs of streams.
    pub stream_memory_bytes: usize,
    /// Where streams are written so that they survive the node; none writes nothing.
    pub journal: Option<JournalConfig>,
    /// Bearer token of webhook deliveries.
    pub webhook_token: Option<String>,
    /// Whether webhooks may reach private addresses.
    pub allow_private_webhooks: bool,
}

/// What becomes of an inference that nobody reads any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisconnectPolicy {
    /// It goes on for a while.
    Linger,
    /// It ends at once.
    Cancel,
    /// It goes on to its end.
    Complete,
}

impl FromStr for DisconnectPolicy {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "linger" => Ok(Self::Linger),
            "cancel" => Ok(Self::Cancel),
            "complete" => Ok(Self::Complete),
            _ => Err(()),
        }
    }
}

/// Whether packages start from snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotMode {
    /// Where the store can be used.
    Auto,
    /// And a store that cannot be used is an error.
    On,
    /// Never.
    Off,
}

/// How snapshots are used.
#[derive(Clone, Debug)]
pub struct SnapshotConfig {
    /// Whether.
    pub mode: SnapshotMode,
    /// Where they are kept; none where the user has no data directory.
    pub directory: Option<PathBuf>,
    /// Bytes of all snapshots.
    pub limit: u64,
    /// When weights are compared with their sums.
    pub verify: Verify,
    /// Whether one is written where there is none.
    pub write: bool,
}

/// How every package's worker is run, where the package does not say otherwise.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// `auto`, `cpu` or `cuda:N`.
    pub device: String,
    /// Backend by name; none decides by the package.
    pub backend: Option<String>,
    /// Weight type by name; none keeps the package's own.
    pub dtype: Option<String>,
    /// Longest sequence; none takes the package's, then the model's.
    pub max_model_len: Option<u32>,
    /// Sequences that run at once; none takes the package's, then 64.
    pub max_num_seqs: Option<u32>,
    /// Tokens of one step.
    pub max_num_batched_tokens: u32,
    /// Generations that may wait.
    pub max_queue: u32,
    /// Percent of the engine that is kept for each route class, in their order.
    pub class_shares: [u32; RouteClass::ALL.len()],
    /// Bytes of KV cache; none sizes it from free memory.
    pub kv_cache_bytes: Option<u64>,
    /// Type of keys and values; none follows the weights.
    pub kv_cache_dtype: Option<String>,
    /// Compute threads; none uses every CPU the process may use.
    pub threads: Option<u32>,
    /// Whether full prefix blocks are found again.
    pub prefix_cache: bool,
    /// Tokens that are guessed and checked in one step, at most; none takes the package's, then 0.
    pub speculative_tokens: Option<u32>,
    /// How snapshots are used.
    pub snapshots: SnapshotConfig,
    /// Bytes that a worker may allocate on top of its loaded model.
    pub memory_headroom_bytes: u64,
    /// Silence after which a worker is killed.
    pub hang_timeout: Duration,
    /// Time that one step of the engine may take.
    pub step_timeout: Duration,
    /// Time that preparing one prompt may take.
    pub render_timeout: Duration,
}

/// Everything that `pinion serve` reads from flags, environment and file.
#[derive(Clone, Debug)]
pub struct Config {
    /// The daemon's part.
    pub serve: ServeConfig,
    /// The workers' part.
    pub worker: WorkerConfig,
}

/// The folder of what pinion keeps for its user; none where the environment names no home.
fn data_directory() -> Option<PathBuf> {
    let named = |name| env_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    named("PINION_HOME")
        .or_else(|| Some(named("XDG_DATA_HOME")?.join("pinion")))
        .or_else(|| Some(named("HOME")?.join(".local/share/pinion")))
}

/// A variable of the environment as text; none if it is unset or not UTF-8.
pub fn env_var(name: &str) -> Option<String> {
    env_os(name).and_then(|value| value.into_string().ok())
}

/// A variable of the environment.
pub fn env_os(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}
