//! Which package a directory holds: a digest of its files, whose contents are read once and not on every start.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::SnapshotError;
use super::error::at;

/// Directories below a package that are looked into.
const MAX_DEPTH: usize = 8;
/// Files of a package.
const MAX_FILES: usize = 10_000;
/// A change this close to the reading of a file may have the same time stamp: several ticks of any kernel.
const SETTLED_NANOS: i128 = 50_000_000;
/// The same for file systems that count whole seconds, or two.
const SETTLED_COARSE_NANOS: i128 = 2_100_000_000;
/// Bytes that are read at once.
const BUFFER: usize = 1 << 20;

/// The files of a package directory as the file system knows them. Equal values mean unchanged files: whoever writes to
/// a file changes the time of its status, which no program can set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    directory: PathBuf,
    files: Vec<(String, FileId)>,
}

/// One file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FileId {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Digests of the files of one package, kept between starts.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Digests(BTreeMap<String, (FileId, String)>);

impl FileId {
    /// From when on a change would show in the time stamp.
    fn settled(&self) -> i128 {
        let (seconds, nanos) = self.changed;
        let settled = if nanos == 0 { SETTLED_COARSE_NANOS } else { SETTLED_NANOS };
        i128::from(seconds) * 1_000_000_000 + i128::from(nanos) + settled
    }
}

fn nanos(time: SystemTime) -> i128 {
    let nanos = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    i128::try_from(nanos).unwrap_or(i128::MAX)
}

impl Identity {
    /// Looks at the files of a package, and reads none.
    pub fn of(directory: &Path) -> Result<Self, SnapshotError> {
        let mut files = Vec::new();
        walk(directory, directory, MAX_DEPTH, &mut files)?;
        files.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(Self { directory: directory.to_owned(), files })
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, id)| id.bytes).sum()
    }

    /// How long until every further change to a file shows.
    pub(super) fn settles_in(&self, now: SystemTime) -> Duration {
        let latest = self.files.iter().map(|(_, id)| id.settled()).max().unwrap_or(0);
        Duration::from_nanos(u64::try_from(latest + 1 - nanos(now)).unwrap_or(0))
    }

    /// The digest of the package, where all its files are known.
    pub(super) fn known(&self, digests: &Digests) -> Option<String> {
        let mut parts = Vec::with_capacity(self.files.len());
        for (path, id) in &self.files {
            let (_, digest) = digests.0.get(path).filter(|(known, _)| known == id)?;
            parts.push((path.as_str(), id.bytes, digest.as_str()));
        }
        Some(digest(&parts))
    }

    /// The digest of the package. Files that are not known are read, and known afterwards.
    pub(super) fn compute(
        &self,
        digests: &mut Digests,
        now: SystemTime,
    ) -> Result<String, SnapshotError> {
        let now = nanos(now);
        let mut known = BTreeMap::new();
        let mut parts = Vec::with_capacity(self.files.len());
        for (path, id) in &self.files {
            let found = digests.0.get(path).filter(|(known, _)| known == id);
            let digest = match found {
                Some((_, digest)) => digest.clone(),
                None => hash(&self.directory.join(path))?,
            };
            if id.settled() < now {
                known.insert(path.clone(), (*id, digest.clone()));
            }
            parts.push((path.as_str(), id.bytes, digest));
        }
        if Self::of(&self.directory)? != *self {
            let package = self.directory.display().to_string();
            return Err(SnapshotError::Changed { package });
        }
        *digests = Digests(known);
        let parts: Vec<_> =
            parts.iter().map(|(path, n, hash)| (*path, *n, hash.as_str())).collect();
        Ok(digest(&parts))
    }
}

/// Over path, size and digest of each file.
fn digest(files: &[(&str, u64, &str)]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"pinion package 1\n");
    for (path, bytes, digest) in files {
        hasher.update(format!("{}\n{path}\n{bytes}\n{digest}\n", path.len()).as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

fn hash(path: &Path) -> Result<String, SnapshotError> {
    // Read and not mapped: a file that is cut meanwhile must not end this process.
    let mut file = File::open(path).map_err(at(path))?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        match file.read(&mut buffer).map_err(at(path))? {
            0 => return Ok(hasher.finalize().to_hex().to_string()),
            bytes => hasher.update(&buffer[..bytes]),
        };
    }
}

fn walk(
    root: &Path,
    directory: &Path,
    depth: usize,
    files: &mut Vec<(String, FileId)>,
) -> Result<(), SnapshotError> {
    let too_many =
        || SnapshotError::TooMany { package: root.display().to_string(), limit: MAX_FILES };
    for entry in fs::read_dir(directory).map_err(at(directory))? {
        let path = entry.map_err(at(directory))?.path();
        // A link that leads nowhere is no file.
        let Ok(data) = fs::metadata(&path) else { continue };
        if data.is_dir() {
            walk(root, &path, depth.checked_sub(1).ok_or_else(too_many)?, files)?;
        } else if data.is_file() {
            if MAX_FILES <= files.len() {
                return Err(too_many());
            }
            let relative = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            let id = FileId {
                device: data.dev(),
                inode: data.ino(),
                bytes: data.len(),
                modified: (data.mtime(), data.mtime_nsec()),
                changed: (data.ctime(), data.ctime_nsec()),
            };
            files.push((relative, id));
        }
    }
    Ok(())
}
