//! The files of a package, in a directory or inside the binary.

mod beneath;
mod map;

use std::fmt;
use std::fs::File;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::{Advice, Mmap};
use rustix::fd::OwnedFd;

pub use error::FileError;

mod error;
#[cfg(test)]
mod tests;

/// A file inside the binary: its path relative to the package, and its bytes.
pub type EmbeddedFile = (&'static str, &'static [u8]);

/// Read access to one package. Paths are relative to it, `/`-separated, and never leave it.
#[derive(Clone)]
pub struct PackageFiles {
    origin: Origin,
}

#[derive(Clone)]
enum Origin {
    Directory { root: Arc<OwnedFd>, path: PathBuf },
    Embedded { name: &'static str, files: &'static [EmbeddedFile] },
}

/// The bytes of one file: mapped, or part of the binary.
pub struct FileBytes(Bytes);

enum Bytes {
    Mapped(Mmap),
    Static(&'static [u8]),
}

impl PackageFiles {
    /// Opens a package directory. The directory itself may be a symbolic link; nothing beneath it may lead out of it.
    pub fn directory(path: &Path) -> Result<Self, FileError> {
        let root = Arc::new(beneath::open_root(path)?);
        Ok(Self { origin: Origin::Directory { root, path: path.to_owned() } })
    }

    /// Files that are part of the binary, under a name for messages.
    pub const fn embedded(name: &'static str, files: &'static [EmbeddedFile]) -> Self {
        Self { origin: Origin::Embedded { name, files } }
    }

    /// The directory, where there is one.
    pub fn path(&self) -> Option<&Path> {
        match &self.origin {
            Origin::Directory { path, .. } => Some(path),
            Origin::Embedded { .. } => None,
        }
    }

    /// The bytes of a regular file, or `None` where the path does not exist.
    pub fn open(&self, path: &str) -> Result<Option<FileBytes>, FileError> {
        let path = relative(path)?;
        match &self.origin {
            Origin::Directory { root, .. } => {
                let Some(file) = beneath::open_file(root, &path)? else { return Ok(None) };
                map::map(&file, &path).map(|bytes| Some(FileBytes(bytes)))
            }
            Origin::Embedded { files, .. } => Ok(files
                .iter()
                .find(|(name, _)| *name == path)
                .map(|&(_, bytes)| FileBytes(Bytes::Static(bytes)))),
        }
    }

    /// A small text file of at most `limit` bytes, or `None` where the path does not exist.
    pub fn read_text(&self, path: &str, limit: u64) -> Result<Option<String>, FileError> {
        let Some(bytes) = self.open(path)? else { return Ok(None) };
        let size = bytes.len() as u64;
        if size > limit {
            return Err(FileError::TooLarge { path: path.to_owned(), size, limit });
        }
        // Copied before it is checked, so that a change to a mapped file cannot come between.
        let text = String::from_utf8(bytes.to_vec()).map_err(|e| FileError::NotUtf8 {
            path: path.to_owned(),
            offset: e.utf8_error().valid_up_to(),
        })?;
        Ok(Some(text))
    }

    /// Names of the entries directly in `directory` (empty for the package itself), sorted; none if it does not exist.
    pub fn list(&self, directory: &str) -> Result<Vec<String>, FileError> {
        let directory = if directory.is_empty() { String::new() } else { relative(directory)? };
        let mut names = match &self.origin {
            Origin::Directory { root, .. } => beneath::list(root, &directory)?,
            Origin::Embedded { files, .. } => embedded_names(files, &directory),
        };
        names.sort_unstable();
        Ok(names)
    }
}

impl FileBytes {
    /// Maps an open regular file; `name` is for messages.
    pub(crate) fn map(file: &File, name: &str) -> Result<Self, FileError> {
        map::map(file, name).map(Self)
    }

    /// Gives back the memory of a part of a mapped file that was read and is not needed soon.
    pub(crate) fn release(&self, part: Range<usize>) {
        if let Bytes::Mapped(map) = &self.0 {
            map::release(map, part);
        }
    }

    /// Brings pages of a mapped file into memory, reading what is not there.
    pub(crate) fn populate(&self, start: usize, bytes: usize) {
        if let Bytes::Mapped(map) = &self.0 {
            // Without it the pages come when they are touched.
            let _ = map.advise_range(Advice::PopulateRead, start, bytes);
        }
    }
}

impl fmt::Debug for PackageFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackageFiles({self})")
    }
}

impl fmt::Display for PackageFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Directory { path, .. } => write!(f, "{}", path.display()),
            Origin::Embedded { name, .. } => write!(f, "{name} (built in)"),
        }
    }
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Mapped(map) => map,
            Bytes::Static(bytes) => bytes,
        }
    }
}

impl fmt::Debug for FileBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileBytes({} bytes)", self.len())
    }
}

/// Joins a directory of a package and a path beneath it.
pub(crate) fn join(directory: &str, path: &str) -> String {
    if directory.is_empty() { path.to_owned() } else { format!("{directory}/{path}") }
}

/// The path without `.` parts, or an error where it could leave the package.
pub(crate) fn relative(path: &str) -> Result<String, FileError> {
    let invalid = |reason| FileError::Invalid { path: path.to_owned(), reason };
    if path.starts_with('/') {
        return Err(invalid("it is absolute"));
    }
    if path.contains('\0') {
        return Err(invalid("it has a NUL byte"));
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err(invalid("it has a `..`")),
            part => parts.push(part),
        }
    }
    if parts.is_empty() { Err(invalid("it is empty")) } else { Ok(parts.join("/")) }
}

fn embedded_names(files: &[EmbeddedFile], directory: &str) -> Vec<String> {
    let mut names: Vec<String> = files
        .iter()
        .filter_map(|(path, _)| match directory {
            "" => Some(*path),
            directory => path.strip_prefix(directory)?.strip_prefix('/'),
        })
        .filter_map(|rest| rest.split('/').next())
        .map(str::to_owned)
        .collect();
    names.dedup();
    names
}
