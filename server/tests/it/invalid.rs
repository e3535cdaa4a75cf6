//! Every invalid value has its own error, which says where it is and what would be right.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::node::{Node, Setup, says};

/// Fields of any request, and the field that the error names.
fn wrong_anywhere() -> Vec<(Value, &'static str)> {
    vec![
        (json!({"temperature": 2.5}), "temperature"),
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"temperature": -0.1}), "temperature"),
        (json!({"top_p": 0}), "top_p"),
        (json!({"top_p": 1.5}), "top_p"),
        (json!({"top_k": -2}), "top_k"),
        (json!({"top_k": 1.5}), "top_k"),
        (json!({"min_p": 2}), "min_p"),
        (json!({"presence_penalty": 3}), "presence_penalty"),
        (json!({"frequency_penalty": -3}), "frequency_penalty"),
        (json!({"repetition_penalty": 0}), "repetition_penalty"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"max_completion_tokens": -1}), "max_completion_tokens"),
        (json!({"max_tokens": 5_000_000_000_u64}), "max_tokens"),
        (json!({"max_tokens": 3, "min_tokens": 4}), "min_tokens"),
        (json!({"n": 0}), "n"),
        (json!({"n": 129}), "n"),
        (json!({"n": 2, "best_of": 3}), "best_of"),
        (json!({"seed": 1.5}), "seed"),
        (json!({"stop": 3}), "stop"),
        (json!({"stop": ["a", ""]}), "stop[1]"),
        (json!({"stop_token_ids": [1, -1]}), "stop_token_ids[1]"),
        (json!({"logit_bias": {"x": 1}}), "logit_bias"),
        (json!({"logit_bias": {"5": 101}}), "logit_bias.5"),
        (json!({"logit_bias": biases(1025)}), "logit_bias"),
        (json!({"stop_token_ids": vec![0; 65]}), "stop_token_ids"),
        (json!({"stop": vec!["a"; 65]}), "stop"),
        (json!({"logprobs_mode": "raw_logits"}), "logprobs_mode"),
        (json!({"cache_salt": 5}), "cache_salt"),
        (json!({"speculative_tokens": 33}), "speculative_tokens"),
        (json!({"prompt_cache_key": 5}), "prompt_cache_key"),
        (json!({"logprobs": "3"}), "logprobs"),
        (json!({"stream": "yes"}), "stream"),
        (
            json!({"stream": true, "stream_options": {"include_usage": 1}}),
            "stream_options.include_usage",
        ),
        (json!({"model": 7}), "model"),
    ]
}

fn biases(count: usize) -> serde_json::Map<String, Value> {
    (0..count).map(|id| (id.to_string(), json!(1))).collect()
}

/// Fields of a chat request, and the field that the error names.
fn wrong_in_chat() -> Vec<(Value, &'static str)> {
    vec![
        (json!({"logprobs": true, "top_logprobs": 21}), "top_logprobs"),
        (json!({"top_logprobs": 2}), "top_logprobs"),
        (json!({"echo": true}), "echo"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": null}), "messages"),
        (json!({"messages": "hi"}), "messages"),
        (json!({"messages": ["hi"]}), "messages[0]"),
        (json!({"messages": [{"content": "hi"}]}), "messages[0].role"),
        (json!({"messages": [{"role": "robot", "content": "hi"}]}), "messages[0].role"),
        (json!({"messages": [{"role": "user"}]}), "messages[0].content"),
        (json!({"messages": [{"role": "user", "content": 5}]}), "messages[0].content"),
        (json!({"messages": [{"role": "assistant"}]}), "messages[0].content"),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}),
            "messages[0].content[0].type",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "text"}]}]}),
            "messages[0].content[0].text",
        ),
        (
            json!({"messages": [{"role": "user", "content": "x", "tool_calls": []}]}),
            "messages[0].tool_calls",
        ),
        (
            json!({"messages": [{"role": "assistant", "tool_calls": [{"function": {}}]}]}),
            "messages[0].tool_calls[0].function.name",
        ),
        (json!({"tools": [{"type": "function"}]}), "tools[0].function"),
        (json!({"tools": [{"type": "web_search"}]}), "tools[0].type"),
        (
            json!({"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]}),
            "tools[0].function.parameters",
        ),
        (json!({"tool_choice": "required"}), "tool_choice"),
        (json!({"tool_choice": {"type": "function", "function": {"name": "f"}}}), "tool_choice"),
        (json!({"tool_choice": "maybe"}), "tool_choice"),
        (json!({"response_format": {"type": "json_object"}}), "response_format.type"),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {}}}),
            "response_format.type",
        ),
        (json!({"response_format": {"type": "xml"}}), "response_format.type"),
        (json!({"chat_template_kwargs": []}), "chat_template_kwargs"),
        (json!({"chat_template": "{{ x }}"}), "chat_template"),
        (json!({"continue_final_message": true}), "continue_final_message"),
        (json!({"add_generation_prompt": false}), "add_generation_prompt"),
        (json!({"guided_json": {"type": "object"}}), "guided_json"),
        (json!({"functions": [{"name": "f"}]}), "functions"),
        (json!({"modalities": ["text", "audio"]}), "modalities"),
    ]
}

/// Fields of a request of the completions endpoint, and the field that the error names.
fn wrong_in_completions() -> Vec<(Value, &'static str)> {
    vec![
        (json!({"prompt": null}), "prompt"),
        (json!({"prompt": []}), "prompt"),
        (json!({"prompt": {"text": "x"}}), "prompt"),
        (json!({"prompt": ["a", 1]}), "prompt[1]"),
        (json!({"prompt": [1, "a"]}), "prompt[1]"),
        (json!({"prompt": [[1], []]}), "prompt[1]"),
        (json!({"prompt": [[1], [2, -3]]}), "prompt[1][1]"),
        (json!({"prompt": vec!["a"; 100], "n": 11}), "n"),
        (json!({"logprobs": 6}), "logprobs"),
        (json!({"echo": "yes"}), "echo"),
        (json!({"suffix": "end"}), "suffix"),
        (json!({"best_of": 2}), "best_of"),
    ]
}

async fn check(node: &Node, path: &str, base: &Value, cases: Vec<(Value, &str)>) {
    for (fields, param) in cases {
        let mut body = base.clone();
        let fields = fields.as_object().expect("an object").clone();
        body.as_object_mut().expect("an object").extend(fields);
        let answer = node.post(path, body).await;
        let (status, code, named) = answer.error();
        assert_eq!((status, named.as_deref()), (400, Some(param)), "{}", answer.text);
        assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
        let known = ["invalid_value", "missing_required_parameter", "unsupported_parameter"];
        assert!(known.contains(&code.as_str()), "{code}");
        assert_eq!(answer.header("x-should-retry"), "false");
    }
}

#[tokio::test]
async fn every_wrong_field_is_named() {
    let node = Node::ready().await;
    let base = says("count 1");
    check(&node, "/v1/chat/completions", &base, wrong_anywhere()).await;
    check(&node, "/v1/chat/completions", &base, wrong_in_chat()).await;
    let base = json!({"prompt": "count 1"});
    check(&node, "/v1/completions", &base, wrong_anywhere()).await;
    check(&node, "/v1/completions", &base, wrong_in_completions()).await;
    assert_eq!(node.cancelled().await, 0);
}

#[tokio::test]
async fn an_error_shows_what_was_sent_and_what_would_be_right() {
    let node = Node::ready().await;
    let message = |answer: crate::node::Answer| answer.json()["error"]["message"].clone();
    let mut body = says("hi");
    body["temperature"] = json!(3);
    let wrong = message(node.post("/v1/chat/completions", body).await);
    assert_eq!(wrong, "`temperature` must be a number from 0 to 2: 3");
    let mut body = says("hi");
    body["stop"] = json!({"long": "x".repeat(500)});
    let wrong = message(node.post("/v1/chat/completions", body).await);
    assert!(wrong.as_str().is_some_and(|text| text.len() < 150), "{wrong}");
}

#[tokio::test]
async fn unknown_models_are_not_found_and_a_choice_of_several_must_be_named() {
    let node =
        Setup { packages: vec![("a", "cpu"), ("b", "cpu")], ..Setup::default() }.ready().await;
    let mut body = says("count 1");
    let unnamed = node.post("/v1/chat/completions", body.clone()).await;
    assert_eq!(unnamed.error(), (400, "missing_model".to_owned(), Some("model".to_owned())));
    body["model"] = json!("gpt-9");
    let unknown = node.post("/v1/chat/completions", body).await;
    assert_eq!(unknown.error(), (404, "model_not_found".to_owned(), Some("model".to_owned())));
    assert!(unknown.text.contains("served: a, b"), "{}", unknown.text);
}

async fn raw(node: &Node, content_type: &str, body: impl Into<Body>) -> crate::node::Answer {
    let request = Request::post("/v1/chat/completions").header("content-type", content_type);
    node.ask(request.body(body.into()).expect("a valid request")).await
}

#[tokio::test]
async fn malformed_json_is_answered_with_its_position() {
    let node = Node::ready().await;
    let json = "application/json";
    let cut = raw(&node, json, "{\n  \"messages\": [").await;
    assert_eq!(cut.error(), (400, "invalid_json".to_owned(), None));
    assert!(cut.text.contains("line 2 column 15"), "{}", cut.text);
    let deep = "[".repeat(10_000);
    for body in ["", "[]", "null", "{\"a\": \"\\ud800\"}", &deep] {
        assert_eq!(raw(&node, json, body.to_owned()).await.error().1, "invalid_json", "{body}");
    }
    let not_utf8 = raw(&node, json, &b"{\"a\": \"\xff\"}"[..]).await;
    assert_eq!(not_utf8.error().1, "invalid_json");
}

#[tokio::test]
async fn other_content_types_are_refused() {
    let node = Node::ready().await;
    for wrong in ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonx"] {
        let answer = raw(&node, wrong, says("count 1").to_string()).await;
        assert_eq!(answer.error(), (415, "unsupported_media_type".to_owned(), None), "{wrong}");
    }
    for right in ["application/json; charset=utf-8", "Application/JSON", "application/ld+json"] {
        assert_eq!(raw(&node, right, says("count 1").to_string()).await.status, 200, "{right}");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let node = Node::ready().await;
    let answer = node.post("/v1/chat/completions", says(&"x".repeat(65_536))).await;
    assert_eq!(answer.error(), (413, "request_too_large".to_owned(), None));
    let fits = node.post("/v1/chat/completions", says(&"x".repeat(65_000))).await;
    assert_eq!(fits.status, 200);
}

#[tokio::test]
async fn wrong_paths_and_methods_have_errors_in_the_same_form() {
    let node = Node::ready().await;
    assert_eq!(node.get("/v1/nothing").await.error(), (404, "not_found".to_owned(), None));
    let answer = node.get("/v1/chat/completions").await;
    assert_eq!(answer.error(), (405, "method_not_allowed".to_owned(), None));
    assert_eq!(answer.header("allow"), "POST");
}
