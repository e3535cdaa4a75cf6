//! The files of a snapshot: names, the header of the image, its index, and the manifest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Canary, Notes, SnapshotError, Target};

/// Version of the format.
pub(super) const FORMAT: u32 = 1;
/// The weights.
pub(super) const IMAGE: &str = "weights.img";
/// What the snapshot is of and for.
pub(super) const MANIFEST: &str = "manifest.json";
/// Everything that is not weights.
pub(super) const AUX: &str = "aux";
/// `config.json` of the package, or what its GGUF file amounts to.
pub(crate) const CONFIG: &str = "config.json";
/// The tokenizer, as the package has it.
pub(crate) const TOKENIZER: &str = "tokenizer.json";
/// The tokenizer, where it has a form that loads faster.
pub(crate) const COMPACT_TOKENIZER: &str = "tokenizer.bin";
/// The chat template and the special tokens that it is told.
pub(crate) const TEMPLATE: &str = "template.json";
/// The data begin here: at a huge page.
pub(super) const DATA_START: u64 = 2 << 20;
/// Tensors begin at a multiple of this: at a page, for direct reads and advice.
pub(super) const TENSOR_ALIGN: u64 = 4096;
/// Bytes of data that share a checksum.
pub(super) const CHUNK: u64 = 4 << 20;
/// Bytes of the header's fields.
pub(super) const HEADER: usize = 128;
/// Bytes that an index may have.
pub(super) const MAX_INDEX: u64 = 256 << 20;
/// Bytes that a manifest may have.
pub(super) const MAX_MANIFEST: u64 = 16 << 20;

const MAGIC: &[u8; 8] = b"PINIONSN";
const CHECKED: usize = HEADER - 4;

/// Where things are in the image, and the digests of what has none of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) data_bytes: u64,
    pub(super) index_start: u64,
    pub(super) index_bytes: u64,
    pub(super) index_digest: [u8; 32],
    pub(super) manifest_digest: [u8; 32],
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
        put(0, MAGIC);
        put(8, &FORMAT.to_le_bytes());
        put(16, &self.data_bytes.to_le_bytes());
        put(24, &self.index_start.to_le_bytes());
        put(32, &self.index_bytes.to_le_bytes());
        put(40, &self.index_digest);
        put(72, &self.manifest_digest);
        let sum = crc32c::crc32c(&bytes[..CHECKED]);
        bytes[CHECKED..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let Some(bytes) = bytes.first_chunk::<HEADER>() else {
            return Err(SnapshotError::damaged("the image is shorter than its header"));
        };
        let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| bytes[at + i]));
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let digest = |at: usize| std::array::from_fn(|i| bytes[at + i]);
        if &bytes[..8] != MAGIC {
            return Err(SnapshotError::damaged("the image does not begin with its mark"));
        }
        if word(CHECKED) != crc32c::crc32c(&bytes[..CHECKED]) {
            return Err(SnapshotError::damaged("the header of the image does not match its sum"));
        }
        if word(8) != FORMAT {
            let (found, expected) = (word(8).to_string(), FORMAT.to_string());
            return Err(SnapshotError::Foreign { field: "format", found, expected });
        }
        Ok(Self {
            data_bytes: long(16),
            index_start: long(24),
            index_bytes: long(32),
            index_digest: digest(40),
            manifest_digest: digest(72),
        })
    }
}

/// What the image holds, in postcard: the tensors in the order in which the model derives them, and the sums.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// Every derived tensor.
    pub tensors: Vec<TensorEntry>,
    /// One for each 4 MiB of data; the last one may be shorter.
    pub chunks: Vec<Chunk>,
}

/// One derived tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorEntry {
    /// Under which the model derives it.
    pub name: String,
    /// Its type by name.
    pub kind: String,
    /// Output features.
    pub rows: u64,
    /// Input features.
    pub cols: u64,
    /// Where its bytes begin in the data.
    pub start: u64,
    /// How many there are.
    pub bytes: u64,
}

/// Checksums of a part of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// CRC-32C, which finds damage while the node serves.
    pub crc32c: u32,
    /// BLAKE3, which names the bytes.
    pub blake3: [u8; 32],
}

/// `manifest.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Digest of the package.
    pub package: String,
    /// What it was made for.
    pub target: Target,
    /// When it was made.
    pub created_unix_seconds: u64,
    /// BLAKE3 of the image's index, and so of every byte of weights.
    pub weights: String,
    /// Bytes of the image.
    pub image_bytes: u64,
    /// Bytes and BLAKE3 of the files in `aux/`.
    pub files: BTreeMap<String, FileSum>,
    /// What loading found out.
    pub notes: Notes,
    /// What the model must answer before it is used.
    pub canary: Canary,
}

/// One file in `aux/`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSum {
    /// Its size.
    pub bytes: u64,
    /// BLAKE3 in hexadecimal.
    pub blake3: String,
}
