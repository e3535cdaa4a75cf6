//! Chat answers in one piece, and what the worker is told.

use pinion_engine::RouteClass;
use pinion_server::ipc::{GenerationParams, Prompt, Urgency};
use serde_json::{Value, json};

use crate::node::{Answer, Node, says};

#[expect(clippy::needless_pass_by_value, reason = "callers build it in place")]
fn with(content: &str, more: Value) -> Value {
    let mut body = says(content);
    let more = more.as_object().expect("an object").clone();
    body.as_object_mut().expect("an object").extend(more);
    body
}

/// What the worker got, from an answer to `show`.
fn shown(answer: &Answer) -> (Prompt, GenerationParams) {
    let json = answer.json();
    let text = json["choices"][0]["message"]["content"].as_str().unwrap_or_default();
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {}", answer.text))
}

#[tokio::test]
async fn a_chat_answer_has_the_shape_that_clients_check() {
    let node = Node::ready().await;
    let answer = node.post("/v1/chat/completions", says("count 3")).await;
    assert_eq!(answer.status, 200);
    let mut json = answer.json();
    let id = json["id"].take();
    let id = id.as_str().expect("an id");
    assert!(id.starts_with("chatcmpl-n1-") && id.len() == 12 + 32, "{id}");
    assert_eq!(answer.header("inference-id"), id);
    assert!(1_700_000_000 < json["created"].take().as_i64().expect("seconds"));
    let expected = json!({
        "id": null,
        "object": "chat.completion",
        "created": null,
        "model": "tiny",
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": "1 2 3", "refusal": null},
            "logprobs": null,
            "finish_reason": "stop",
        }],
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 3,
            "total_tokens": 8,
            "prompt_tokens_details": {"cached_tokens": 2},
        },
        "seed": 7,
    });
    assert_eq!(json, expected);
    let bare = node.post("/chat/completions", says("count 3")).await;
    assert_eq!(bare.json()["choices"], expected["choices"]);
}

#[tokio::test]
async fn a_limit_of_tokens_ends_the_answer_with_length() {
    let node = Node::ready().await;
    let body = with("count 9", json!({"max_tokens": 9, "max_completion_tokens": 2}));
    let json = node.post("/v1/chat/completions", body).await.json();
    assert_eq!(json["choices"][0]["message"]["content"], "1 2");
    assert_eq!(json["choices"][0]["finish_reason"], "length");
    assert_eq!(json["usage"]["completion_tokens"], 2);
}

#[tokio::test]
async fn every_parameter_reaches_the_worker() {
    let node = Node::ready().await;
    let more = json!({
        "model": "tiny", "max_tokens": 40, "min_tokens": 2, "temperature": 0.5, "top_p": 0.25,
        "top_k": 3, "min_p": 0.125, "repetition_penalty": 1.5, "presence_penalty": -0.5,
        "frequency_penalty": 2, "logit_bias": {"17": -100, "4": 0.5}, "stop": ["a", "b"],
        "stop_token_ids": [5, 6], "ignore_eos": true, "logprobs": true, "top_logprobs": 2,
        "skip_special_tokens": false, "include_stop_str_in_output": true,
        "speculative_tokens": 5, "logprobs_mode": "processed_logprobs", "prompt_cache_key": "k", "unknown_field": {"x": 1}, "user": "u", "store": false,
        "metadata": {"k": "v", "route_class": "reasoning"}, "service_tier": "auto",
    });
    let (_, params) = shown(&node.post("/v1/chat/completions", with("show", more)).await);
    let expected = GenerationParams {
        max_tokens: Some(40),
        min_tokens: 2,
        temperature: Some(0.5),
        top_p: Some(0.25),
        top_k: Some(3),
        min_p: 0.125,
        seed: 7,
        repetition_penalty: 1.5,
        presence_penalty: -0.5,
        frequency_penalty: 2.0,
        logit_bias: vec![(17, -100.0), (4, 0.5)],
        stop: vec!["a".to_owned(), "b".to_owned()],
        stop_token_ids: vec![5, 6],
        ignore_eos: true,
        include_stop: true,
        logprobs: Some(2),
        processed_logprobs: true,
        echo: false,
        speculative_tokens: Some(5),
        cache_salt: [0; 2],
        keep_special_tokens: true,
        urgency: Urgency { class: RouteClass::Reasoning, deadline_millis: None },
    };
    assert_eq!(params, expected);
}

#[tokio::test]
async fn absent_and_null_parameters_are_left_to_the_package() {
    let node = Node::ready().await;
    let more = json!({"temperature": null, "stop": null, "max_tokens": null, "tools": null,
        "logit_bias": null, "logprobs": false, "top_logprobs": null, "stream": false,
        "response_format": {"type": "text"}, "continue_final_message": false, "top_k": -1});
    let (_, params) = shown(&node.post("/v1/chat/completions", with("show", more)).await);
    let expected = GenerationParams { seed: 7, top_k: Some(0), ..GenerationParams::default() };
    assert_eq!(params, expected);
}

#[tokio::test]
async fn a_request_without_a_seed_reports_the_one_it_was_given() {
    let node = Node::ready().await;
    let mut seeds = Vec::new();
    for _ in 0..2 {
        let answer = node.post("/v1/chat/completions", with("show", json!({"seed": null}))).await;
        let (_, params) = shown(&answer);
        assert_eq!(answer.json()["seed"], params.seed);
        assert!(params.seed < 1 << 53, "{}", params.seed);
        seeds.push(params.seed);
    }
    assert_ne!(seeds[0], seeds[1]);
    let (_, params) =
        shown(&node.post("/v1/chat/completions", with("show", json!({"seed": -1}))).await);
    assert_eq!(params.seed, u64::MAX);
}

#[tokio::test]
async fn messages_reach_the_template_in_one_form() {
    let node = Node::ready().await;
    let body = json!({"messages": [
        {"role": "developer", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
        {"role": "assistant", "tool_calls": [{"id": "c", "type": "function",
            "function": {"name": "f", "arguments": "{\"a\": 1}"}}]},
        {"role": "tool", "tool_call_id": "c", "content": "42"},
        {"role": "user", "content": "show", "name": "me"},
    ], "chat_template_kwargs": {"enable_thinking": false}, "reasoning_effort": "low"});
    let (prompt, _) = shown(&node.post("/v1/chat/completions", body).await);
    let Prompt::Chat { messages, tools, template_kwargs, .. } = prompt else {
        panic!("a chat prompt: {prompt:?}");
    };
    let messages: Value = serde_json::from_str(&messages).expect("JSON");
    let expected = json!([
        {"role": "system", "content": "one\ntwo"},
        {"role": "assistant", "tool_calls": [{"id": "c", "type": "function",
            "function": {"name": "f", "arguments": {"a": 1}}}]},
        {"role": "tool", "tool_call_id": "c", "content": "42"},
        {"role": "user", "content": "show", "name": "me"},
    ]);
    assert_eq!(messages, expected);
    assert_eq!(tools, None);
    let kwargs = r#"{"enable_thinking":false,"reasoning_effort":"low"}"#;
    assert_eq!(template_kwargs.as_deref(), Some(kwargs));
}

#[tokio::test]
async fn choices_have_seeds_of_their_own_and_share_the_prompt_in_usage() {
    let node = Node::ready().await;
    let answer = node.post("/v1/chat/completions", with("show", json!({"n": 3}))).await;
    let json = answer.json();
    let choices = json["choices"].as_array().expect("choices");
    let seed = |choice: &Value| {
        let text = choice["message"]["content"].as_str().expect("text");
        let (_, params): (Prompt, GenerationParams) = serde_json::from_str(text).expect("params");
        params.seed
    };
    let seeds: Vec<u64> = choices.iter().map(seed).collect();
    assert_eq!(seeds[0], 7);
    assert!(seeds[1] != 7 && seeds[2] != 7 && seeds[1] != seeds[2], "{seeds:?}");
    assert_eq!(choices.iter().map(|c| &c["index"]).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(json["usage"]["prompt_tokens"], 5);
    assert_eq!(json["usage"]["completion_tokens"], 3);
    assert_eq!(json["usage"]["prompt_tokens_details"]["cached_tokens"], 2);
}

#[tokio::test]
async fn logprobs_name_each_token_and_its_rivals() {
    let node = Node::ready().await;
    let body = with("count 1", json!({"logprobs": true, "top_logprobs": 2}));
    let json = node.post("/v1/chat/completions", body).await.json();
    let expected = json!({"content": [{
        "token": "1", "logprob": -0.5, "bytes": [49],
        "top_logprobs": [
            {"token": "1", "logprob": -0.5, "bytes": [49]},
            {"token": "x", "logprob": -9999.0, "bytes": [120]},
        ],
    }], "refusal": null});
    assert_eq!(json["choices"][0]["logprobs"], expected);
}

#[tokio::test]
async fn tool_calls_in_the_text_become_tool_calls_of_the_message() {
    let node = Node::ready().await;
    let said =
        "say Let me see. <tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</tool_call>";
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {}}}]);
    let json = node.post("/v1/chat/completions", with(said, json!({"tools": tools}))).await.json();
    let choice = &json["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(choice["message"]["content"], "Let me see.");
    let call = &choice["message"]["tool_calls"][0];
    assert_eq!(call["type"], "function");
    assert_eq!(call["function"], json!({"name": "f", "arguments": "{\"a\":1}"}));
    assert!(call["id"].as_str().is_some_and(|id| id.starts_with("call_")), "{call}");

    let without = node.post("/v1/chat/completions", says(said)).await.json();
    assert_eq!(without["choices"][0]["message"]["content"], said["say ".len()..]);
    assert_eq!(without["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn the_model_sees_tools_unless_it_must_not_call_them() {
    let node = Node::ready().await;
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    for (choice, seen) in [(json!(null), true), (json!("auto"), true), (json!("none"), false)] {
        let body = with("show", json!({"tools": tools, "tool_choice": choice}));
        let (prompt, _) = shown(&node.post("/v1/chat/completions", body).await);
        let Prompt::Chat { tools: shown, .. } = prompt else { panic!("a chat prompt") };
        assert_eq!(shown.is_some(), seen, "{choice}");
    }
    let body = with("show", json!({"tools": tools, "parallel_tool_calls": false}));
    let (_, params) = shown(&node.post("/v1/chat/completions", body).await);
    assert_eq!(params.stop, ["</tool_call>"]);
}

#[tokio::test]
async fn prefix_caches_are_shared_only_under_the_same_salt() {
    let node = Node::ready().await;
    let mut salts = Vec::new();
    for more in [
        json!({}),
        json!({"cache_salt": "a"}),
        json!({"cache_salt": "a", "prompt_cache_key": "k"}),
        json!({"cache_salt": "b"}),
        json!({"prompt_cache_key": "a"}),
    ] {
        let (_, params) = shown(&node.post("/v1/chat/completions", with("show", more)).await);
        salts.push(params.cache_salt);
    }
    assert_eq!(salts[0], [0; 2]);
    assert_eq!(salts[1], salts[2]);
    assert!(salts[1] != salts[0] && salts[1] != salts[3], "{salts:?}");
    assert_eq!(salts[4], salts[0], "a hint for routers separates nothing");
}
