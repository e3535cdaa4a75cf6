//! Whatever a disk gives back, what is served of it was written once.

use proptest::prelude::*;

use super::*;
use crate::journal::disk::{HEADER_BYTES, header};
use crate::journal::record::{Item, Raw, seal};

/// A segment of two streams whose logs are the bytes from 0 on, and one that is forgotten; where
/// each record begins.
fn segment(lengths: &[(u64, u8)]) -> (Vec<u8>, Vec<usize>) {
    let (mut bytes, mut starts) = (header(3).to_vec(), Vec::new());
    let mut logs = [0_u64; 3];
    let begin = begin("a").encode();
    let mut write = |items: &[Item<'_>]| {
        let mut record = Vec::new();
        items.iter().for_each(|item| item.put(&mut record));
        seal(&mut record);
        starts.push(bytes.len());
        bytes.extend(record);
    };
    write(&[0, 1, 2].map(|stream| Item::Begin { stream, begin: Raw(&begin) }));
    for &(stream, length) in lengths {
        let at = logs[stream as usize];
        let log: Vec<u8> = (at..at + u64::from(length)).map(|byte| byte as u8).collect();
        logs[stream as usize] += u64::from(length);
        write(&[Item::Events { stream, at, bytes: Raw(&log) }]);
    }
    write(&[Item::Forget { stream: 2 }]);
    (bytes, starts)
}

fn scan(bytes: &[u8]) -> (Scan, Result<usize, String>) {
    let mut scan = Scan::default();
    let result = scan.segment(3, bytes);
    (scan, result)
}

proptest! {
    #[test]
    fn a_segment_that_is_cut_anywhere_gives_its_whole_records(
        lengths in prop::collection::vec((0_u64..3, 1_u8..40), 0..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let (bytes, mut starts) = segment(&lengths);
        let cut = cut.index(bytes.len());
        let (found, result) = scan(&bytes[..cut]);
        starts.push(bytes.len());
        let sound = starts.iter().copied().filter(|start| *start <= cut).max().unwrap_or(0);
        prop_assert_eq!(result, Ok(sound));
        let whole = starts.iter().filter(|start| **start <= cut).count().saturating_sub(2);
        for stream in 0..2 {
            let written: u64 = lengths.iter().take(whole)
                .filter(|(of, _)| *of == stream).map(|(_, length)| u64::from(*length)).sum();
            let log = found.streams.get(&stream).map(|found| found.bytes.len() as u64);
            prop_assert_eq!(log.unwrap_or(0), written);
        }
    }

    #[test]
    fn changed_bytes_never_change_a_log(
        lengths in prop::collection::vec((0_u64..3, 1_u8..40), 0..20),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 1_u8..), 1..4),
    ) {
        let (mut bytes, _) = segment(&lengths);
        let sound = bytes.clone();
        for (at, change) in changes {
            let at = at.index(bytes.len());
            bytes[at] ^= change;
        }
        let (found, result) = scan(&bytes);
        prop_assert!(bytes == sound || result != Ok(bytes.len()));
        for found in found.streams.values() {
            for (at, byte) in found.bytes.iter().enumerate() {
                prop_assert_eq!(*byte, at as u8);
            }
        }
    }

    #[test]
    fn bytes_that_nobody_wrote_are_no_segment(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let (found, _) = scan(&bytes);
        prop_assert!(found.streams.is_empty());
        let (found, _) = scan(&[&header(3)[..], &bytes].concat());
        prop_assert!(found.streams.is_empty());
    }
}

#[test]
fn a_gap_ends_a_log_and_what_is_written_again_fills_it() {
    let begin = begin("a").encode();
    let written = |items: &[Item<'_>]| {
        let mut record = Vec::new();
        items.iter().for_each(|item| item.put(&mut record));
        seal(&mut record);
        record
    };
    let over = End { unix_millis: 1, outcome: Outcome::Completed, usage: Usage::default() };
    let first = written(&[
        Item::Begin { stream: 5, begin: Raw(&begin) },
        Item::Events { stream: 5, at: 0, bytes: Raw(&[0, 1]) },
        Item::Events { stream: 5, at: 4, bytes: Raw(&[4, 5]) },
        Item::End { stream: 5, end: over },
    ]);
    let (found, _) = scan(&[&header(3)[..], &first].concat());
    assert_eq!((&*found.streams[&5].bytes, found.streams[&5].end), (&[0, 1][..], None));
    assert_eq!(found.next_stream, 6);
    let again = written(&[
        Item::Again { stream: 5, begin: Raw(&begin), bytes: Raw(&[0, 1, 2]), end: None },
        Item::Events { stream: 5, at: 2, bytes: Raw(&[2]) },
        Item::Events { stream: 5, at: 3, bytes: Raw(&[3]) },
        Item::End { stream: 5, end: over },
    ]);
    let (found, _) = scan(&[&header(3)[..], &first, &again].concat());
    assert_eq!((&*found.streams[&5].bytes, found.streams[&5].end), (&[0, 1, 2, 3][..], Some(over)));
}

#[tokio::test]
async fn a_damaged_journal_is_reported_and_the_rest_of_it_served() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(directory.path());
    for id in ["a", "b"] {
        let buffer = stream(&journal, id);
        end(&buffer);
        seen(&buffer, 2).await;
    }
    journal.close();
    let path = crate::journal::disk::segment_path(directory.path(), 0);
    let mut bytes = std::fs::read(&path).unwrap();
    assert!(HEADER_BYTES < bytes.len());
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (journal, restored) = open(directory.path());
    assert_eq!(journal.usage().damaged, 1);
    let outcomes: Vec<Outcome> = restored.iter().map(|one| one.buffer.outcome()).collect();
    assert_eq!((ids(&restored)[0], outcomes[0]), ("a", Outcome::Completed));
    assert_ne!(outcomes.get(1), Some(&Outcome::Completed));
}
