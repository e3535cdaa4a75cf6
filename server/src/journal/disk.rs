//! Where segments lie: a directory that one node has for itself.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};

use super::record::FORMAT;

/// Bytes before the first record of a segment.
pub(super) const HEADER_BYTES: usize = 24;
const MAGIC: [u8; 8] = *b"PINIONST";
const LOCK: &str = "lock";

/// Makes and removes segments.
pub(crate) trait Disk: Send {
    /// A new segment with its header, whose name will be found after a crash.
    fn create(&self, segment: u64) -> io::Result<Arc<dyn Segment>>;

    /// Removes a segment.
    fn remove(&self, segment: u64) -> io::Result<()>;
}

/// A segment that is written.
pub(crate) trait Segment: Send + Sync {
    /// Adds bytes to its end, all of them or an error.
    fn append(&self, bytes: &[u8]) -> io::Result<()>;

    /// Waits until it is on the disk.
    fn sync(&self) -> io::Result<()>;
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Two nodes would write over each other.
    #[error("the streams of another node that runs are there: {}", directory.display())]
    InUse {
        /// Which directory.
        directory: PathBuf,
    },
    /// It is not there, and cannot be made or read.
    #[error("streams cannot be kept there: {}: {source}", directory.display())]
    Unusable {
        /// Which directory.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A locked directory of segments.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Held for its lock, which ends with the process.
    _lock: File,
}

impl Directory {
    /// Makes the directory where it is not there, and locks it.
    pub(super) fn open(path: &Path) -> Result<Self, JournalError> {
        let unusable = |source| JournalError::Unusable { directory: path.to_owned(), source };
        // Prompts and answers are in it.
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)?;
        let lock = lock_file(&path.join(LOCK)).map_err(unusable)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(JournalError::InUse { directory: path.to_owned() })
            }
            Err(error) => Err(unusable(error.into())),
        }
    }

    fn segment(&self, segment: u64) -> PathBuf {
        segment_path(&self.path, segment)
    }
}

/// The segments in a directory, the oldest first.
pub(super) fn segments(directory: &Path) -> io::Result<Vec<u64>> {
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".log")?.parse::<u64>().ok());
        segments.extend(number);
    }
    segments.sort_unstable();
    Ok(segments)
}

/// Where a segment lies.
pub(super) fn segment_path(directory: &Path, segment: u64) -> PathBuf {
    directory.join(format!("{segment:020}.log"))
}

/// A read-only directory can be read, and locked if it was used before.
fn lock_file(path: &Path) -> io::Result<File> {
    let open = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
    open.or_else(|error| File::open(path).map_err(|_absent| error))
}

impl Disk for Directory {
    fn create(&self, segment: u64) -> io::Result<Arc<dyn Segment>> {
        let path = self.segment(segment);
        let file = OpenOptions::new().create_new(true).append(true).mode(0o600).open(path)?;
        (&file).write_all(&header(segment))?;
        File::open(&self.path)?.sync_all()?;
        Ok(Arc::new(file))
    }

    fn remove(&self, segment: u64) -> io::Result<()> {
        std::fs::remove_file(self.segment(segment))
    }
}

impl Segment for File {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let mut file = self;
        file.write_all(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Magic, version, number and a checksum of these.
pub(super) fn header(segment: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    header[12..20].copy_from_slice(&segment.to_le_bytes());
    let checksum = crc32c::crc32c(&header[..20]);
    header[20..].copy_from_slice(&checksum.to_le_bytes());
    header
}
