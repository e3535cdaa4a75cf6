//! Writes a snapshot into a folder that nobody reads yet.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use pinion_kernels::PackedTensor;
use rustix::fs::FallocateFlags;

use super::error::at;
use super::format::{
    AUX, CHUNK, COMPACT_TOKENIZER, Chunk, DATA_START, FileSum, Header, IMAGE, Index, MANIFEST,
    Manifest, TENSOR_ALIGN, TOKENIZER, TensorEntry,
};
use super::{Canary, Notes, SnapshotError, Target};
use crate::tokenizer::compact;

/// Name and text of the files beside the weights.
pub(crate) type Beside = Vec<(&'static str, String)>;

/// What a cold load made. It shares the memory of the model's weights.
#[derive(Debug)]
pub struct Recorded {
    pub(crate) target: Target,
    pub(crate) tensors: Vec<(String, PackedTensor)>,
    pub(crate) notes: Notes,
    pub(crate) beside: Beside,
}

impl Recorded {
    /// What it was made for.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Rows of the model's output.
    pub fn vocab_size(&self) -> usize {
        self.notes.vocab_size
    }

    /// Bytes of all weights.
    pub fn weight_bytes(&self) -> u64 {
        self.tensors.iter().map(|(_, tensor)| tensor.bytes().len() as u64).sum()
    }

    /// Writes the snapshot into an empty folder, all of it on disk when this returns, and says how many bytes it has.
    /// `progress` is told bytes done and bytes in all.
    pub fn write(
        &self,
        folder: &Path,
        package: &str,
        canary: Canary,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<u64, SnapshotError> {
        let image_path = folder.join(IMAGE);
        let mut image = Image::create(&image_path, self.data_bytes())?;
        let mut tensors = Vec::with_capacity(self.tensors.len());
        for (name, tensor) in &self.tensors {
            image.align()?;
            let start = image.written;
            image.append(tensor.bytes(), progress)?;
            tensors.push(TensorEntry {
                name: name.clone(),
                kind: tensor.kind().name().to_owned(),
                rows: tensor.rows() as u64,
                cols: tensor.cols() as u64,
                start,
                bytes: tensor.bytes().len() as u64,
            });
        }
        image.end_chunk();
        let index = Index { tensors, chunks: std::mem::take(&mut image.chunks) };
        let index = postcard::to_stdvec(&index)
            .map_err(|e| SnapshotError::damaged(format!("the index cannot be written: {e}")))?;
        let index_start = DATA_START + image.written;
        image.file.write_all_at(&index, index_start).map_err(at(&image_path))?;
        let files = self.write_beside(&folder.join(AUX))?;
        let image_bytes = index_start + index.len() as u64;
        let index_digest = blake3::hash(&index);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let manifest = Manifest {
            package: package.to_owned(),
            target: self.target.clone(),
            created_unix_seconds: now.map_or(0, |now| now.as_secs()),
            weights: index_digest.to_hex().to_string(),
            image_bytes,
            files,
            notes: self.notes.clone(),
            canary,
        };
        let manifest = serde_json::to_vec_pretty(&manifest)
            .map_err(|e| SnapshotError::damaged(format!("the manifest cannot be written: {e}")))?;
        let header = Header {
            data_bytes: image.written,
            index_start,
            index_bytes: index.len() as u64,
            index_digest: *index_digest.as_bytes(),
            manifest_digest: *blake3::hash(&manifest).as_bytes(),
        };
        // What was reserved beyond the end goes back.
        image.file.set_len(image_bytes).map_err(at(&image_path))?;
        image.file.write_all_at(&header.encode(), 0).map_err(at(&image_path))?;
        image.file.sync_all().map_err(at(&image_path))?;
        write_file(&folder.join(MANIFEST), &manifest)?;
        sync_folder(folder)?;
        Ok(image_bytes)
    }

    fn data_bytes(&self) -> u64 {
        let aligned = |(_, tensor): &(String, PackedTensor)| {
            (tensor.bytes().len() as u64).next_multiple_of(TENSOR_ALIGN)
        };
        self.tensors.iter().map(aligned).sum()
    }

    fn write_beside(&self, folder: &Path) -> Result<BTreeMap<String, FileSum>, SnapshotError> {
        DirBuilder::new().mode(0o700).create(folder).map_err(at(folder))?;
        let mut files = BTreeMap::new();
        for (name, text) in &self.beside {
            let compact = (*name == TOKENIZER).then(|| compact::encode(text)).flatten();
            let (name, bytes) = match &compact {
                Some(bytes) => (COMPACT_TOKENIZER, bytes.as_slice()),
                None => (*name, text.as_bytes()),
            };
            write_file(&folder.join(name), bytes)?;
            let blake3 = blake3::hash(bytes).to_hex().to_string();
            files.insert(name.to_owned(), FileSum { bytes: bytes.len() as u64, blake3 });
        }
        sync_folder(folder)?;
        Ok(files)
    }
}

/// The image while it is written, chunk by chunk.
struct Image<'a> {
    path: &'a Path,
    file: File,
    /// Bytes of data so far.
    written: u64,
    total: u64,
    crc32c: u32,
    blake3: blake3::Hasher,
    chunks: Vec<Chunk>,
}

impl<'a> Image<'a> {
    fn create(path: &'a Path, total: u64) -> Result<Self, SnapshotError> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o400).open(path).map_err(at(path))?;
        // A full disk shows here and not after gigabytes. Where the file system cannot reserve, it shows later.
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, DATA_START + total) {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(at(path)(errno.into())),
        }
        let (crc32c, blake3, chunks) = (0, blake3::Hasher::new(), Vec::new());
        Ok(Self { path, file, written: 0, total, crc32c, blake3, chunks })
    }

    /// Fills up with zeros to where a tensor may begin.
    fn align(&mut self) -> Result<(), SnapshotError> {
        const ZEROS: [u8; TENSOR_ALIGN as usize] = [0; TENSOR_ALIGN as usize];
        let gap = self.written.next_multiple_of(TENSOR_ALIGN) - self.written;
        self.append(&ZEROS[..gap as usize], &mut |_, _| {})
    }

    fn append(
        &mut self,
        mut bytes: &[u8],
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), SnapshotError> {
        while !bytes.is_empty() {
            let room = CHUNK - self.written % CHUNK;
            let (part, rest) = bytes.split_at(bytes.len().min(room as usize));
            self.file.write_all_at(part, DATA_START + self.written).map_err(at(self.path))?;
            self.crc32c = crc32c::crc32c_append(self.crc32c, part);
            self.blake3.update(part);
            self.written += part.len() as u64;
            if self.written.is_multiple_of(CHUNK) {
                self.end_chunk();
                progress(self.written, self.total);
            }
            bytes = rest;
        }
        Ok(())
    }

    /// Notes the sums of a chunk that is full, or the last one.
    fn end_chunk(&mut self) {
        if self.blake3.count() != 0 {
            let blake3 = *self.blake3.finalize().as_bytes();
            self.chunks.push(Chunk { crc32c: self.crc32c, blake3 });
            self.blake3.reset();
            self.crc32c = 0;
        }
    }
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), SnapshotError> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o400).open(path).map_err(at(path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(at(path))
}

/// Puts the names in a folder on disk.
pub(super) fn sync_folder(folder: &Path) -> Result<(), SnapshotError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(at(folder))
}
