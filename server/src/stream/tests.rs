//! Readers see every event once, in order, whenever they come.

use super::*;
use crate::ipc::{Event, FinishReason, Usage};

fn delta(n: u32) -> Event {
    Event::Delta { text: n.to_string(), token_ids: vec![n], logprobs: Vec::new() }
}

fn finished() -> Event {
    Event::Finished { reason: FinishReason::Stop, usage: Usage::default() }
}

async fn read_all(mut cursor: Cursor) -> Vec<Event> {
    let mut all = Vec::new();
    while let Some((first, batch)) = cursor.next_batch().await {
        assert_eq!(first + batch.len(), first.max(all.len()) + batch.len());
        all.extend(batch);
    }
    all
}

#[tokio::test]
async fn early_and_late_readers_see_the_same_log() {
    let buffer = StreamBuffer::new();
    let early = tokio::join!(read_all(buffer.read_from(0)), async {
        for n in 0..5 {
            buffer.append([delta(n)]);
            tokio::task::yield_now().await;
        }
        buffer.append([finished()]);
    });
    let expected: Vec<Event> = (0..5).map(delta).chain([finished()]).collect();
    assert_eq!(early.0, expected);
    assert_eq!(read_all(buffer.read_from(0)).await, expected);
    assert_eq!(read_all(buffer.read_from(3)).await, expected[3..]);
}

#[tokio::test]
async fn nothing_follows_the_final_event() {
    let buffer = StreamBuffer::new();
    buffer.append([finished(), delta(1)]);
    buffer.append([delta(2)]);
    assert!(buffer.is_finished());
    assert_eq!(read_all(buffer.read_from(0)).await, [finished()]);
    assert_eq!(read_all(buffer.read_from(7)).await, []);
}
