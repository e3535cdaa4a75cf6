//! What daemon and worker say of snapshots: the daemon decides where they lie, the worker what is in them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What of snapshots a worker may use and make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRequest {
    /// The folder of the package's snapshots, which may be read; none restores nothing.
    pub restore: Option<PathBuf>,
    /// Digest of the package, where its files are known.
    pub package: Option<String>,
    /// An empty folder that may be written to; none records nothing.
    pub staging: Option<PathBuf>,
    /// When weights are compared with their sums.
    pub verify: Verify,
}

/// When the weights of a snapshot are compared with their sums. Everything else always is, at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verify {
    /// Never.
    Off,
    /// While the package serves.
    #[default]
    Background,
    /// Before the package serves.
    Full,
}

/// What became of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SnapshotNews {
    /// The package came from it.
    Restored {
        /// Its target key.
        target: String,
    },
    /// It was there and could not be used; the package is loaded from its files.
    Refused {
        /// Its target key.
        target: String,
        /// Why.
        reason: String,
    },
    /// What one is made of is in memory, and can be written.
    Recorded {
        /// Its target key.
        target: String,
        /// Bytes of weights.
        bytes: u64,
    },
    /// How far writing is.
    Writing {
        /// Bytes done.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// It is in the staging folder, whole and on disk.
    Written {
        /// Bytes of its image.
        bytes: u64,
    },
    /// It was not written.
    Failed {
        /// Why.
        reason: String,
    },
    /// Every chunk of the one in use is whole.
    Verified,
    /// The one in use is not: what was computed with it is worth nothing.
    Damaged {
        /// Its target key.
        target: String,
        /// What is damaged.
        reason: String,
    },
}
