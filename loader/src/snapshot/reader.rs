//! An open snapshot: its files checked, its weights mapped.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fd::OwnedFd;
use rustix::fs::FlockOperation;

use super::error::at;
use super::format::{
    AUX, CHUNK, DATA_START, HEADER, Header, IMAGE, Index, MANIFEST, MAX_INDEX, MAX_MANIFEST,
    Manifest, TensorEntry,
};
use super::{SnapshotError, Target, trust};
use crate::files::FileBytes;
use crate::limits::LIMITS;

/// Bytes that are brought into memory in one call.
const PREFETCH: u64 = 8 << 20;

/// A snapshot whose manifest, index and small files are known to be whole.
pub struct Snapshot {
    path: PathBuf,
    folder: OwnedFd,
    manifest: Manifest,
    index: Index,
    by_name: HashMap<String, usize>,
    data_bytes: u64,
    image: Arc<FileBytes>,
}

/// The bytes of one tensor; keeps the mapping alive.
pub(crate) struct View {
    image: Arc<FileBytes>,
    range: Range<usize>,
}

impl AsRef<[u8]> for View {
    fn as_ref(&self) -> &[u8] {
        &self.image[self.range.clone()]
    }
}

impl Snapshot {
    /// Opens the snapshot for a target among those of a package: manifest, header, index and small files are checked.
    pub fn open(
        package_dir: &Path,
        package: &str,
        target: &Target,
    ) -> Result<Arc<Self>, SnapshotError> {
        let parent = trust::folder(package_dir)?;
        let snapshot = Self::open_in(&parent, &package_dir.join(target.key()))?;
        target.expect(&snapshot.manifest.target)?;
        if snapshot.manifest.package != package {
            let (found, expected) = (snapshot.manifest.package, package.to_owned());
            return Err(SnapshotError::Foreign { field: "package", found, expected });
        }
        Ok(Arc::new(snapshot))
    }

    /// Opens a snapshot to look at it, whatever it was made for.
    pub fn inspect(path: &Path) -> Result<Arc<Self>, SnapshotError> {
        let parent = trust::folder(path.parent().unwrap_or(Path::new("/")))?;
        Self::open_in(&parent, path).map(Arc::new)
    }

    fn open_in(parent: &OwnedFd, path: &Path) -> Result<Self, SnapshotError> {
        let folder = trust::folder_in(parent, path)?;
        // Whoever makes room leaves it alone; a file system without locks loses no more than that.
        let _ = rustix::fs::flock(&folder, FlockOperation::NonBlockingLockShared);
        Self::open_folder(folder, path).map_err(|error| match error {
            SnapshotError::Missing { path } => SnapshotError::damaged(format!("{path} is missing")),
            other => other,
        })
    }

    fn open_folder(folder: OwnedFd, path: &Path) -> Result<Self, SnapshotError> {
        let image_path = path.join(IMAGE);
        let file = trust::file_in(&folder, &image_path)?;
        let image = FileBytes::map(&file, IMAGE)
            .map_err(|e| SnapshotError::damaged(format!("the image cannot be mapped: {e}")))?;
        let header = Header::decode(&image)?;
        let text = read_file(&folder, &path.join(MANIFEST), MAX_MANIFEST)?;
        if blake3::hash(&text) != header.manifest_digest {
            return Err(SnapshotError::damaged("the manifest does not match its digest"));
        }
        let manifest: Manifest = serde_json::from_slice(&text)
            .map_err(|e| SnapshotError::damaged(format!("the manifest does not read: {e}")))?;
        if image.len() as u64 != manifest.image_bytes {
            let (found, expected) = (image.len(), manifest.image_bytes);
            let what = format!("the image has {found} bytes, {expected} were written");
            return Err(SnapshotError::damaged(what));
        }
        let index = read_index(&image, &header, &manifest)?;
        let by_name =
            index.tensors.iter().enumerate().map(|(at, t)| (t.name.clone(), at)).collect();
        let data_bytes = header.data_bytes;
        let (path, image) = (path.to_owned(), Arc::new(image));
        Ok(Self { path, folder, manifest, index, by_name, data_bytes, image })
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it is of and for.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What the image holds.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The text of a file in `aux/`, checked against its digest.
    pub(crate) fn text(&self, name: &str) -> Result<String, SnapshotError> {
        String::from_utf8(self.bytes(name)?)
            .map_err(|_e| SnapshotError::damaged(format!("{name} is not UTF-8")))
    }

    /// The bytes of a file in `aux/`, checked against its digest.
    pub(crate) fn bytes(&self, name: &str) -> Result<Vec<u8>, SnapshotError> {
        let Some(sum) = self.manifest.files.get(name) else {
            return Err(SnapshotError::damaged(format!("the manifest names no {name}")));
        };
        let path = self.path.join(AUX);
        let folder = trust::folder_in(&self.folder, &path)?;
        let limit = sum.bytes.min(2 * LIMITS.tokenizer_bytes);
        let bytes = read_file(&folder, &path.join(name), limit)?;
        if bytes.len() as u64 != sum.bytes || blake3::hash(&bytes).to_hex().as_str() != sum.blake3 {
            return Err(SnapshotError::damaged(format!("{name} does not match its digest")));
        }
        Ok(bytes)
    }

    /// A tensor and where it lies.
    pub(crate) fn tensor(&self, name: &str) -> Option<(&TensorEntry, View)> {
        let entry = &self.index.tensors[*self.by_name.get(name)?];
        let start = (DATA_START + entry.start) as usize;
        let range = start..start + entry.bytes as usize;
        Some((entry, View { image: Arc::clone(&self.image), range }))
    }

    /// How many chunks there are.
    pub fn num_chunks(&self) -> usize {
        self.index.chunks.len()
    }

    /// Reads one chunk and compares its CRC-32C, and with `full` its BLAKE3.
    pub fn verify_chunk(&self, at: usize, full: bool) -> Result<(), SnapshotError> {
        let chunk = self.index.chunks[at];
        let start = at as u64 * CHUNK;
        let end = (start + CHUNK).min(self.data_bytes);
        let bytes = &self.image[(DATA_START + start) as usize..(DATA_START + end) as usize];
        let wrong = if crc32c::crc32c(bytes) != chunk.crc32c {
            "CRC-32C"
        } else if full && blake3::hash(bytes) != chunk.blake3 {
            "BLAKE3"
        } else {
            return Ok(());
        };
        let first = self.index.tensors.iter().rfind(|tensor| tensor.start < end);
        let near = first.map_or("", |tensor| tensor.name.as_str());
        let count = self.num_chunks();
        let what = format!("chunk {at} of {count} does not match its {wrong}, near `{near}`");
        Err(SnapshotError::damaged(what))
    }

    /// Compares every byte with its digest: chunks, and the files beside the weights.
    pub fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<(), SnapshotError> {
        for name in self.manifest.files.keys() {
            self.bytes(name)?;
        }
        for at in 0..self.num_chunks() {
            self.verify_chunk(at, true)?;
            progress(((at as u64 + 1) * CHUNK).min(self.data_bytes), self.data_bytes);
        }
        Ok(())
    }

    /// Brings the weights into memory, in the order in which a step reads them.
    pub fn prefetch(&self) {
        let end = DATA_START + self.data_bytes;
        let mut start = DATA_START;
        while start < end {
            let bytes = PREFETCH.min(end - start);
            self.image.populate(start as usize, bytes as usize);
            start += bytes;
        }
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, tensors) = (&self.path, self.index.tensors.len());
        f.debug_struct("Snapshot")
            .field("path", path)
            .field("tensors", &tensors)
            .finish_non_exhaustive()
    }
}

fn read_index(
    image: &FileBytes,
    header: &Header,
    manifest: &Manifest,
) -> Result<Index, SnapshotError> {
    let (start, bytes) = (header.index_start, header.index_bytes);
    let data_end = DATA_START.checked_add(header.data_bytes);
    let end = start.checked_add(bytes);
    if data_end.is_none_or(|data_end| start < data_end)
        || end.is_none_or(|end| end != image.len() as u64)
        || MAX_INDEX < bytes
        || start < HEADER as u64
    {
        return Err(SnapshotError::damaged("the parts of the image do not fit it"));
    }
    let encoded = &image[start as usize..];
    let digest = blake3::hash(encoded);
    if digest != header.index_digest || digest.to_hex().as_str() != manifest.weights {
        return Err(SnapshotError::damaged("the index of the image does not match its digest"));
    }
    let index: Index = postcard::from_bytes(encoded)
        .map_err(|e| SnapshotError::damaged(format!("the index does not read: {e}")))?;
    if index.chunks.len() as u64 != header.data_bytes.div_ceil(CHUNK) {
        return Err(SnapshotError::damaged("the index has sums for other data"));
    }
    let outside = |tensor: &&TensorEntry| {
        tensor.start.checked_add(tensor.bytes).is_none_or(|end| header.data_bytes < end)
    };
    if let Some(tensor) = index.tensors.iter().find(outside) {
        return Err(SnapshotError::damaged(format!("`{}` lies outside the image", tensor.name)));
    }
    Ok(index)
}

/// The bytes of a file of at most `limit` bytes.
fn read_file(folder: &OwnedFd, path: &Path, limit: u64) -> Result<Vec<u8>, SnapshotError> {
    let file: File = trust::file_in(folder, path)?;
    let mut bytes =
        Vec::with_capacity(file.metadata().map_err(at(path))?.len().min(limit) as usize);
    file.take(limit + 1).read_to_end(&mut bytes).map_err(at(path))?;
    if limit < bytes.len() as u64 {
        return Err(SnapshotError::damaged(format!("{} is longer than it was", path.display())));
    }
    Ok(bytes)
}
