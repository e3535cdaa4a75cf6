//! What can be wrong with a file of a package.

use std::io;

use thiserror::Error;

/// A file of a package that could not be read, and why.
#[derive(Debug, Error)]
pub enum FileError {
    /// The package directory cannot be opened.
    #[error("cannot open the package directory: {path}: {source}")]
    Root {
        /// As given.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The path cannot be one of a file in the package.
    #[error("path is not allowed in a package: {reason}: {path:?}")]
    Invalid {
        /// As given.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The path leads out of the package.
    #[error("file leads out of the package through a symbolic link: {path}")]
    Escapes {
        /// Relative to the package.
        path: String,
    },
    /// The path names a directory, FIFO, socket or device.
    #[error("not a regular file but a {found}: {path}")]
    NotRegular {
        /// Relative to the package.
        path: String,
        /// What it is.
        found: &'static str,
    },
    /// The file is larger than files of its kind may be.
    #[error("file has {size} bytes, and {limit} are allowed: {path}")]
    TooLarge {
        /// Relative to the package.
        path: String,
        /// Bytes it has.
        size: u64,
        /// Bytes it may have.
        limit: u64,
    },
    /// A text file that is not UTF-8.
    #[error("file is not UTF-8 at byte {offset}: {path}")]
    NotUtf8 {
        /// Relative to the package.
        path: String,
        /// The first byte that is not.
        offset: usize,
    },
    /// The system failed to read it.
    #[error("cannot read {path}: {source}")]
    Io {
        /// Relative to the package.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

impl FileError {
    /// A stable name of the cause.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Root { .. } => "package_unreadable",
            Self::Invalid { .. } => "path_invalid",
            Self::Escapes { .. } => "path_escapes_package",
            Self::NotRegular { .. } => "not_a_regular_file",
            Self::TooLarge { .. } => "file_too_large",
            Self::NotUtf8 { .. } => "file_not_utf8",
            Self::Io { .. } => "file_unreadable",
        }
    }

    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Invalid { .. } => Some("name files relative to the package, without `..`"),
            Self::Escapes { .. } => Some(
                "copy or hard-link the file into the package (`cp -rL`): a package must be whole without its surroundings",
            ),
            Self::NotRegular { .. } => Some("replace it with an ordinary file"),
            Self::TooLarge { .. } => Some("check that this is the right file"),
            Self::Root { .. } | Self::NotUtf8 { .. } | Self::Io { .. } => None,
        }
    }
}
