//! Streamed answers, to the byte.

use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt;
use pinion_server::config::DisconnectPolicy;
use serde_json::{Value, json};

use crate::node::{Answer, Node, Setup, post, says};

/// A stream with its line ends shown, and without what differs each time.
fn bytes(answer: &Answer) -> String {
    let created = answer.events()[0]["created"].to_string();
    let id = answer.header("inference-id");
    let unique = id.rsplit('-').next().expect("an id");
    let text = answer.text.replace(unique, "ID").replace(&unique[8..], "ID");
    text.replace(&created, "NOW").replace('\n', "\\n\n")
}

fn streamed(content: &str, more: &Value) -> Value {
    let mut body = says(content);
    body["stream"] = json!(true);
    for (name, value) in more.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

async fn next(body: &mut Body) -> String {
    let frame = body.frame().await.expect("the stream goes on").expect("bodies do not fail");
    String::from_utf8(frame.into_data().expect("data").to_vec()).expect("text")
}

#[tokio::test]
async fn a_chat_stream_is_exactly_this() {
    let node = Node::ready().await;
    let more = json!({"stream_options": {"include_usage": true}});
    let answer =
        node.post("/v1/chat/completions", streamed("say \"Tschüß\"\n<\u{1}>", &more)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "text/event-stream");
    assert_eq!(answer.header("cache-control"), "no-cache, no-transform");
    assert_eq!(answer.header("x-accel-buffering"), "no");
    insta::assert_snapshot!(bytes(&answer));
}

#[tokio::test]
async fn a_completion_stream_is_exactly_this() {
    let node = Node::ready().await;
    let body =
        json!({"prompt": "count 2", "stream": true, "seed": 7, "logprobs": 2, "max_tokens": 1});
    insta::assert_snapshot!(bytes(&node.post("/v1/completions", body).await));
}

#[tokio::test]
async fn a_stream_with_tool_calls_is_exactly_this() {
    let node = Node::ready().await;
    let said = "say Hm. <tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"ü\"}}</tool_call>\n\
                <tool_call>{\"name\": \"g\"}</tool_call>";
    let tools = json!({"tools": [{"type": "function", "function": {"name": "f"}}]});
    insta::assert_snapshot!(bytes(
        &node.post("/v1/chat/completions", streamed(said, &tools)).await
    ));
}

#[tokio::test]
async fn every_choice_of_a_stream_has_its_own_role_text_and_end() {
    let node = Node::ready().await;
    let more =
        json!({"n": 2, "stream_options": {"include_usage": true, "continuous_usage_stats": true}});
    let answer = node.post("/v1/chat/completions", streamed("count 3", &more)).await;
    let events = answer.events();
    for index in 0..2 {
        let of_choice = |event: &&Value| event["choices"][0]["index"] == index;
        let deltas: Vec<&Value> =
            events.iter().filter(of_choice).map(|event| &event["choices"][0]["delta"]).collect();
        let expected = json!([{"role": "assistant", "content": ""}, {"content": "1"},
            {"content": " 2"}, {"content": " 3"}, {}]);
        assert_eq!(json!(deltas), expected);
    }
    let usages: Vec<u64> =
        events.iter().map(|event| event["usage"]["completion_tokens"].as_u64().unwrap()).collect();
    assert!(usages.is_sorted() && usages.last() == Some(&6), "{usages:?}");
    assert_eq!(events.last().unwrap()["choices"], json!([]));
    assert_eq!(events.last().unwrap()["usage"]["prompt_tokens"], 5);
    assert!(answer.text.ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn tokens_go_out_as_they_come_and_a_silent_stream_has_heartbeats() {
    let mut setup = Setup::default();
    setup.config.heartbeat = Duration::from_millis(1);
    let node = setup.ready().await;
    let body = streamed("wait gate", &json!({}));
    let mut body = node.send(post("/v1/chat/completions", body)).await.into_body();
    let first = next(&mut body).await;
    assert!(first.contains("\"role\":\"assistant\"") && first.contains("\"first\""), "{first}");
    for _ in 0..3 {
        assert_eq!(next(&mut body).await, ": hb\n");
    }
    node.post("/v1/completions", json!({"prompt": "open gate"})).await;
    let mut rest = String::new();
    while !rest.ends_with("[DONE]\n\n") {
        rest += &next(&mut body).await;
    }
    assert!(rest.replace(": hb\n", "").starts_with("id: chatcmpl-"), "{rest}");
    assert!(rest.contains("\" second\""), "{rest}");
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn events_that_are_ready_together_go_out_together() {
    let node = Node::ready().await;
    let body = streamed("count 40", &json!({}));
    let mut body = node.send(post("/v1/chat/completions", body)).await.into_body();
    let all = next(&mut body).await;
    assert!(all.ends_with("data: [DONE]\n\n"), "{all}");
    assert_eq!(all.matches("data: ").count(), 43);
}

#[tokio::test]
async fn a_reader_that_leaves_cancels_its_generation() {
    let mut setup = Setup::default();
    setup.config.on_disconnect = DisconnectPolicy::Cancel;
    let node = setup.ready().await;
    let body = streamed("wait forever", &json!({"n": 2}));
    let mut body = node.send(post("/v1/chat/completions", body)).await.into_body();
    next(&mut body).await;
    assert_eq!(node.cancelled().await, 0);
    drop(body);
    assert_eq!(node.cancelled().await, 2);
    assert_eq!(node.app.packages()[0].in_flight(), 0);
}

#[tokio::test]
async fn a_finished_stream_that_is_not_read_to_its_end_cancels_nothing() {
    let node = Node::ready().await;
    let response = node.send(post("/v1/chat/completions", streamed("count 2", &json!({})))).await;
    drop(response);
    assert_eq!(node.cancelled().await, 0);
}

#[tokio::test]
async fn an_error_after_the_first_token_is_the_last_event_of_the_stream() {
    let node = Node::ready().await;
    let answer = node.post("/v1/chat/completions", streamed("fail-late", &json!({}))).await;
    assert_eq!(answer.status, 200);
    let events = answer.events();
    assert_eq!(events.last().unwrap()["error"]["code"], "nan_logits");
    assert!(answer.text.contains("\"first\""), "{}", answer.text);
    assert!(!answer.text.contains("[DONE]"), "{}", answer.text);
}

#[tokio::test]
async fn a_choice_that_is_refused_while_another_begins_refuses_the_request() {
    let node = Node::ready().await;
    let prompts = json!(["queue gate", "fail-beside context_length_exceeded"]);
    let answer = node.post("/v1/completions", json!({"prompt": prompts, "stream": true})).await;
    assert_eq!(answer.error().1, "context_length_exceeded");
}

#[tokio::test]
async fn what_is_refused_before_the_first_token_has_its_own_status() {
    let node = Node::ready().await;
    let answer = node
        .post("/v1/chat/completions", streamed("fail context_length_exceeded", &json!({})))
        .await;
    let param = Some("messages".to_owned());
    assert_eq!(answer.error(), (400, "context_length_exceeded".to_owned(), param));
    assert_eq!(answer.header("content-type"), "application/json");
    assert!(answer.text.contains("hint: read the script"), "{}", answer.text);
}
