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
