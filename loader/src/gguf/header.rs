//! The header of a GGUF file, checked against the size of the file.

use std::collections::HashMap;
use std::fmt;

use super::kind::BlockType;
use super::metadata::Metadata;
use super::reader::Reader;
use crate::files::FileBytes;
use crate::limits::LIMITS;
use crate::source::WeightsError;

const MAGIC: &[u8; 4] = b"GGUF";
/// Dimensions of a tensor.
const MAX_RANK: usize = 4;
/// Where nothing else is said, tensors begin at multiples of this.
const DEFAULT_ALIGNMENT: u64 = 32;
const MAX_ALIGNMENT: u64 = 1 << 20;

/// An open GGUF file: its metadata, and where its tensors are.
pub struct Gguf {
    pub(super) path: String,
    pub(super) bytes: FileBytes,
    pub(super) metadata: Metadata,
    pub(super) tensors: HashMap<String, Entry>,
}

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: BlockType,
    /// Sizes of its dimensions, the last one running fastest.
    pub(crate) shape: Vec<usize>,
    /// First byte in the file.
    pub(crate) begin: usize,
    /// One past its last byte in the file.
    pub(crate) end: usize,
}

/// Metadata and tensors of one file.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) metadata: Metadata,
    pub(super) tensors: HashMap<String, Entry>,
}

/// A tensor as the header describes it.
struct Described {
    name: String,
    kind: BlockType,
    shape: Vec<usize>,
    bytes: u64,
    offset: u64,
}

impl Gguf {
    /// Reads and checks the header of a file. No weight is read.
    pub fn open(path: &str, bytes: FileBytes) -> Result<Self, WeightsError> {
        let Header { metadata, tensors } = parse(path, &bytes)?;
        Ok(Self { path: path.to_owned(), bytes, metadata, tensors })
    }

    /// `general.architecture`.
    pub fn architecture(&self) -> Result<&str, WeightsError> {
        self.metadata.required("general.architecture", Metadata::text)
    }
}

impl fmt::Debug for Gguf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gguf")
            .field("path", &self.path)
            .field("keys", &self.metadata.len())
            .field("tensors", &self.tensors.len())
            .finish_non_exhaustive()
    }
}

/// Reads and checks the header of a file of which `bytes` are all bytes.
pub(super) fn parse(file: &str, bytes: &[u8]) -> Result<Header, WeightsError> {
    let mut reader = Reader::new(file, bytes);
    check_version(&mut reader)?;
    let num_tensors = reader.count("tensors", LIMITS.tensors)?;
    let num_keys = reader.count("keys", LIMITS.gguf_keys)?;
    let mut metadata = Metadata::new(file);
    for _ in 0..num_keys {
        let key = reader.text("a key", LIMITS.gguf_name_bytes)?;
        let value = reader.value(key)?;
        if !metadata.insert(key, value) {
            return Err(reader.invalid(format!("`{key}` is there twice")));
        }
    }
    let alignment = metadata.uint("general.alignment")?.unwrap_or(DEFAULT_ALIGNMENT);
    if !alignment.is_power_of_two() || MAX_ALIGNMENT < alignment {
        return Err(reader.invalid(format!("general.alignment is not possible: {alignment}")));
    }
    if metadata.uint("split.count")?.is_some_and(|count| 1 < count) {
        return Err(WeightsError::GgufSplit { file: file.to_owned() });
    }
    let described: Vec<Described> =
        (0..num_tensors).map(|_| describe(&mut reader, file)).collect::<Result<_, _>>()?;
    let start = (reader.position() as u64).next_multiple_of(alignment);
    let tensors = place(file, described, (start, alignment), bytes.len() as u64)?;
    Ok(Header { metadata, tensors })
}

fn check_version(reader: &mut Reader<'_>) -> Result<(), WeightsError> {
    if reader.u32()?.to_le_bytes() != *MAGIC {
        return Err(reader.invalid("it does not start with `GGUF`"));
    }
    match reader.u32()? {
        2 | 3 => Ok(()),
        version if matches!(version.swap_bytes(), 2 | 3) => {
            Err(reader.invalid("it is big-endian, which is not supported"))
        }
        version => Err(reader.invalid(format!("its version is not supported: {version}"))),
    }
}

fn describe(reader: &mut Reader<'_>, file: &str) -> Result<Described, WeightsError> {
    let name = reader.text("a tensor's name", LIMITS.gguf_name_bytes)?.to_owned();
    let invalid = |reason: String| WeightsError::Tensor {
        tensor: name.clone(),
        file: file.to_owned(),
        reason,
    };
    let rank = reader.u32()? as usize;
    if rank == 0 || MAX_RANK < rank {
        return Err(invalid(format!("it has {rank} dimensions, 1 to {MAX_RANK} are allowed")));
    }
    let mut sizes = (0..rank).map(|_| reader.u64()).collect::<Result<Vec<_>, _>>()?;
    let number = reader.u32()?;
    let offset = reader.u64()?;
    let Some(kind) = BlockType::from_number(number) else {
        return Err(invalid(format!("its type is unknown: {number}")));
    };
    if !sizes[0].is_multiple_of(kind.block()) {
        return Err(invalid(format!(
            "a row of {} is no whole blocks of {}",
            sizes[0],
            kind.name()
        )));
    }
    let product = |first: u64| {
        let known = |&size: &u64| 0 < size && usize::try_from(size).is_ok();
        sizes.iter().all(known).then_some(())?;
        sizes[1..].iter().try_fold(first, |product, &size| product.checked_mul(size))
    };
    // Elements must be countable too, although quantized ones take less than a byte.
    let bytes = product(sizes[0]).and_then(|_| product(kind.row_bytes(sizes[0])?));
    let Some(bytes) = bytes else {
        return Err(invalid(format!("its shape cannot exist: {sizes:?}")));
    };
    sizes.reverse();
    let shape = sizes.into_iter().map(|size| size as usize).collect();
    Ok(Described { name, kind, shape, bytes, offset })
}

/// Turns offsets into places in the file, with every sum checked.
fn place(
    file: &str,
    described: Vec<Described>,
    (start, alignment): (u64, u64),
    size: u64,
) -> Result<HashMap<String, Entry>, WeightsError> {
    let invalid = |tensor: &str, reason: String| WeightsError::Tensor {
        tensor: tensor.to_owned(),
        file: file.to_owned(),
        reason,
    };
    let mut tensors = HashMap::with_capacity(described.len());
    let mut spans = Vec::with_capacity(described.len());
    for Described { name, kind, shape, bytes, offset } in described {
        if !offset.is_multiple_of(alignment) {
            let reason = format!("its offset is no multiple of {alignment}: {offset}");
            return Err(invalid(&name, reason));
        }
        let begin = start.checked_add(offset);
        let span = begin.and_then(|begin| Some((begin, begin.checked_add(bytes)?)));
        let Some((begin, end)) = span else {
            return Err(invalid(&name, format!("its offset is out of range: {offset}")));
        };
        if size < end {
            return Err(WeightsError::Truncated { file: file.to_owned(), needed: end, size });
        }
        spans.push((begin, end, name.clone()));
        let entry = Entry { kind, shape, begin: begin as usize, end: end as usize };
        if tensors.insert(name.clone(), entry).is_some() {
            return Err(invalid(&name, "it is there twice".to_owned()));
        }
    }
    spans.sort_unstable();
    for pair in spans.windows(2) {
        if let [(_, end, before), (begin, _, name)] = pair
            && begin < end
        {
            return Err(invalid(name, format!("its data overlaps that of {before}")));
        }
    }
    Ok(tensors)
}
