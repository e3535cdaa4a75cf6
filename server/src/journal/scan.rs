//! What is on the disk when a node starts.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

use super::disk::{HEADER_BYTES, header, segment_path, segments};
use super::record::{Begin, Damage, End, Item, Records};
use super::writer::Stored;
use crate::ipc::Usage;

/// All that was found.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Streams that were not forgotten, by their numbers.
    pub(super) streams: HashMap<u64, Found>,
    /// Segments, the oldest first.
    pub(super) stored: Vec<Stored>,
    /// Above every number that was used.
    pub(super) next_stream: u64,
    /// Above every segment that is there.
    pub(super) next_segment: u64,
    /// Segments that are not what was written.
    pub(super) damaged: u64,
}

/// What a stream took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRecord {
    /// Id of the stream.
    pub id: String,
    /// When it ended, as Unix time.
    pub unix_millis: u64,
    /// Over all choices; a prompt counts once.
    pub usage: Usage,
}

/// A stream that was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Its serialized `Begin`.
    pub(super) begin: Vec<u8>,
    /// Its log, without gaps.
    pub(super) bytes: Vec<u8>,
    pub(super) end: Option<End>,
    /// The first segment that is needed for it.
    pub(super) segment: u64,
    /// Whether something is missing behind `bytes`.
    has_gap: bool,
}

impl Scan {
    /// Reads every segment. What is damaged is left out and warned about.
    pub(super) fn read(directory: &Path) -> io::Result<Self> {
        let mut scan = Self { next_stream: 1, ..Self::default() };
        let mut bytes = Vec::new();
        for segment in segments(directory)? {
            let path = segment_path(directory, segment);
            bytes.clear();
            let read = File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes));
            let kept = match read {
                Ok(_) => scan.segment(segment, &bytes),
                Err(error) => Err(error.to_string()),
            };
            match kept {
                Ok(kept) if kept < bytes.len() => truncate(&path, kept),
                Ok(_) => {}
                Err(reason) => {
                    scan.damaged += 1;
                    tracing::warn!("streams are lost: {}: {reason}", path.display());
                }
            }
            scan.stored.push(Stored { segment, bytes: bytes.len() as u64 });
            scan.next_segment = segment + 1;
        }
        Ok(scan)
    }

    /// Reads one segment, and says how many of its bytes are sound where the rest was never
    /// written, or what is wrong with it.
    pub(super) fn segment(&mut self, segment: u64, bytes: &[u8]) -> Result<usize, String> {
        match bytes.split_at_checked(HEADER_BYTES) {
            // A node ended while it made the segment.
            None => return Ok(0),
            Some((found, _)) if found != header(segment) => {
                return Err("it is not a segment of this version".to_owned());
            }
            Some(_) => {}
        }
        let mut records = Records::new(&bytes[HEADER_BYTES..]);
        for items in records.by_ref() {
            items.into_iter().for_each(|item| self.item(segment, &item));
        }
        let sound = bytes.len() - records.unread();
        match records.damage {
            Some(Damage::Corrupt) => Err(format!("a record is damaged: at byte {sound}")),
            Some(Damage::Torn) | None => Ok(sound),
        }
    }

    fn item(&mut self, segment: u64, item: &Item<'_>) {
        let stream = match *item {
            Item::Begin { stream, ref begin } => {
                let begin = begin.0.to_vec();
                self.streams.insert(stream, Found { begin, segment, ..Found::default() });
                stream
            }
            Item::Events { stream, at, ref bytes } => {
                if let Some(found) = self.streams.get_mut(&stream) {
                    found.extend(at, bytes.0);
                }
                stream
            }
            Item::End { stream, end } => {
                if let Some(found) = self.streams.get_mut(&stream)
                    && !found.has_gap
                {
                    found.end = Some(end);
                }
                stream
            }
            Item::Forget { stream } => {
                self.streams.remove(&stream);
                stream
            }
            Item::Again { stream, ref begin, ref bytes, end } => {
                let (begin, bytes) = (begin.0.to_vec(), bytes.0.to_vec());
                let found = Found { begin, bytes, end, segment, has_gap: false };
                self.streams.insert(stream, found);
                stream
            }
        };
        self.next_stream = self.next_stream.max(stream.saturating_add(1));
    }
}

impl Found {
    fn extend(&mut self, at: u64, bytes: &[u8]) {
        match at.cmp(&(self.bytes.len() as u64)) {
            // What was written again is there already.
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => self.bytes.extend(bytes),
            std::cmp::Ordering::Greater => self.has_gap = true,
        }
    }
}

/// What the streams in a directory took, each once, in the order in which they ended. It may be
/// read while a node writes.
///
/// # Errors
/// When a file cannot be read.
pub fn usage(directory: &Path) -> io::Result<Vec<UsageRecord>> {
    let mut ids = HashMap::new();
    let (mut ends, mut restated) = (Vec::new(), Vec::new());
    for segment in segments(directory)? {
        let bytes = std::fs::read(segment_path(directory, segment))?;
        let records = bytes.get(HEADER_BYTES..).unwrap_or_default();
        for item in Records::new(records).flatten() {
            match item {
                Item::Begin { stream, begin } | Item::Again { stream, begin, end: None, .. } => {
                    ids.insert(stream, Begin::decode(begin.0).map(|begin| begin.meta.id));
                }
                Item::Again { stream, begin, end: Some(end), .. } => {
                    ids.insert(stream, Begin::decode(begin.0).map(|begin| begin.meta.id));
                    restated.push((stream, end));
                }
                Item::End { stream, end } => ends.push((stream, end)),
                Item::Events { .. } | Item::Forget { .. } => {}
            }
        }
    }
    // What was written again counts only where the first time is gone.
    let first: HashSet<u64> = ends.iter().map(|(stream, _)| *stream).collect();
    restated.retain(|(stream, _)| !first.contains(stream));
    restated.sort_by_key(|(stream, _)| *stream);
    restated.dedup_by_key(|(stream, _)| *stream);
    let record = |(stream, end): (u64, End)| {
        let id = ids.get(&stream)?.as_ref().ok()?.clone();
        Some(UsageRecord { id, unix_millis: end.unix_millis, usage: end.usage })
    };
    Ok(restated.into_iter().chain(ends).filter_map(record).collect())
}

/// Cuts off what was not written to its end, so that nobody has to think about it again.
fn truncate(path: &Path, bytes: usize) {
    let open = OpenOptions::new().write(true).open(path);
    if let Err(error) = open.and_then(|file| file.set_len(bytes as u64)) {
        tracing::debug!("a segment is not cut: {}: {error}", path.display());
    }
}
