//! Readers see every event once, in order, whenever they come.

use super::*;
use crate::ipc::{ErrorKind, Event, FinishReason, Usage, WorkerError};

fn delta(n: u32) -> Event {
    Event::Delta { text: n.to_string(), token_ids: vec![n], logprobs: Vec::new() }
}

fn finished(reason: FinishReason) -> Event {
    Event::Finished { reason, usage: Usage::default() }
}

fn failed(code: &str) -> WorkerError {
    WorkerError {
        kind: ErrorKind::Internal,
        code: code.to_owned(),
        message: String::new(),
        hint: None,
        param: None,
    }
}

async fn read_all(mut cursor: Cursor) -> Vec<(usize, Event)> {
    let mut all = Vec::new();
    while let Some(batch) = cursor.next_batch().await {
        assert!(!batch.is_empty());
        all.extend(batch);
    }
    all
}

#[tokio::test]
async fn early_and_late_readers_see_the_same_log() {
    let buffer = StreamBuffer::new(2);
    let early = tokio::join!(read_all(buffer.read()), async {
        for n in 0..5 {
            buffer.append(n as usize % 2, &delta(n));
            tokio::task::yield_now().await;
        }
        buffer.append(1, &finished(FinishReason::Stop));
        assert!(!buffer.is_finished() && buffer.is_open(0) && !buffer.is_open(1));
        buffer.append(0, &finished(FinishReason::Length));
    });
    let mut expected: Vec<(usize, Event)> = (0..5).map(|n| (n as usize % 2, delta(n))).collect();
    expected.push((1, finished(FinishReason::Stop)));
    expected.push((0, finished(FinishReason::Length)));
    assert_eq!(early.0, expected);
    assert_eq!(read_all(buffer.read()).await, expected);
    assert_eq!(buffer.read().ready(), (expected, true));
}

#[tokio::test]
async fn nothing_follows_the_final_event_of_a_choice() {
    let buffer = StreamBuffer::new(1);
    buffer.append(0, &finished(FinishReason::Stop));
    buffer.append(0, &delta(1));
    buffer.append(7, &delta(2));
    buffer.fail(&failed(CANCELLED));
    assert_eq!(read_all(buffer.read()).await, [(0, finished(FinishReason::Stop))]);
}

#[test]
fn the_outcome_is_that_of_the_choice_that_did_not_complete() {
    let outcome = |finals: &[Event]| {
        let buffer = StreamBuffer::new(finals.len());
        for (choice, event) in finals.iter().enumerate() {
            assert_eq!(buffer.outcome(), Outcome::Active);
            buffer.append(choice, event);
        }
        buffer.outcome()
    };
    let stop = finished(FinishReason::Stop);
    assert_eq!(outcome(&[stop.clone(), finished(FinishReason::Length)]), Outcome::Completed);
    assert_eq!(outcome(&[Event::Failed(failed("x")), stop.clone()]), Outcome::Failed);
    assert_eq!(outcome(&[stop, Event::Failed(failed(CLIENT_GONE))]), Outcome::Cancelled);
    assert_eq!(outcome(&[finished(FinishReason::Cancelled)]), Outcome::Cancelled);
}

#[test]
fn a_thousand_streams_of_four_thousand_tokens_fit_in_100_megabytes() {
    let buffer = StreamBuffer::new(1);
    for n in 0..4000 {
        let text = " word".to_owned();
        buffer.append(0, &Event::Delta { text, token_ids: vec![20_000 + n], logprobs: Vec::new() });
    }
    buffer.append(0, &finished(FinishReason::Length));
    assert!(buffer.size() * 1000 < 100_000_000, "{} bytes", buffer.size());
}

mod store {
    use std::sync::Arc;
    use std::time::Duration;

    use serde_json::json;
    use tokio::time::Instant;

    use super::*;
    use crate::http::Tenant;
    use crate::wire::fields::Fields;
    use crate::wire::openai::{GenerateRequest, Meta};

    const TTL: Duration = Duration::from_mins(1);

    fn store(bytes: usize) -> StreamStore {
        StreamStore::new(StreamLimits { ttl: TTL, bytes }, None)
    }

    fn inference(id: &str) -> Inference {
        inference_of(Tenant(1), id)
    }

    fn inference_of(tenant: Tenant, id: &str) -> Inference {
        let body = json!({"messages": [{"role": "user", "content": "hi"}]});
        let request = GenerateRequest::chat(&Fields::of_body(body.as_object().expect("an object")));
        let meta = Meta { id: id.to_owned(), created: 0, model: "tiny".to_owned(), seed: 0 };
        let request = request.expect("a valid request");
        Inference::new(meta, request, tenant, OnDisconnect::Complete)
    }

    fn begin(store: &StreamStore, id: &str) -> (Arc<Inference>, bool) {
        match store.begin(inference(id), None).expect("no key, no mismatch") {
            Begun::New(inference, can_be_found) => (inference, can_be_found),
            Begun::Known(_) => panic!("without a key nothing is known"),
        }
    }

    fn end(inference: &Inference) {
        inference.buffer.append(0, &finished(FinishReason::Stop));
    }

    fn code(store: &StreamStore, id: &str) -> String {
        match store.get(id, Tenant(1)) {
            Ok(_) => "found".to_owned(),
            Err(error) => error.code.into_owned(),
        }
    }

    #[test]
    fn ended_streams_are_kept_for_their_time_and_running_ones_for_longer() {
        let store = store(1 << 20);
        let (ended, _) = begin(&store, "ended");
        begin(&store, "active");
        end(&ended);
        let now = Instant::now();
        store.sweep(now + TTL / 2);
        assert_eq!(code(&store, "ended"), "found");
        store.sweep(now + TTL * 2);
        assert_eq!(code(&store, "ended"), "stream_not_found");
        assert_eq!(code(&store, "active"), "found");
    }

    #[test]
    fn memory_is_made_by_evicting_the_oldest_that_ended_and_they_say_so() {
        let store = store(2 * 1024 + 512);
        let streams: Vec<_> = ["a", "b", "c"].map(|id| begin(&store, id).0).into();
        streams.iter().rev().for_each(|one| end(one));
        store.sweep(Instant::now());
        assert_eq!(code(&store, "c"), "stream_evicted");
        assert_eq!(
            (code(&store, "a"), code(&store, "b")),
            ("found".to_owned(), "found".to_owned())
        );
        assert_eq!(store.get("c", Tenant(2)).expect_err("not theirs").code, "stream_not_found");
        assert_eq!(store.usage().num_evicted, 1);
    }

    #[test]
    fn where_running_streams_take_all_memory_new_ones_are_served_and_not_kept() {
        let store = store(1500);
        let running = begin(&store, "a");
        begin(&store, "b");
        store.sweep(Instant::now());
        let (_, can_be_found) = begin(&store, "c");
        assert!(running.1 && !can_be_found);
        assert_eq!(code(&store, "c"), "stream_not_found");
        assert_eq!(store.usage().active, 2);
    }

    #[test]
    fn a_key_names_one_inference_of_one_tenant_as_long_as_it_is_kept() {
        let store = store(1 << 20);
        let key = |fingerprint| {
            Some(IdempotencyKey { key: "k".to_owned(), fingerprint: [fingerprint; 32] })
        };
        let first = store.begin(inference("a"), key(1)).expect("a new key");
        let Begun::New(first, true) = first else { panic!("a new key") };
        let again = store.begin(inference("b"), key(1)).expect("the same body");
        assert!(matches!(again, Begun::Known(known) if Arc::ptr_eq(&known, &first)));
        let other = store.begin(inference("b"), key(2)).expect_err("another body");
        assert_eq!(other.code, "idempotency_mismatch");
        let theirs = inference_of(Tenant(2), "c");
        assert!(matches!(store.begin(theirs, key(2)), Ok(Begun::New(..))));
        store.remove(&first);
        assert!(matches!(store.begin(inference("d"), key(2)), Ok(Begun::New(..))));
    }
}
