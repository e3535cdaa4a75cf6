//! Opens files of the store that nobody else can have changed: owned by this user, writable by no other, no links.

use std::fs::File;
use std::path::Path;

use rustix::fd::OwnedFd;
use rustix::fs::{self, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::SnapshotError;

const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const FILE: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// Opens a folder by its path. The path may lead through links; the folder itself is none.
pub(super) fn folder(path: &Path) -> Result<OwnedFd, SnapshotError> {
    let fd = fs::open(path, FOLDER, Mode::empty()).map_err(|errno| refused(path, errno))?;
    check(path, &stat(path, &fd)?, FileType::Directory)?;
    Ok(fd)
}

/// Opens a folder in a folder.
pub(super) fn folder_in(parent: &OwnedFd, path: &Path) -> Result<OwnedFd, SnapshotError> {
    let name = path.file_name().unwrap_or_default();
    let fd =
        fs::openat(parent, name, FOLDER, Mode::empty()).map_err(|errno| refused(path, errno))?;
    check(path, &stat(path, &fd)?, FileType::Directory)?;
    Ok(fd)
}

/// Opens a regular file in a folder; `path` is the whole path, for messages.
pub(super) fn file_in(parent: &OwnedFd, path: &Path) -> Result<File, SnapshotError> {
    let name = path.file_name().unwrap_or_default();
    let fd = fs::openat(parent, name, FILE, Mode::empty()).map_err(|errno| refused(path, errno))?;
    let stat = stat(path, &fd)?;
    check(path, &stat, FileType::RegularFile)?;
    if stat.st_nlink != 1 {
        return Err(untrusted(path, "it has several names"));
    }
    Ok(File::from(fd))
}

fn stat(path: &Path, fd: &OwnedFd) -> Result<Stat, SnapshotError> {
    fs::fstat(fd).map_err(|errno| refused(path, errno))
}

fn check(path: &Path, stat: &Stat, kind: FileType) -> Result<(), SnapshotError> {
    if FileType::from_raw_mode(stat.st_mode) != kind {
        let reason = if kind == FileType::Directory { "it is no folder" } else { "it is no file" };
        return Err(untrusted(path, reason));
    }
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(untrusted(path, "it belongs to another user"));
    }
    if Mode::from_raw_mode(stat.st_mode).intersects(Mode::WGRP | Mode::WOTH) {
        return Err(untrusted(path, "others may write to it"));
    }
    Ok(())
}

fn refused(path: &Path, errno: Errno) -> SnapshotError {
    let shown = path.display().to_string();
    match errno {
        Errno::NOENT => SnapshotError::Missing { path: shown },
        Errno::LOOP | Errno::MLINK => untrusted(path, "it is a symbolic link"),
        Errno::NOTDIR => untrusted(path, "it is no folder"),
        errno => SnapshotError::Io { path: shown, source: errno.into() },
    }
}

fn untrusted(path: &Path, reason: &'static str) -> SnapshotError {
    SnapshotError::Untrusted { path: path.display().to_string(), reason }
}
