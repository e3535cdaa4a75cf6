//! Why a snapshot cannot be written or used.

use std::io;
use std::path::Path;

use thiserror::Error;

/// A snapshot that cannot be written or used, and why.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// There is none.
    #[error("there is no snapshot: {path}")]
    Missing {
        /// Where it would be.
        path: String,
    },
    /// It was made for something else.
    #[error("snapshot is foreign: {field} is {found}, expected {expected}")]
    Foreign {
        /// What differs.
        field: &'static str,
        /// In the snapshot.
        found: String,
        /// Here.
        expected: String,
    },
    /// Its bytes are not those that were written.
    #[error("snapshot is damaged: {what}")]
    Damaged {
        /// Where, and how that is known.
        what: String,
    },
    /// Others could have changed it.
    #[error("snapshot is not trusted: {reason}: {path}")]
    Untrusted {
        /// File or folder.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Another node writes it.
    #[error("another process writes a snapshot of this package")]
    Locked,
    /// The package changed since it was loaded.
    #[error("the package changed while its snapshot was made: {package}")]
    Changed {
        /// Its directory.
        package: String,
    },
    /// The package has more files than are looked at.
    #[error("the package has more than {limit} files or folders in folders: {package}")]
    TooMany {
        /// Its directory.
        package: String,
        /// How many are.
        limit: usize,
    },
    /// It does not fit.
    #[error("a snapshot of {bytes} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// What it takes.
        bytes: u64,
        /// What all snapshots may take.
        limit: u64,
    },
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// File or folder.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

impl SnapshotError {
    /// Whether the disk is full, which is no fault of the snapshot.
    pub fn is_disk_full(&self) -> bool {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        matches!(self, Self::Io { source, .. } if full.contains(&source.kind()))
    }

    pub(super) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged { what: what.into() }
    }
}

/// Adds the path to an error of the system.
pub(super) fn at(path: &Path) -> impl Fn(io::Error) -> SnapshotError + '_ {
    move |source| SnapshotError::Io { path: path.display().to_string(), source }
}
