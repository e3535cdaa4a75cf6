//! Streams that are found again: by their ids, by their callers' keys, after their readers left.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use pinion_server::config::DisconnectPolicy;
use serde_json::{Value, json};

use crate::node::{Answer, Node, Setup, post, says};

const CHAT: &str = "/v1/chat/completions";

fn streamed(content: &str) -> Value {
    let mut body = says(content);
    body["stream"] = json!(true);
    body
}

fn with(mut request: Request<Body>, name: &'static str, value: &str) -> Request<Body> {
    request.headers_mut().insert(name, value.parse().expect("a header"));
    request
}

fn bare(method: &str, path: &str) -> Request<Body> {
    Request::builder().method(method).uri(path).body(Body::empty()).expect("a valid request")
}

async fn after(node: &Node, path: &str, last_event_id: &str) -> Answer {
    node.ask(with(bare("GET", path), "last-event-id", last_event_id)).await
}

/// Whole events, line ends included.
fn split(text: &str) -> Vec<&str> {
    text.split_inclusive("\n\n").collect()
}

/// The stream's path, and its first bytes; the stream goes on in the body.
async fn open(node: &Node, request: Request<Body>) -> (String, String, Body) {
    let response = node.send(request).await;
    assert_eq!(response.status(), 200);
    let path = response.headers()["content-location"].to_str().expect("text").to_owned();
    let mut body = response.into_body();
    let first = body.frame().await.expect("a first write").expect("bodies do not fail");
    let first = String::from_utf8(first.into_data().expect("data").to_vec()).expect("text");
    (path, first, body)
}

async fn rest(body: Body) -> String {
    let bytes = body.collect().await.expect("bodies do not fail").to_bytes();
    String::from_utf8(bytes.to_vec()).expect("text")
}

async fn state(node: &Node, path: &str) -> String {
    node.ask(bare("HEAD", path)).await.header("x-pinion-stream-state").to_owned()
}

#[tokio::test]
async fn a_stream_is_read_again_from_any_place_to_the_byte() {
    let node = Node::ready().await;
    let mut body = streamed("count 3");
    body["n"] = json!(2);
    body["stream_options"] = json!({"include_usage": true});
    let whole = node.post(CHAT, body).await;
    let (id, path) = (whole.header("x-pinion-stream-id"), whole.header("content-location"));
    assert_eq!((path, whole.header("inference-id")), (&*format!("/v1/streams/{id}"), id));
    assert!(id.starts_with("chatcmpl-n1-"), "{id}");
    let events = split(&whole.text);
    assert!(
        10 < events.len()
            && events.last() == Some(&&*format!("id: {id}:{}\ndata: [DONE]\n\n", events.len() - 1))
    );
    for (number, event) in events.iter().enumerate() {
        assert!(event.starts_with(&format!("id: {id}:{number}\ndata: ")), "{event}");
        let expected = events[number..].concat();
        assert_eq!(node.get(&format!("{path}?from={number}")).await.text, expected);
        let expected = events[number + 1..].concat();
        assert_eq!(node.get(&format!("{path}?starting_after={number}")).await.text, expected);
        assert_eq!(after(&node, path, &format!("{id}:{number}")).await.text, expected);
    }
    let again = node.get(path).await;
    assert_eq!((again.status.as_u16(), &again.text), (200, &whole.text));
    assert_eq!(again.header("content-type"), "text/event-stream");
    // A header is newer than the address that EventSource repeats.
    let both = after(&node, &format!("{path}?from=0"), &format!("{id}:1")).await;
    assert_eq!(both.text, events[2..].concat());
}

#[tokio::test]
async fn after_the_end_event_sources_are_stopped_and_others_get_nothing() {
    let node = Node::ready().await;
    let whole = node.post(CHAT, streamed("count 2")).await;
    let (id, path) = (whole.header("x-pinion-stream-id"), whole.header("content-location"));
    let last = split(&whole.text).len() - 1;
    assert_eq!(after(&node, path, &format!("{id}:{last}")).await.status, 204);
    for query in [format!("from={}", last + 1), format!("starting_after={last}")] {
        let answer = node.get(&format!("{path}?{query}")).await;
        assert_eq!((answer.status.as_u16(), &*answer.text), (200, ""), "{query}");
    }
}

#[tokio::test]
async fn a_place_that_is_none_and_a_stream_that_is_none_are_refused() {
    let mut setup = Setup::default();
    setup.config.api_keys = vec!["mine".to_owned(), "theirs".to_owned()];
    let node = setup.ready().await;
    let with_key = |request, key: &str| with(request, "authorization", &format!("Bearer {key}"));
    let whole = node.ask(with_key(post(CHAT, streamed("count 2")), "mine")).await;
    let path = whole.header("content-location");
    let code = |answer: &Answer| (answer.status.as_u16(), answer.error().1);
    for cursor in ["", "5", "other:1", "chatcmpl-n1-x:1", &format!("{path}:-1")] {
        let request = with(with_key(bare("GET", path), "mine"), "last-event-id", cursor);
        assert_eq!(code(&node.ask(request).await), (400, "bad_cursor".to_owned()), "{cursor}");
    }
    for query in ["from=x", "starting_after=-1", "from="] {
        let request = with_key(bare("GET", &format!("{path}?{query}")), "mine");
        assert_eq!(code(&node.ask(request).await), (400, "bad_cursor".to_owned()), "{query}");
    }
    // Whether the id exists is not for others to know.
    for (method, path, key) in [
        ("GET", "/v1/streams/chatcmpl-n1-0", "mine"),
        ("GET", path, "theirs"),
        ("DELETE", path, "theirs"),
        ("GET", &path.replace("/v1/streams", "/v1/chat/completions"), "theirs"),
    ] {
        let answer = node.ask(with_key(bare(method, path), key)).await;
        assert_eq!(code(&answer), (404, "stream_not_found".to_owned()), "{method} {path} {key}");
    }
    assert_eq!(node.ask(with_key(bare("HEAD", path), "theirs")).await.status, 404);
    assert_eq!(node.ask(with_key(bare("HEAD", path), "mine")).await.status, 200);
}

#[tokio::test]
async fn a_second_reader_sees_what_was_and_what_comes() {
    let node = Node::ready().await;
    let (path, first, body) = open(&node, post(CHAT, streamed("wait gate"))).await;
    let (_, caught_up, second) = open(&node, bare("GET", &path)).await;
    assert_eq!(caught_up, first);
    node.post("/v1/completions", json!({"prompt": "open gate"})).await;
    let (one, two) = (rest(body).await, rest(second).await);
    assert!(one.contains("\" second\"") && one.ends_with("data: [DONE]\n\n"), "{one}");
    assert_eq!(one, two);
}

#[tokio::test]
async fn a_reader_that_comes_back_in_time_misses_nothing() {
    let node = Node::ready().await;
    let (path, first, body) = open(&node, post(CHAT, streamed("wait gate"))).await;
    drop(body);
    assert_eq!(state(&node, &path).await, "active");
    let number = split(&first).len() - 1;
    let id = path.rsplit('/').next().expect("an id");
    let request = with(bare("GET", &path), "last-event-id", &format!("{id}:{number}"));
    let response = node.send(request).await;
    node.post("/v1/completions", json!({"prompt": "open gate"})).await;
    let rest = rest(response.into_body()).await;
    assert!(rest.starts_with(&format!("id: {id}:{}\n", number + 1)), "{rest}");
    assert_eq!(node.get(&path).await.text, first + &rest);
    assert_eq!(node.cancelled().await, 0);
}

#[tokio::test]
async fn an_inference_that_nobody_reads_for_long_enough_ends_and_says_why() {
    let mut setup = Setup::default();
    setup.config.linger = Duration::from_millis(1);
    let node = setup.ready().await;
    let (path, first, body) = open(&node, post(CHAT, streamed("wait forever"))).await;
    drop(body);
    while node.cancelled().await < 1 {}
    assert_eq!(state(&node, &path).await, "cancelled");
    let again = node.get(&path).await;
    assert!(again.text.starts_with(&first), "{}", again.text);
    assert_eq!(again.events().last().expect("an event")["error"]["code"], "client_gone");
    assert_eq!(node.app.packages()[0].in_flight(), 0);
}

#[tokio::test]
async fn the_caller_says_what_becomes_of_an_inference_that_nobody_reads() {
    let mut setup = Setup::default();
    setup.config.on_disconnect = DisconnectPolicy::Complete;
    let node = setup.ready().await;
    let (_, _, body) =
        open(&node, with(post(CHAT, streamed("wait forever")), "x-pinion-on-disconnect", "cancel"))
            .await;
    drop(body);
    while node.cancelled().await < 1 {}
    for carrier in ["pinion", "metadata"] {
        let mut request = streamed("wait forever");
        request[carrier] = json!({"on_disconnect": "cancel"});
        let before = node.cancelled().await;
        drop(open(&node, post(CHAT, request)).await);
        while node.cancelled().await == before {}
    }
    let (path, _, body) = open(&node, post(CHAT, streamed("wait gate"))).await;
    drop(body);
    node.post("/v1/completions", json!({"prompt": "open gate"})).await;
    let whole = node.get(&path).await;
    assert!(whole.text.ends_with("data: [DONE]\n\n"), "{}", whole.text);
    let wrong = with(post(CHAT, streamed("count 1")), "x-pinion-on-disconnect", "explode");
    let error = node.ask(wrong).await.error();
    assert_eq!((error.0, error.2.as_deref()), (400, Some("x-pinion-on-disconnect")));
}

#[tokio::test]
async fn a_deleted_stream_is_cancelled_and_gone() {
    let node = Node::ready().await;
    let (path, _, body) = open(&node, post(CHAT, streamed("wait forever"))).await;
    assert_eq!(node.ask(bare("DELETE", &path)).await.status, 204);
    let rest = rest(body).await;
    assert!(rest.contains("\"code\":\"cancelled\""), "{rest}");
    assert_eq!(node.cancelled().await, 1);
    assert_eq!(node.get(&path).await.error().1, "stream_not_found");
}

#[tokio::test]
async fn a_look_at_a_stream_says_how_far_it_is_and_how_long_it_stays() {
    let node = Node::ready().await;
    let (path, first, body) = open(&node, post(CHAT, streamed("wait gate"))).await;
    let look = node.ask(bare("HEAD", &path)).await;
    assert_eq!((look.status.as_u16(), look.header("x-pinion-stream-state")), (200, "active"));
    assert_eq!(look.header("x-pinion-stream-next"), split(&first).len().to_string());
    assert_eq!(look.header("expires"), "");
    node.post("/v1/completions", json!({"prompt": "open gate"})).await;
    let rest = rest(body).await;
    let look = node.ask(bare("HEAD", &path)).await;
    assert_eq!(look.header("x-pinion-stream-state"), "completed");
    let events = split(&first).len() + split(&rest).len();
    assert_eq!(look.header("x-pinion-stream-next"), events.to_string());
    assert!(look.header("expires").ends_with(" GMT"), "{}", look.header("expires"));
}

#[tokio::test]
async fn an_answer_in_one_piece_is_found_again_too() {
    let node = Node::ready().await;
    let answer = node.post(CHAT, says("count 2")).await;
    let id = answer.header("inference-id");
    assert_eq!(node.get(&format!("{CHAT}/{id}")).await.text, answer.text);
    let events = node.get(&format!("/v1/streams/{id}")).await;
    assert!(events.text.contains("\"content\":\" 2\""), "{}", events.text);
}

#[tokio::test]
async fn the_same_key_and_body_join_the_inference_that_runs() {
    let node = Node::ready().await;
    let keyed = |body| with(post(CHAT, body), "idempotency-key", "k1");
    let (path, first, body) = open(&node, keyed(streamed("wait gate"))).await;
    let response = node.send(keyed(streamed("wait gate"))).await;
    assert_eq!(response.headers()["idempotency-replayed"], "true");
    assert_eq!(response.headers()["content-location"], *path);
    node.post("/v1/completions", json!({"prompt": "open gate"})).await;
    let (one, two) = (first + &rest(body).await, rest(response.into_body()).await);
    assert_eq!(one, two);
    // The order of the fields is no difference; a value is.
    let replayed =
        node.ask(with(post(CHAT, streamed("wait gate")), "x-idempotency-key", "k1")).await;
    assert_eq!(replayed.text, one);
    let other = node.ask(keyed(streamed("count 1"))).await;
    assert_eq!(other.error().1, "idempotency_mismatch");
    assert_eq!(other.status, 422);
}

#[tokio::test]
async fn a_key_in_the_body_works_as_well_and_a_refused_request_does_not_keep_its_key() {
    let node = Node::ready().await;
    let mut body = says("count 2");
    body["pinion"] = json!({"idempotency_key": "k2"});
    let (one, two) = (node.post(CHAT, body.clone()).await, node.post(CHAT, body).await);
    assert_eq!((one.text, two.header("idempotency-replayed")), (two.text.clone(), "true"));
    let mut refused = says("fail context_length_exceeded");
    refused["metadata"] = json!({"idempotency_key": "k3"});
    for _ in 0..2 {
        let answer = node.post(CHAT, refused.clone()).await;
        assert_eq!((answer.status.as_u16(), answer.header("idempotency-replayed")), (400, ""));
    }
}
