//! The folder of all snapshots of a node: who may write, what is published, what goes when room is short.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::error::at;
use super::identity::Digests;
use super::writer::sync_folder;
use super::{Identity, Manifest, Snapshot, SnapshotError, trust};

/// Snapshots by package and target.
const SNAPSHOTS: &str = "by-package";
/// Digests of files by package directory.
const DIGESTS: &str = "digests";
/// One lock a package, held by whoever writes.
const LOCKS: &str = "locks";
/// What is written or removed; nobody reads it.
const STAGING: &str = "staging";
/// Names the staging folder that a lock file belongs to.
const LOCK_SUFFIX: &str = ".lock";
/// Longest wait for the time stamps of files that just changed.
const MAX_SETTLING: Duration = Duration::from_millis(100);
/// Bytes of the digests of one package's files.
const MAX_DIGESTS: u64 = 16 << 20;

/// The folder of all snapshots. Several nodes may share it.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// The right to write a snapshot of one package. It ends with the process, however that ends.
#[derive(Debug)]
pub struct WriteLock {
    package: String,
    _file: File,
}

/// A folder that a snapshot is written into. What was not published is removed, if not now then by the next node.
#[derive(Debug)]
pub struct Staging {
    path: PathBuf,
    lock_path: PathBuf,
    _lock: File,
}

/// A published snapshot.
#[derive(Debug)]
pub struct Listed {
    /// Digest of the package.
    pub package: String,
    /// Target key.
    pub target: String,
    /// Its folder.
    pub path: PathBuf,
    /// Bytes on disk.
    pub bytes: u64,
    /// When it was last restored or written.
    pub used: SystemTime,
    /// What it says of itself, or why it is unusable.
    pub manifest: Result<Manifest, SnapshotError>,
}

impl Store {
    /// Opens the store, making it where there is none, and removes what a node that died left half-written.
    pub fn open(root: &Path) -> Result<Self, SnapshotError> {
        make_folder(root, true)?;
        trust::folder(root)?;
        let store = Self { root: root.to_owned() };
        for name in [SNAPSHOTS, DIGESTS, LOCKS, STAGING] {
            make_folder(&store.root.join(name), false)?;
            trust::folder(&store.root.join(name))?;
        }
        store.sweep();
        Ok(store)
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of a package's snapshots, which need not exist.
    pub fn folder(&self, package: &str) -> PathBuf {
        self.root.join(SNAPSHOTS).join(package)
    }

    /// Whether there is a snapshot.
    pub fn has(&self, package: &str, target: &str) -> bool {
        self.folder(package).join(target).is_dir()
    }

    /// The digest of a package whose files were all read before.
    pub fn known(&self, identity: &Identity) -> Option<String> {
        identity.known(&self.digests(identity))
    }

    /// The digest of a package. Reads the files that are new or changed.
    pub fn identify(&self, identity: &Identity) -> Result<String, SnapshotError> {
        // A package that was copied here a moment ago is worth a moment, so that it is known next time.
        std::thread::sleep(identity.settles_in(SystemTime::now()).min(MAX_SETTLING));
        self.identify_at(identity, SystemTime::now())
    }

    pub(super) fn identify_at(
        &self,
        identity: &Identity,
        now: SystemTime,
    ) -> Result<String, SnapshotError> {
        let mut digests = self.digests(identity);
        let digest = identity.compute(&mut digests, now)?;
        let path = self.digests_path(identity);
        let text = serde_json::to_vec(&digests)
            .map_err(|e| SnapshotError::damaged(format!("digests cannot be written: {e}")))?;
        let staged = self.unused();
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(&staged).map_err(at(&staged))?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(at(&staged))?;
        fs::rename(&staged, &path).map_err(at(&path))?;
        Ok(digest)
    }

    fn digests(&self, identity: &Identity) -> Digests {
        let path = self.digests_path(identity);
        // Digests that do not read are computed again.
        let is_small = fs::metadata(&path).is_ok_and(|data| data.len() <= MAX_DIGESTS);
        let text = is_small.then(|| fs::read(&path).ok()).flatten();
        text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    fn digests_path(&self, identity: &Identity) -> PathBuf {
        let name = blake3::hash(identity.directory().as_os_str().as_bytes()).to_hex();
        self.root.join(DIGESTS).join(format!("{}.json", &name[..32]))
    }

    /// Takes the right to write a snapshot of a package, or says that another process has it.
    pub fn lock(&self, package: &str) -> Result<WriteLock, SnapshotError> {
        let path = self.root.join(LOCKS).join(package);
        let file = try_lock(&path)?.ok_or(SnapshotError::Locked)?;
        Ok(WriteLock { package: package.to_owned(), _file: file })
    }

    /// A new folder to write into.
    pub fn stage(&self) -> Result<Staging, SnapshotError> {
        let path = self.unused();
        let mut lock_name = path.clone().into_os_string();
        lock_name.push(LOCK_SUFFIX);
        let lock_path = PathBuf::from(lock_name);
        let lock = try_lock(&lock_path)?.ok_or(SnapshotError::Locked)?;
        DirBuilder::new().mode(0o700).create(&path).map_err(at(&path))?;
        Ok(Staging { path, lock_path, _lock: lock })
    }

    /// Publishes what was written, in the place of what was there.
    pub fn publish(
        &self,
        staging: &Staging,
        lock: &WriteLock,
        target: &str,
    ) -> Result<PathBuf, SnapshotError> {
        let folder = self.folder(&lock.package);
        make_folder(&folder, false)?;
        self.remove(&lock.package, target)?;
        let to = folder.join(target);
        fs::rename(&staging.path, &to).map_err(at(&to))?;
        sync_folder(&folder)?;
        sync_folder(&self.root.join(SNAPSHOTS))?;
        Ok(to)
    }

    /// Removes a snapshot. Processes that have it mapped keep what they have.
    pub fn remove(&self, package: &str, target: &str) -> Result<(), SnapshotError> {
        let path = self.folder(package).join(target);
        let gone = self.unused();
        match fs::rename(&path, &gone) {
            Ok(()) => fs::remove_dir_all(&gone).map_err(at(&gone)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(at(&path)(error)),
        }
    }

    /// Notes that a snapshot was used, so that others go first.
    pub fn touch(&self, package: &str, target: &str) {
        let path = self.folder(package).join(target);
        let touched = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        // The order of eviction is a guess anyhow.
        let _ = touched;
    }

    /// All published snapshots, the least recently used first.
    pub fn list(&self) -> Result<Vec<Listed>, SnapshotError> {
        let mut all = Vec::new();
        for (package, folder) in folders(&self.root.join(SNAPSHOTS))? {
            for (target, path) in folders(&folder)? {
                let used = fs::metadata(&path).and_then(|data| data.modified());
                let used = used.unwrap_or(SystemTime::UNIX_EPOCH);
                let bytes = folder_bytes(&path);
                let manifest = Snapshot::inspect(&path).map(|found| found.manifest().clone());
                let package = package.clone();
                all.push(Listed { package, target, path, bytes, used, manifest });
            }
        }
        all.sort_by_key(|listed| listed.used);
        Ok(all)
    }

    /// Removes snapshots that nobody has open, the least recently used first, until `bytes` more fit under `limit`.
    /// Returns what was removed.
    pub fn make_room(&self, bytes: u64, limit: u64) -> Result<Vec<Listed>, SnapshotError> {
        if limit < bytes {
            return Err(SnapshotError::TooLarge { bytes, limit });
        }
        let all = self.list()?;
        let mut total: u64 = all.iter().map(|listed| listed.bytes).sum();
        let mut removed = Vec::new();
        for listed in all {
            if total.saturating_add(bytes) <= limit {
                break;
            }
            // Whoever has it open holds a shared lock on its folder.
            let is_open = File::open(&listed.path)
                .is_ok_and(|folder| matches!(folder.try_lock(), Err(TryLockError::WouldBlock)));
            if is_open {
                continue;
            }
            self.remove(&listed.package, &listed.target)?;
            total = total.saturating_sub(listed.bytes);
            removed.push(listed);
        }
        if total.saturating_add(bytes) <= limit {
            return Ok(removed);
        }
        Err(SnapshotError::TooLarge { bytes: total.saturating_add(bytes), limit })
    }

    /// Removes staging folders whose writers are gone.
    fn sweep(&self) {
        let staging = self.root.join(STAGING);
        for (name, path) in folders(&staging).unwrap_or_default() {
            let lock = staging.join(format!("{name}{LOCK_SUFFIX}"));
            if let Ok(Some(_ours)) = try_lock(&lock) {
                // Left for the next node where it fails.
                let _ = fs::remove_dir_all(&path);
                let _ = fs::remove_file(&lock);
            }
        }
    }

    /// A path in the staging folder that nobody uses.
    fn unused(&self) -> PathBuf {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let nanos = now.map_or(0, |now| now.as_nanos());
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        self.root.join(STAGING).join(format!("{}-{nanos}-{count}", process::id()))
    }
}

impl WriteLock {
    /// Digest of the package.
    pub fn package(&self) -> &str {
        &self.package
    }
}

impl Staging {
    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // It is not there once it was published.
        let _ = fs::remove_dir_all(&self.path);
        let _ = fs::remove_file(&self.lock_path);
    }
}

/// Opens and locks a file of ours; none where another process holds the lock.
fn try_lock(path: &Path) -> Result<Option<File>, SnapshotError> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
    let file = options.open(path).map_err(at(path))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(at(path)(error)),
    }
}

fn make_folder(path: &Path, parents: bool) -> Result<(), SnapshotError> {
    let made = DirBuilder::new().recursive(parents).mode(0o700).create(path);
    match made {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(at(path)(error)),
        _ => Ok(()),
    }
}

/// Names and paths of the folders in a folder, sorted.
fn folders(path: &Path) -> Result<Vec<(String, PathBuf)>, SnapshotError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(at(path))? {
        let entry = entry.map_err(at(path))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let name: OsString = entry.file_name();
            found.push((name.to_string_lossy().into_owned(), entry.path()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn folder_bytes(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let sizes = entries.flatten().filter_map(|entry| {
        let data = entry.metadata().ok()?;
        Some(if data.is_dir() { folder_bytes(&entry.path()) } else { data.len() })
    });
    sizes.sum()
}
