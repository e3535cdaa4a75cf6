//! What was shown is found again, whatever becomes of the disk.

mod damage;
mod faults;

use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use sha2::{Digest, Sha256};

use super::*;
use crate::http::Tenant;
use crate::ipc::{Event, FinishReason, Prompt, Usage};
use crate::stream::{IdempotencyKey, OnDisconnect, Outcome};
use crate::wire::fields::Fields;
use crate::wire::openai::{GenerateRequest, Meta};

const ROOM: u64 = 1 << 30;

fn config(directory: &Path, bytes: u64) -> JournalConfig {
    JournalConfig { directory: directory.to_owned(), bytes }
}

fn open(directory: &Path) -> (Journal, Vec<Restored>) {
    Journal::open(&config(directory, ROOM)).unwrap()
}

fn begin(id: &str) -> Begin {
    let body = json!({"messages": [{"role": "user", "content": "hi"}], "seed": 7, "n": 2});
    let request = GenerateRequest::chat(&Fields::of_body(body.as_object().unwrap())).unwrap();
    let meta = Meta { id: id.to_owned(), created: 5, model: "tiny".to_owned(), seed: 7 };
    let key = IdempotencyKey { key: "k".to_owned(), fingerprint: [3; 32] };
    Begin {
        meta,
        request,
        prompts: vec![Prompt::Text("hi".to_owned())],
        tenant: Tenant(9),
        key: Some(key),
        on_disconnect: OnDisconnect::Complete,
        identity: "same".to_owned(),
    }
}

fn delta(n: u32) -> Event {
    Event::Delta { text: n.to_string(), token_ids: vec![n], logprobs: Vec::new() }
}

fn finished() -> Event {
    let usage = Usage { prompt_tokens: 4, cached_tokens: 1, completion_tokens: 3 };
    Event::Finished { reason: FinishReason::Stop, usage }
}

fn stream(journal: &Journal, id: &str) -> Arc<StreamBuffer> {
    let buffer = StreamBuffer::new(2);
    journal.begin(&buffer, &begin(id));
    buffer
}

fn end(buffer: &Arc<StreamBuffer>) {
    (0..2).for_each(|choice| buffer.append(choice, &finished()));
}

/// Waits until readers see so many events, and gives all that they see.
async fn seen(buffer: &Arc<StreamBuffer>, count: usize) -> Vec<(usize, Event)> {
    let (mut cursor, mut seen) = (buffer.read(), Vec::new());
    while seen.len() < count {
        seen.extend(cursor.next_batch().await.unwrap());
    }
    seen
}

fn ids(restored: &[Restored]) -> Vec<&str> {
    restored.iter().map(|one| &*one.begin.meta.id).collect()
}

/// Whoever changes what is serialized must count `record::FORMAT` up, and then may change this.
#[test]
fn the_format_is_that_of_its_version() {
    let bytes = begin("a").encode();
    let events = (delta(5), finished());
    let item = record::Item::Again {
        stream: 1,
        begin: record::Raw(&bytes),
        bytes: record::Raw(&postcard::to_stdvec(&events).unwrap()),
        end: Some(End { unix_millis: 6, outcome: Outcome::Cancelled, usage: Usage::default() }),
    };
    let digest = Sha256::digest(postcard::to_stdvec(&item).unwrap());
    assert_eq!((record::FORMAT, &digest[..4]), (1, &[0x6d, 0xaf, 0xb2, 0x98][..]));
}

#[tokio::test]
async fn what_readers_saw_is_there_after_the_node_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, restored) = open(directory.path());
    assert!(restored.is_empty());
    let (ended, running) = (stream(&journal, "ended"), stream(&journal, "running"));
    for n in 0..3 {
        ended.append(0, &delta(n));
        running.append(1, &delta(10 + n));
    }
    end(&ended);
    running.append(0, &finished());
    let expected = [seen(&ended, 5).await, seen(&running, 4).await];
    // No farewell: this is how a node that is killed leaves its journal.
    drop((journal, ended, running));
    copy_while_it_is_locked(directory.path(), |directory| {
        let (_journal, restored) = open(directory);
        assert_eq!(ids(&restored), ["ended", "running"]);
        for (one, expected) in restored.iter().zip(&expected) {
            assert_eq!(one.buffer.read().ready().0, *expected);
            assert_eq!((one.begin.tenant, one.begin.key.is_some()), (Tenant(9), true));
        }
        let [ended, running] = [&restored[0].buffer, &restored[1].buffer];
        assert_eq!((ended.outcome(), running.outcome()), (Outcome::Completed, Outcome::Active));
        let open = running.open_choices();
        assert_eq!((open.len(), open[0].0, open[0].1.usage.completion_tokens), (1, 1, 3));
        assert_eq!(running.tokens(1), [10, 11, 12]);
        assert!(running.is_durable());
    });
}

/// A killed process loses its lock; the writer's thread of this one may still have it.
fn copy_while_it_is_locked(directory: &Path, look: impl FnOnce(&Path)) {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    look(copy.path());
}

#[tokio::test]
async fn a_stream_goes_on_in_the_journal_of_the_next_node() {
    let directory = tempfile::tempdir().unwrap();
    for n in 0..4 {
        let (journal, restored) = open(directory.path());
        let buffer = match &restored[..] {
            [] => stream(&journal, "a"),
            [one] => Arc::clone(&one.buffer),
            more => panic!("{} streams", more.len()),
        };
        assert_eq!(buffer.tokens(0), (0..n).collect::<Vec<u32>>());
        buffer.append(0, &delta(n));
        journal.close();
    }
    let (journal, restored) = open(directory.path());
    end(&restored[0].buffer);
    journal.close();
    let records = usage(directory.path()).unwrap();
    assert_eq!(records.len(), 1);
    // Two choices of one prompt.
    let expected = Usage { prompt_tokens: 4, cached_tokens: 1, completion_tokens: 6 };
    assert_eq!((&*records[0].id, records[0].usage), ("a", expected));
}

#[test]
fn forgotten_streams_are_gone() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(directory.path());
    let (kept, forgotten) = (stream(&journal, "kept"), stream(&journal, "forgotten"));
    end(&kept);
    end(&forgotten);
    forgotten.forget();
    journal.close();
    let (_journal, restored) = open(directory.path());
    assert_eq!(ids(&restored), ["kept"]);
}

#[test]
fn a_directory_belongs_to_one_node() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(directory.path());
    let error = Journal::open(&config(directory.path(), ROOM)).unwrap_err();
    assert!(matches!(error, JournalError::InUse { .. }), "{error}");
    journal.close();
    open(directory.path());
}

#[tokio::test]
async fn what_is_held_together_is_written_together() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(directory.path());
    let buffers: Vec<_> = (0..50).map(|n| stream(&journal, &n.to_string())).collect();
    buffers[0].append(0, &delta(0));
    seen(&buffers[0], 1).await;
    let before = journal.usage().records;
    let hold = buffers[0].hold();
    buffers.iter().for_each(|buffer| buffer.append(1, &delta(1)));
    drop(hold);
    for buffer in &buffers[1..] {
        seen(buffer, 1).await;
    }
    assert_eq!(journal.usage().records, before + 1);
}

#[tokio::test]
async fn segments_are_dropped_behind_what_is_kept_and_long_streams_move_on() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(&config(directory.path(), 1 << 20)).unwrap();
    let long = stream(&journal, "long");
    let mut tokens = Vec::new();
    // Ten times the room that there is.
    for round in 0..500 {
        let short = stream(&journal, &format!("short {round}"));
        let text = "x".repeat(20_000);
        short.append(0, &Event::Delta { text, token_ids: vec![1], logprobs: Vec::new() });
        end(&short);
        long.append(0, &delta(round));
        tokens.push(round);
        seen(&long, tokens.len()).await;
        seen(&short, 3).await;
        short.forget();
    }
    let usage = journal.usage();
    assert!(9 << 20 <= usage.bytes, "{usage:?}");
    assert!(usage.disk_bytes <= 1 << 20, "{usage:?}");
    journal.close();
    let (journal, restored) = open(directory.path());
    assert_eq!((ids(&restored), restored[0].buffer.tokens(0)), (vec!["long"], tokens));
    assert_eq!(journal.usage().damaged, 0);
}

#[tokio::test]
async fn without_room_new_streams_are_served_and_not_written() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(&config(directory.path(), 128 << 10)).unwrap();
    let mut buffers = Vec::new();
    while !journal.is_full() {
        let buffer = stream(&journal, &buffers.len().to_string());
        let text = "x".repeat(20_000);
        buffer.append(0, &Event::Delta { text, token_ids: vec![1], logprobs: Vec::new() });
        end(&buffer);
        seen(&buffer, 3).await;
        buffers.push(buffer);
    }
    let late = stream(&journal, "late");
    late.append(0, &delta(1));
    assert_eq!(seen(&late, 1).await.len(), 1);
    assert!(buffers[0].is_durable() && !late.is_durable());
    // What makes room for others is itself removed; the writer says so after its next record.
    buffers.iter().for_each(|buffer| buffer.forget());
    while journal.is_full() {
        tokio::task::yield_now().await;
    }
    assert!(stream(&journal, "later").is_durable());
}

#[test]
fn prompts_are_not_kept_for_what_has_ended() {
    let mut long = begin("a");
    long.prompts = vec![Prompt::Text("x".repeat(5000))];
    let buffer = StreamBuffer::new(2);
    let mut live = Live { stream: 1, buffer, begin: long.encode(), segment: None, queued: true };
    live.strip();
    assert!(live.begin.len() < 1000);
    assert_eq!(Begin::decode(&live.begin).unwrap().meta.id, "a");
}
