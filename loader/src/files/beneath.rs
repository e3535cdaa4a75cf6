//! Opens files beneath a directory and nowhere else, whatever links the package holds.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fd::OwnedFd;
use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::FileError;

/// Non-blocking, so that opening a FIFO that has no writer returns and can be refused.
const OPEN_FILE: OFlags =
    OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);
const OPEN_DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::DIRECTORY);

/// Opens the package directory itself.
pub(super) fn open_root(path: &Path) -> Result<OwnedFd, FileError> {
    fs::open(path, OPEN_DIRECTORY, Mode::empty())
        .map_err(|e| FileError::Root { path: path.display().to_string(), source: e.into() })
}

/// Opens a regular file, or returns `None` where nothing is there.
pub(super) fn open_file(root: &OwnedFd, path: &str) -> Result<Option<File>, FileError> {
    let fd = match open_beneath(root, path, OPEN_FILE) {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        // A socket cannot be opened at all; say what it is rather than ENXIO.
        Err(Errno::NXIO) => return Err(not_regular(path, FileType::Socket)),
        Err(e) => return Err(error(path, e)),
    };
    let stat = fs::fstat(&fd).map_err(|e| error(path, e))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(Some(File::from(fd))),
        other => Err(not_regular(path, other)),
    }
}

/// Names in a directory, empty for the root; none where it does not exist.
pub(super) fn list(root: &OwnedFd, path: &str) -> Result<Vec<String>, FileError> {
    let here = if path.is_empty() { "." } else { path };
    let fd = match open_beneath(root, here, OPEN_DIRECTORY) {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
        Err(e) => return Err(error(here, e)),
    };
    let entries = Dir::read_from(&fd).map_err(|e| error(here, e))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| error(here, e))?;
        if let Ok(name) = entry.file_name().to_str()
            && name != "."
            && name != ".."
        {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

#[cfg(target_os = "linux")]
fn open_beneath(root: &OwnedFd, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    use rustix::fs::ResolveFlags;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    match fs::openat2(root, path, flags, Mode::empty(), resolve) {
        // Kernels before 5.6 lack the call, and some seccomp filters answer EPERM for it.
        Err(Errno::NOSYS | Errno::PERM) => open_without_links(root, path, flags),
        other => other,
    }
}

#[cfg(not(target_os = "linux"))]
fn open_beneath(root: &OwnedFd, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    open_without_links(root, path, flags)
}

/// The same promise without `openat2`, kept by less: every part is opened in turn, and none may be a link.
pub(super) fn open_without_links(
    root: &OwnedFd,
    path: &str,
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    let mut parts = path.split('/').peekable();
    let mut at: Option<OwnedFd> = None;
    while let Some(part) = parts.next() {
        let parent = at.as_ref().unwrap_or(root);
        let stat = fs::statat(parent, part, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            return Err(Errno::XDEV);
        }
        let flags = if parts.peek().is_some() { OPEN_DIRECTORY } else { flags };
        at = Some(fs::openat(parent, part, flags | OFlags::NOFOLLOW, Mode::empty())?);
    }
    at.ok_or(Errno::INVAL)
}

fn not_regular(path: &str, found: FileType) -> FileError {
    let found = match found {
        FileType::Directory => "directory",
        FileType::Fifo => "FIFO",
        FileType::Socket => "socket",
        FileType::CharacterDevice | FileType::BlockDevice => "device",
        _ => "special file",
    };
    FileError::NotRegular { path: path.to_owned(), found }
}

fn error(path: &str, errno: Errno) -> FileError {
    let path = path.to_owned();
    match errno {
        Errno::XDEV | Errno::LOOP => FileError::Escapes { path },
        errno => FileError::Io { path, source: io::Error::from(errno) },
    }
}
