//! The header of a safetensors file: read within limits, checked against the size of the file.

use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, de};

use super::WeightsError;
use crate::limits::{LIMITS, Limits};

/// Bytes before the header: its length, little-endian.
const PREFIX: u64 = 8;

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// As safetensors writes it: `F32`, `BF16`, `I64`, …
    pub(crate) dtype: String,
    /// Sizes of its dimensions.
    pub(crate) shape: Vec<usize>,
    /// First byte in the file.
    pub(crate) begin: usize,
    /// One past its last byte in the file.
    pub(crate) end: usize,
}

/// The tensors of one file.
pub(crate) type Header = HashMap<String, Entry>;

/// Reads and checks the header of a file of which `bytes` are all bytes.
pub(crate) fn parse_header(file: &str, bytes: &[u8]) -> Result<Header, WeightsError> {
    let size = bytes.len() as u64;
    let truncated = |needed| WeightsError::Truncated { file: file.to_owned(), needed, size };
    let Some((prefix, rest)) = bytes.split_first_chunk::<{ PREFIX as usize }>() else {
        return Err(truncated(PREFIX));
    };
    let length = u64::from_le_bytes(*prefix);
    if length > LIMITS.header_bytes {
        let limit = LIMITS.header_bytes;
        return Err(WeightsError::HeaderTooLarge { file: file.to_owned(), size: length, limit });
    }
    let start = PREFIX + length;
    let Some(text) = rest.get(..length as usize) else { return Err(truncated(start)) };
    // Copied before it is checked, so that a change to a mapped file cannot come between.
    let invalid = |reason: String| WeightsError::Header { file: file.to_owned(), reason };
    let text = String::from_utf8(text.to_vec())
        .map_err(|e| invalid(format!("not UTF-8 at byte {}", e.utf8_error().valid_up_to())))?;
    if !text.starts_with('{') {
        return Err(invalid("it does not start with `{`".to_owned()));
    }
    let raw: RawHeader = serde_json::from_str(&text).map_err(|e| invalid(e.to_string()))?;
    check(file, &raw.0, start, size)
}

/// Turns offsets into places in the file, with every sum and product checked.
fn check(
    file: &str,
    raw: &[(String, RawEntry)],
    start: u64,
    size: u64,
) -> Result<Header, WeightsError> {
    let mut header = Header::with_capacity(raw.len());
    let mut spans: Vec<(u64, u64, &str)> = Vec::with_capacity(raw.len());
    for (name, entry) in raw {
        let invalid = |reason: String| WeightsError::Tensor {
            tensor: name.clone(),
            file: file.to_owned(),
            reason,
        };
        let (begin, end) = checked_span(entry, start).map_err(invalid)?;
        if end > size {
            return Err(WeightsError::Truncated { file: file.to_owned(), needed: end, size });
        }
        spans.push((begin, end, name));
        let shape = entry.shape.iter().map(|&d| d as usize).collect();
        let (begin, end) = (begin as usize, end as usize);
        header.insert(name.clone(), Entry { dtype: entry.dtype.clone(), shape, begin, end });
    }
    spans.sort_unstable();
    let mut covered = (start, "the header");
    for (begin, end, name) in spans {
        if begin != covered.0 {
            let what = if begin < covered.0 { "overlaps" } else { "leaves a gap after" };
            let reason = format!("its data {what} that of {}", covered.1);
            let (tensor, file) = (name.to_owned(), file.to_owned());
            return Err(WeightsError::Tensor { tensor, file, reason });
        }
        covered = (end, name);
    }
    if covered.0 == size {
        return Ok(header);
    }
    let reason = format!("{} bytes after the last tensor belong to none", size - covered.0);
    Err(WeightsError::Header { file: file.to_owned(), reason })
}

fn checked_span(entry: &RawEntry, start: u64) -> Result<(u64, u64), String> {
    let [begin, end] = entry.data_offsets;
    let Some(bytes) = end.checked_sub(begin) else {
        return Err(format!("its data ends before it begins: [{begin}, {end}]"));
    };
    if entry.shape.len() > LIMITS.rank {
        return Err(format!(
            "it has {} dimensions, {} are allowed",
            entry.shape.len(),
            LIMITS.rank
        ));
    }
    let Some(bits) = bits(&entry.dtype) else {
        return Err(format!("its dtype is unknown: {:?}", entry.dtype));
    };
    let product = |least: u64| {
        entry.shape.iter().try_fold(bits, |product, &size| product.checked_mul(size.max(least)))
    };
    // The strides of an empty tensor are products too, so a zero must not hide a size that cannot exist.
    let needed = product(1).and_then(|_| product(0)).filter(|needed| needed.is_multiple_of(8));
    let Some(needed) = needed.map(|needed| needed / 8) else {
        return Err(format!("its shape cannot exist: {:?}", entry.shape));
    };
    if needed != bytes {
        return Err(format!(
            "{} {:?} needs {needed} bytes, its data has {bytes}",
            entry.dtype, entry.shape
        ));
    }
    let place = |offset: u64| start.checked_add(offset).filter(|&at| usize::try_from(at).is_ok());
    match (place(begin), place(end)) {
        (Some(begin), Some(end)) => Ok((begin, end)),
        _ => Err(format!("its data is out of range: [{begin}, {end}]")),
    }
}

/// Bits of an element of every dtype safetensors 0.8 knows.
fn bits(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "F4" => 4,
        "F6_E2M3" | "F6_E3M2" => 6,
        "BOOL" | "U8" | "I8" | "F8_E5M2" | "F8_E4M3" | "F8_E5M2FNUZ" | "F8_E4M3FNUZ"
        | "F8_E8M0" => 8,
        "I16" | "U16" | "F16" | "BF16" => 16,
        "I32" | "U32" | "F32" => 32,
        "I64" | "U64" | "F64" | "C64" => 64,
        _ => return None,
    })
}

#[derive(Deserialize)]
struct RawEntry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// The header's object, refused at the first entry too many and at a name given twice.
struct RawHeader(Vec<(String, RawEntry)>);

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor(LIMITS)).map(Self)
    }
}

struct HeaderVisitor(Limits);

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Vec<(String, RawEntry)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        let mut seen = std::collections::HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if !seen.insert(name.clone()) {
                return Err(A::Error::custom(format_args!("`{name}` is there twice")));
            }
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if entries.len() == self.0.tensors {
                return Err(too_many(self.0.tensors));
            }
            let entry = map
                .next_value()
                .map_err(|e| A::Error::custom(format_args!("tensor `{name}`: {e}")))?;
            entries.push((name, entry));
        }
        Ok(entries)
    }
}

fn too_many<E: de::Error>(limit: usize) -> E {
    E::custom(format_args!("more than {limit} tensors"))
}
