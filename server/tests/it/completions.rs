//! The completions endpoint: its prompts, and where it differs from chat.

use pinion_server::ipc::{GenerationParams, Prompt};
use serde_json::{Value, json};

use crate::node::Node;

fn shown(choice: &Value) -> (Prompt, GenerationParams) {
    serde_json::from_str(choice["text"].as_str().expect("text")).expect("what the worker got")
}

#[tokio::test]
async fn an_answer_has_the_shape_that_clients_check() {
    let node = Node::ready().await;
    let body = json!({"model": "tiny", "prompt": "count 2", "seed": 7, "logprobs": 1});
    let mut json = node.post("/v1/completions", body).await.json();
    let id = json["id"].take();
    assert!(id.as_str().is_some_and(|id| id.starts_with("cmpl-")), "{id}");
    json["created"].take();
    let expected = json!({
        "id": null,
        "object": "text_completion",
        "created": null,
        "model": "tiny",
        "choices": [{
            "index": 0,
            "text": "1 2",
            "logprobs": {
                "tokens": ["1", " 2"],
                "token_logprobs": [-0.5, -0.5],
                "top_logprobs": [{"1": -0.5}, {" 2": -0.5}],
                "text_offset": [0, 1],
            },
            "finish_reason": "stop",
        }],
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 2,
            "total_tokens": 7,
            "prompt_tokens_details": {"cached_tokens": 2},
        },
        "seed": 7,
    });
    assert_eq!(json, expected);
}

#[tokio::test]
async fn prompts_come_in_four_forms() {
    let node = Node::ready().await;
    let text = |text: &str| Prompt::Text(text.to_owned());
    let cases = [
        (json!("show"), vec![text("show")]),
        (json!(["show a", "show b"]), vec![text("show a"), text("show b")]),
        (json!([1, 2, 3]), vec![Prompt::Tokens(vec![1, 2, 3])]),
        (json!([[1], [2, 3]]), vec![Prompt::Tokens(vec![1]), Prompt::Tokens(vec![2, 3])]),
    ];
    for (prompt, expected) in cases {
        let json = node.post("/completions", json!({"prompt": prompt})).await.json();
        let choices = json["choices"].as_array().expect("choices");
        let got: Vec<Prompt> = choices.iter().map(|choice| shown(choice).0).collect();
        assert_eq!(got, expected);
        assert_eq!(json["usage"]["prompt_tokens"], 5 * expected.len());
        assert_eq!(shown(&choices[0]).1.max_tokens, Some(16));
    }
}

#[tokio::test]
async fn choices_are_numbered_through_all_prompts() {
    let node = Node::ready().await;
    let body = json!({"prompt": ["count 1", "count 2"], "n": 2});
    let json = node.post("/v1/completions", body).await.json();
    let choices = json["choices"].as_array().expect("choices");
    let texts: Vec<&Value> = choices.iter().map(|choice| &choice["text"]).collect();
    assert_eq!(texts, ["1", "1", "1 2", "1 2"]);
    assert_eq!(json["usage"]["prompt_tokens"], 10);
    assert_eq!(json["usage"]["completion_tokens"], 6);
}

#[tokio::test]
async fn echo_reaches_the_worker_and_makes_no_tokens_a_valid_number() {
    let node = Node::ready().await;
    let body = json!({"prompt": "show", "echo": true});
    let json = node.post("/v1/completions", body).await.json();
    assert!(shown(&json["choices"][0]).1.echo);
    let body = json!({"prompt": "count 2", "echo": true, "max_tokens": 0});
    let json = node.post("/v1/completions", body).await.json();
    assert_eq!(json["choices"][0]["finish_reason"], "length");
    assert_eq!(json["usage"]["completion_tokens"], 0);
}

#[tokio::test]
async fn the_token_itself_is_among_its_rivals_whatever_their_number() {
    let node = Node::ready().await;
    let body = json!({"prompt": "count 1", "logprobs": 0});
    let json = node.post("/v1/completions", body).await.json();
    assert_eq!(json["choices"][0]["logprobs"]["top_logprobs"], json!([{"1": -0.5}]));
}
