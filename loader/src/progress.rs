//! What a load tells while it goes on.

use std::sync::Arc;

/// A step of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Reading the manifest, `config.json`, the tokenizer and the template.
    Inspecting,
    /// Reading weights into the model, in bytes of the checkpoint.
    Weights {
        /// Bytes read.
        done: u64,
        /// Bytes there are.
        total: u64,
    },
}

/// Receives progress; called from the loading thread, so it must return at once.
pub type ProgressFn = Arc<dyn Fn(Progress) + Send + Sync>;

/// For a load that nobody watches.
pub fn silent() -> ProgressFn {
    Arc::new(|_| {})
}
