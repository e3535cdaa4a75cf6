//! What is written: records of items, each record behind its length and its checksum.

use serde::{Deserialize, Serialize, Serializer};

use crate::http::Tenant;
use crate::ipc::{Prompt, Usage};
use crate::stream::{IdempotencyKey, OnDisconnect, Outcome};
use crate::wire::openai::{GenerateRequest, Meta};

/// Length and checksum, little endian.
pub(super) const PREFIX_BYTES: usize = 8;

/// Bytes of a small item, about.
const SMALL_ITEM: usize = 16;

/// Version of everything that is serialized here. A test knows the bytes of an example: whatever
/// changes them must count this up.
pub(super) const FORMAT: u32 = 1;

/// One thing that happened. Items of one record are there together or not at all.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Item<'a> {
    /// A stream begins: a serialized `Begin`.
    Begin {
        stream: u64,
        #[serde(borrow)]
        begin: Raw<'a>,
    },
    /// More of its log, from byte `at` of it on.
    Events {
        stream: u64,
        at: u64,
        #[serde(borrow)]
        bytes: Raw<'a>,
    },
    /// It ended; beside the events that ended it, once.
    End { stream: u64, end: End },
    /// It is kept no longer.
    Forget { stream: u64 },
    /// All that is known of a stream, so that older segments are not needed for it.
    Again {
        stream: u64,
        #[serde(borrow)]
        begin: Raw<'a>,
        #[serde(borrow)]
        bytes: Raw<'a>,
        end: Option<End>,
    },
}

/// Bytes, serialized in one piece.
#[derive(Debug, PartialEq, Deserialize)]
pub(super) struct Raw<'a>(#[serde(borrow)] pub(super) &'a [u8]);

/// All that is needed to serve an inference again, and to run it to its end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Begin {
    /// What is constant in its answers.
    pub(crate) meta: Meta,
    /// What was asked, without the prompts.
    pub(crate) request: GenerateRequest,
    /// The prompts; none once it has ended.
    pub(crate) prompts: Vec<Prompt>,
    /// Whose it is.
    pub(crate) tenant: Tenant,
    /// The caller's own name for it.
    pub(crate) key: Option<IdempotencyKey>,
    /// What becomes of it when nobody reads it.
    pub(crate) on_disconnect: OnDisconnect,
    /// What its package was.
    pub(crate) identity: String,
}

/// How and when a stream ended, and what it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct End {
    /// Unix time in milliseconds.
    pub(crate) unix_millis: u64,
    /// How.
    pub(crate) outcome: Outcome,
    /// Over all choices; a prompt counts once.
    pub(crate) usage: Usage,
}

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl Item<'_> {
    /// Adds it to a record that is being made.
    pub(super) fn put(&self, record: &mut Vec<u8>) {
        if record.is_empty() {
            record.extend([0; PREFIX_BYTES]);
        }
        let bytes = std::mem::take(record);
        *record = postcard::to_extend(self, bytes).expect("plain data goes into memory");
    }
}

impl Begin {
    /// As an item carries it.
    pub(super) fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("plain data goes into memory")
    }

    /// From an item.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, postcard::Error> {
        postcard::from_bytes(bytes)
    }
}

/// Writes length and checksum in front of the items.
pub(super) fn seal(record: &mut [u8]) {
    let length = (record.len() - PREFIX_BYTES) as u32;
    let (prefix, items) = record.split_at_mut(PREFIX_BYTES);
    prefix[..4].copy_from_slice(&length.to_le_bytes());
    prefix[4..].copy_from_slice(&checksum(length, items).to_le_bytes());
}

/// Why a segment cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    /// The last record was not written to its end.
    Torn,
    /// A record is not what was written.
    Corrupt,
}

/// The records of a segment, behind its header.
pub(super) struct Records<'a> {
    rest: &'a [u8],
    /// Why there are no more, if not because they end.
    pub(super) damage: Option<Damage>,
}

impl<'a> Records<'a> {
    /// The records in `bytes`.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, damage: None }
    }

    /// Bytes that were not read.
    pub(super) fn unread(&self) -> usize {
        self.rest.len()
    }

    fn split(&mut self) -> Result<(&'a [u8], &'a [u8]), Damage> {
        let (prefix, rest) = self.rest.split_first_chunk::<PREFIX_BYTES>().ok_or(Damage::Torn)?;
        let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| prefix[at + byte]));
        let (length, expected) = (word(0), word(4));
        if length == 0 {
            return Err(Damage::Corrupt);
        }
        let (items, rest) = rest.split_at_checked(length as usize).ok_or(Damage::Torn)?;
        if checksum(length, items) != expected {
            return Err(Damage::Corrupt);
        }
        Ok((items, rest))
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Vec<Item<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() || self.damage.is_some() {
            return None;
        }
        let read = self.split().and_then(|(items, rest)| Ok((decode(items)?, rest)));
        match read {
            Ok((items, rest)) => {
                self.rest = rest;
                Some(items)
            }
            Err(damage) => {
                self.damage = Some(damage);
                None
            }
        }
    }
}

fn decode(mut bytes: &[u8]) -> Result<Vec<Item<'_>>, Damage> {
    // Most items are the events of one step of one stream.
    let mut items = Vec::with_capacity(1 + bytes.len() / SMALL_ITEM);
    while !bytes.is_empty() {
        let (item, rest) = postcard::take_from_bytes(bytes).map_err(|_| Damage::Corrupt)?;
        items.push(item);
        bytes = rest;
    }
    Ok(items)
}

/// Of the length too, so that no run of zeros is a record.
fn checksum(length: u32, items: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length.to_le_bytes()), items)
}
