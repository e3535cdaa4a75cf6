//! Reads the header of a GGUF file piece by piece; every count and size is checked before it is used.

use super::value::{List, Texts, Value, ValueType};
use crate::limits::LIMITS;
use crate::source::WeightsError;

/// Arrays of arrays of arrays have no use that is known.
const MAX_DEPTH: usize = 3;

/// A place in the header.
pub(super) struct Reader<'a> {
    file: &'a str,
    bytes: &'a [u8],
    at: usize,
    /// Array elements that may still come.
    elements: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a str, bytes: &'a [u8]) -> Self {
        Self { file, bytes, at: 0, elements: LIMITS.gguf_elements }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn invalid(&self, reason: impl Into<String>) -> WeightsError {
        WeightsError::GgufHeader { file: self.file.to_owned(), reason: reason.into() }
    }

    pub(super) fn u32(&mut self) -> Result<u32, WeightsError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, WeightsError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A count of things, of which there may be `limit`.
    pub(super) fn count(&mut self, what: &str, limit: usize) -> Result<usize, WeightsError> {
        let count = self.u64()?;
        match usize::try_from(count) {
            Ok(count) if count <= limit => Ok(count),
            _ => Err(self.invalid(format!("it has {count} {what}, {limit} are allowed"))),
        }
    }

    /// A text of at most `limit` bytes.
    pub(super) fn text(&mut self, what: &str, limit: u64) -> Result<&'a str, WeightsError> {
        let length = self.u64()?;
        if limit < length {
            return Err(self.invalid(format!("{what} has {length} bytes, {limit} are allowed")));
        }
        let start = self.at;
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map_err(|e| {
            let place = start + e.valid_up_to();
            self.invalid(format!("{what} is not UTF-8 at byte {place} of the file"))
        })
    }

    /// The value of metadata `key`.
    pub(super) fn value(&mut self, key: &str) -> Result<Value, WeightsError> {
        let kind = self.kind(key)?;
        self.value_of(kind, key, 0)
    }

    /// A text in the value of metadata `key`.
    fn quoted(&mut self, key: &str) -> Result<&'a str, WeightsError> {
        self.text(&format!("`{key}`"), LIMITS.gguf_header_bytes)
    }

    fn kind(&mut self, key: &str) -> Result<ValueType, WeightsError> {
        let number = self.u32()?;
        ValueType::from_number(number)
            .ok_or_else(|| self.invalid(format!("`{key}` has a value of unknown type {number}")))
    }

    fn value_of(
        &mut self,
        kind: ValueType,
        key: &str,
        depth: usize,
    ) -> Result<Value, WeightsError> {
        Ok(match kind {
            ValueType::U8 => Value::Uint(self.array().map(u8::from_le_bytes)?.into()),
            ValueType::I8 => Value::Int(self.array().map(i8::from_le_bytes)?.into()),
            ValueType::U16 => Value::Uint(self.array().map(u16::from_le_bytes)?.into()),
            ValueType::I16 => Value::Int(self.array().map(i16::from_le_bytes)?.into()),
            ValueType::U32 => Value::Uint(self.u32()?.into()),
            ValueType::I32 => Value::Int(self.array().map(i32::from_le_bytes)?.into()),
            ValueType::U64 => Value::Uint(self.u64()?),
            ValueType::I64 => Value::Int(self.array().map(i64::from_le_bytes)?),
            ValueType::F32 => Value::Float(self.array().map(f32::from_le_bytes)?.into()),
            ValueType::F64 => Value::Float(self.array().map(f64::from_le_bytes)?),
            ValueType::Bool => Value::Bool(self.bool(key)?),
            ValueType::Text => Value::Text(self.quoted(key)?.to_owned()),
            ValueType::List => Value::List(self.list(key, depth)?),
        })
    }

    fn list(&mut self, key: &str, depth: usize) -> Result<List, WeightsError> {
        if depth == MAX_DEPTH {
            return Err(self.invalid(format!("`{key}` nests arrays more than {MAX_DEPTH} deep")));
        }
        let kind = self.kind(key)?;
        let count = self.count(&format!("elements in `{key}`"), self.elements)?;
        self.elements -= count;
        let mut list = match kind {
            ValueType::U8 | ValueType::U16 | ValueType::U32 | ValueType::U64 => {
                List::Uints(Vec::new())
            }
            ValueType::I8 | ValueType::I16 | ValueType::I32 | ValueType::I64 => {
                List::Ints(Vec::new())
            }
            ValueType::F32 | ValueType::F64 => List::Floats(Vec::new()),
            ValueType::Bool => List::Bools(Vec::new()),
            ValueType::Text => List::Texts(Texts::default()),
            ValueType::List => List::Lists(Vec::new()),
        };
        for _ in 0..count {
            match &mut list {
                List::Texts(texts) => texts.push(self.quoted(key)?),
                list => push(list, self.value_of(kind, key, depth + 1)?),
            }
        }
        Ok(list)
    }

    fn bool(&mut self, key: &str) -> Result<bool, WeightsError> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(self.invalid(format!("`{key}` is a bool of value {other}"))),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WeightsError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64)?);
        Ok(array)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], WeightsError> {
        let needed = (self.at as u64).saturating_add(length);
        let (size, limit) = (self.bytes.len() as u64, LIMITS.gguf_header_bytes);
        let file = || self.file.to_owned();
        if size < needed {
            return Err(WeightsError::Truncated { file: file(), needed, size });
        }
        if limit < needed {
            return Err(WeightsError::HeaderTooLarge { file: file(), size: needed, limit });
        }
        let taken = &self.bytes[self.at..needed as usize];
        self.at = needed as usize;
        Ok(taken)
    }
}

/// Adds an element to a list of its type.
fn push(list: &mut List, value: Value) {
    match (list, value) {
        (List::Uints(list), Value::Uint(value)) => list.push(value),
        (List::Ints(list), Value::Int(value)) => list.push(value),
        (List::Floats(list), Value::Float(value)) => list.push(value),
        (List::Bools(list), Value::Bool(value)) => list.push(value),
        (List::Lists(list), Value::List(value)) => list.push(value),
        (list, value) => debug_assert!(false, "{list:?} holds no {value:?}"),
    }
}
