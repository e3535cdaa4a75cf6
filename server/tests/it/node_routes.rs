//! Models, tokens, health, metrics and documentation.

use axum::body::Body;
use axum::http::Request;
use pinion_server::routes::{ROUTES, node_openapi};
use pinion_server::telemetry::METRICS;
use serde_json::{Value, json};

use crate::node::{Node, Setup, says};

#[tokio::test]
async fn models_are_listed_and_described() {
    let node =
        Setup { packages: vec![("org/a", "cpu"), ("b", "cpu")], ..Setup::default() }.ready().await;
    let list = node.get("/v1/models").await.json();
    assert_eq!(list["object"], "list");
    let ids: Vec<&Value> =
        list["data"].as_array().unwrap().iter().map(|model| &model["id"]).collect();
    assert_eq!(ids, ["org/a", "b"]);
    for path in ["/v1/models/org/a", "/models/org%2Fa"] {
        let mut model = node.get(path).await.json();
        assert!(model["created"].take().is_i64());
        let expected = json!({"id": "org/a", "object": "model", "created": null,
            "owned_by": "pinion", "root": "org/a", "parent": null, "max_model_len": 512,
            "is_ready": true});
        assert_eq!(model, expected);
    }
    assert_eq!(node.get("/v1/models/c").await.error().1, "model_not_found");
}

#[tokio::test]
async fn text_becomes_tokens_and_tokens_text() {
    let node = Node::ready().await;
    let tokens = node.post("/tokenize", json!({"model": "tiny", "prompt": "hé"})).await.json();
    let expected =
        json!({"count": 2, "max_model_len": 512, "tokens": [104, 233], "token_strs": null});
    assert_eq!(tokens, expected);
    assert_eq!(node.post("/tokenize", says("hi")).await.json()["tokens"], json!([104, 105]));
    let text = node.post("/detokenize", json!({"tokens": [104, 233]})).await.json();
    assert_eq!(text, json!({"prompt": "hé"}));
    let unknown = node.post("/detokenize", json!({"tokens": [0xD800]})).await;
    assert_eq!(unknown.error().1, "unknown_token");
    let missing = node.post("/tokenize", json!({})).await;
    assert_eq!(missing.error().2.as_deref(), Some("prompt"));
}

#[tokio::test]
async fn a_node_that_serves_says_so() {
    let node = Node::ready().await;
    for path in ["/readyz", "/health"] {
        let answer = node.get(path).await;
        let expected = json!({"status": "ready", "packages": [{"name": "tiny", "state": "ready"}],
            "streams": {"durability": "memory"}});
        assert_eq!((answer.status.as_u16(), answer.json()), (200, expected));
    }
    assert_eq!(node.get("/livez").await.json(), json!({"status": "ok"}));
    node.app.stopping().cancel();
    let answer = node.get("/readyz").await;
    assert_eq!((answer.status.as_u16(), &answer.json()["status"]), (503, &json!("draining")));
}

#[tokio::test]
async fn metrics_carry_the_names_that_gateways_read() {
    let node = Node::ready().await;
    node.post("/v1/chat/completions", says("count 3")).await;
    node.get("/nothing/of/that/name").await;
    let answer = node.get("/metrics").await;
    assert!(answer.header("content-type").starts_with("text/plain; version=0.0.4"));
    let text = answer.text;
    for line in [
        "vllm:num_requests_running{model_name=\"tiny\"} 0",
        "vllm:num_requests_waiting{model_name=\"tiny\"} 0",
        "pinion_class_requests{package=\"tiny\",class=\"default\",state=\"waiting\"} 2",
        "pinion_class_requests{package=\"tiny\",class=\"latency\",state=\"running\"} 0",
        "vllm:kv_cache_usage_perc{model_name=\"tiny\"} 0.25",
        "vllm:cache_config_info{model_name=\"tiny\",block_size=\"16\",num_gpu_blocks=\"8\"} 1",
        "vllm:request_success_total{model_name=\"tiny\",finished_reason=\"stop\"} 1",
        "pinion_requests_total{package=\"tiny\",outcome=\"stop\"} 1",
        "pinion_time_to_first_token_seconds_count{package=\"tiny\"} 1",
        "vllm:inter_token_latency_seconds_count{model_name=\"tiny\"} 2",
        "gen_ai_server_request_duration_seconds_bucket{gen_ai_request_model=\"tiny\",le=\"+Inf\"} 1",
        "pinion_package_state{package=\"tiny\",state=\"ready\"} 1",
        "pinion_package_state{package=\"tiny\",state=\"failed\"} 0",
        "pinion_worker_deaths_total{package=\"tiny\"} 0",
        "pinion_http_requests_total{method=\"POST\",route=\"/v1/chat/completions\",status=\"200\"} 1",
        "pinion_http_requests_total{method=\"GET\",route=\"unmatched\",status=\"404\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    for metric in METRICS {
        assert!(text.contains(&format!("# TYPE {} ", metric.name)), "{}", metric.name);
    }
}

#[tokio::test]
async fn the_documentation_covers_every_route() {
    let node = Node::ready().await;
    let document = node.get("/docs/openapi.json").await.json();
    assert_eq!(document, node_openapi());
    let page = node.get("/docs").await.text;
    for route in ROUTES.iter().copied().flatten() {
        assert!(page.contains(&format!("<code>{}</code>", route.paths[0])), "{}", route.paths[0]);
        for path in route.paths {
            let operation =
                &document["paths"][path.replace("{*", "{")][route.method.to_lowercase()];
            assert_eq!(operation["summary"], route.summary, "{path}");
        }
    }
    let text = document.to_string();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(document["components"]["schemas"][name].is_object(), "{name}");
    }
}

#[tokio::test]
async fn answers_carry_the_id_of_the_request_or_a_new_one() {
    let node = Node::ready().await;
    let with =
        |id: &str| Request::get("/livez").header("x-request-id", id).body(Body::empty()).unwrap();
    assert_eq!(node.ask(with("abc-1")).await.header("x-request-id"), "abc-1");
    let long = node.ask(with(&"x".repeat(200))).await;
    assert!(long.header("x-request-id").starts_with("req_"));
    assert!(node.get("/livez").await.header("x-request-id").starts_with("req_"));
}
