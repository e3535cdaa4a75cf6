//! Snapshots: the device-ready image of a package, so that a start reads bytes and converts nothing.
//!
//! A snapshot is a directory `<package digest>/<target key>/` of a [`Store`], published whole by rename. It holds the
//! derived weights as kernels read them, and everything else that loading a package makes. `docs/snapshot-format.md`
//! has the format.

mod error;
mod format;
mod identity;
mod notes;
mod reader;
mod source;
mod store;
mod target;
#[cfg(test)]
mod tests;
mod trust;
mod writer;

pub use error::SnapshotError;
pub(crate) use format::{COMPACT_TOKENIZER, CONFIG, TEMPLATE, TOKENIZER};
pub use format::{Chunk, Index, Manifest, TensorEntry};
pub use identity::Identity;
pub use notes::{Canary, Notes};
pub use reader::Snapshot;
pub(crate) use source::{Kept, Recording, RestoredSource};
pub use store::{Listed, Staging, Store, WriteLock};
pub use target::Target;
pub(crate) use writer::Beside;
pub use writer::Recorded;

/// Which snapshots a load may use and whether it keeps what one is made of.
#[derive(Clone, Debug, Default)]
pub struct SnapshotOptions {
    /// Directory of the package's snapshots, one folder a target; none restores nothing.
    pub restore: Option<std::path::PathBuf>,
    /// Digest of the package; a snapshot of another one is refused.
    pub package: Option<String>,
    /// Check every chunk before anything is used.
    pub verify_first: bool,
    /// Keep what a cold load derives, for [`Recorded::write`].
    pub record: bool,
}

/// How a package came into memory.
#[derive(Debug)]
pub enum Origin {
    /// From its own files, and what was derived if that was asked for.
    Cold(Option<Box<Recorded>>),
    /// From a snapshot.
    Warm(std::sync::Arc<Snapshot>),
}

/// A snapshot that was there and was not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its target key.
    pub target: String,
    /// Why.
    pub reason: String,
}
