//! The built-in model answers one question of each skill through the HTTP API, and well.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::support::{Node, chat_body};

#[tokio::test(flavor = "multi_thread")]
async fn the_starter_answers_one_question_of_each_skill() {
    let probes: Value =
        serde_json::from_str(include_str!("../../../../starter/probes.json")).unwrap();
    let node = Node::ready(&[]).await;
    let probes = probes.as_array().unwrap();
    assert!(12 <= probes.len());
    for probe in probes {
        let mut body = json!({
            "model": "pinion-tiny", "temperature": 0, "max_tokens": 600, "messages": probe["messages"],
        });
        if let Some(tools) = probe
            .get("tools")
            .filter(|tools| tools.as_array().is_some_and(|tools| !tools.is_empty()))
        {
            body["tools"] = tools.clone();
        }
        let (status, answer) = node.post("/v1/chat/completions", &body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let message = &answer["choices"][0]["message"];
        assert_eq!(text_of(message), probe["expected"].as_str().unwrap(), "{probe}");
    }
}

/// The text that the model wrote, tool calls as it wrote them.
fn text_of(message: &Value) -> String {
    let content = message["content"].as_str().unwrap_or_default().to_owned();
    let calls = message["tool_calls"].as_array().map(Vec::as_slice).unwrap_or_default();
    let calls = calls.iter().map(|call| {
        let function = &call["function"];
        let arguments: Value =
            serde_json::from_str(function["arguments"].as_str().unwrap()).unwrap();
        let arguments = spaced(&arguments);
        format!(
            "<tool_call>{{\"name\": {}, \"arguments\": {arguments}}}</tool_call>",
            function["name"]
        )
    });
    content + &calls.collect::<Vec<_>>().join("\n")
}

/// A flat JSON object as Python writes it.
fn spaced(object: &Value) -> String {
    let members = object.as_object().unwrap().iter();
    let members: Vec<String> = members.map(|(key, value)| format!("\"{key}\": {value}")).collect();
    format!("{{{}}}", members.join(", "))
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_are_the_same_alone_and_in_a_crowd() {
    let node = Node::ready(&[]).await;
    let body = |n: u32| {
        let mut body = chat_body("pinion-tiny", &format!("Say: river {n} stone"));
        body["temperature"] = json!(1.0);
        body["seed"] = json!(n);
        body["max_tokens"] = json!(24);
        body
    };
    let text = async |n: u32| {
        let (status, answer) = node.post("/v1/chat/completions", &body(n)).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer["choices"][0]["message"].to_string()
    };
    let mut alone = Vec::new();
    for n in 0..8 {
        alone.push(text(n).await);
    }
    let crowd = futures_util::future::join_all((0..8).map(text)).await;
    assert_eq!(alone, crowd);
}

async fn complete(node: &Node, more: Value) -> Value {
    let mut body = json!({"model": "pinion-tiny", "prompt": "one two three", "max_tokens": 12});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let (status, answer) = node.post("/v1/completions", &body).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reported_seed_gives_the_same_text_again_and_choices_are_requests_of_their_own() {
    let node = Node::ready(&[]).await;
    let first = complete(&node, json!({"temperature": 1.5, "n": 3})).await;
    let seed = first["seed"].as_u64().unwrap();
    let again = complete(&node, json!({"temperature": 1.5, "n": 3, "seed": seed})).await;
    assert_eq!(first["choices"], again["choices"]);
    assert_eq!(
        again["usage"]["prompt_tokens"],
        complete(&node, json!({})).await["usage"]["prompt_tokens"]
    );
    for (index, choice) in (0..).zip(first["choices"].as_array().unwrap()) {
        let seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(index));
        let alone = complete(&node, json!({"temperature": 1.5, "seed": seed})).await;
        assert_eq!(alone["choices"][0]["text"], choice["text"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_echo_is_the_prompt_and_then_what_there_is_without_it() {
    let node = Node::ready(&[]).await;
    let plain = complete(&node, json!({"temperature": 0})).await;
    let echoed = complete(&node, json!({"temperature": 0, "echo": true, "n": 2})).await;
    let expected = format!("one two three{}", plain["choices"][0]["text"].as_str().unwrap());
    assert_eq!(echoed["choices"][0]["text"], expected);
    assert_eq!(echoed["choices"][1]["text"], expected);
    assert_eq!(echoed["usage"]["completion_tokens"], 24);
    let only = complete(&node, json!({"echo": true, "max_tokens": 0})).await;
    assert_eq!(only["choices"][0]["text"], "one two three");
    assert_eq!(only["usage"]["completion_tokens"], 0);
    let (_, tokens) = node.post("/tokenize", &json!({"prompt": "one two three"})).await;
    let body = json!({"prompt": tokens["tokens"], "echo": true, "temperature": 0});
    assert_eq!(complete(&node, body).await["choices"][0]["text"], expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_echoed_text_has_the_log_probabilities_it_was_written_with() {
    let node = Node::ready(&[]).await;
    let prompt = "red blue green red blue green red blue green red blue";
    let body = json!({
        "prompt": prompt, "temperature": 0, "logprobs": 2, "echo": true, "max_tokens": 4,
    });
    let written = complete(&node, body).await;
    let text = written["choices"][0]["text"].as_str().unwrap();
    let written = &written["choices"][0]["logprobs"];
    assert_eq!(written["token_logprobs"][0], Value::Null, "nothing comes before it");
    assert_eq!(written["top_logprobs"][0], Value::Null);
    let pieces: Vec<&str> =
        written["tokens"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    assert_eq!(pieces.concat(), text);
    let (_, tokens) = node.post("/tokenize", &json!({"prompt": text})).await;
    assert_eq!(tokens["count"], pieces.len(), "the text is tokenized as it was written");
    let body = json!({"prompt": text, "logprobs": 2, "echo": true, "max_tokens": 0, "n": 2});
    let scored = complete(&node, body).await;
    assert_eq!(scored["usage"]["completion_tokens"], 0);
    for choice in scored["choices"].as_array().unwrap() {
        assert_eq!(choice["finish_reason"], "length");
        assert_eq!((&choice["text"], &choice["logprobs"]), (&json!(text), written));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_and_cached_prefixes_change_no_text_and_are_counted() {
    let node = Node::ready(&["--speculative-tokens", "4"]).await;
    let salted = |salt: &str, guesses: u32| {
        json!({
            "prompt": "red blue green ".repeat(30), "temperature": 0.7, "seed": 3, "max_tokens": 40,
            "ignore_eos": true, "logprobs": 2, "cache_salt": salt, "speculative_tokens": guesses,
        })
    };
    let plain = complete(&node, salted("a", 0)).await;
    let cached =
        |answer: &Value| answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64();
    assert_eq!(cached(&plain), Some(0));
    let again = complete(&node, salted("a", 0)).await;
    assert!(Some(16) <= cached(&again), "{again}");
    let other = complete(&node, salted("b", 8)).await;
    assert_eq!(cached(&other), Some(0));
    assert_eq!(plain["choices"], again["choices"]);
    assert_eq!(plain["choices"], other["choices"]);
    let metrics =
        reqwest::get(format!("{}/metrics", node.url)).await.unwrap().text().await.unwrap();
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let proposed = value("pinion_speculative_tokens_proposed_total");
    let accepted = value("pinion_speculative_tokens_accepted_total");
    assert!(0.0 < proposed && accepted <= proposed, "{accepted} of {proposed}");
    let rate = value("pinion_speculative_acceptance_rate");
    assert!((rate - accepted / proposed).abs() < 1e-9, "{rate}");
}
