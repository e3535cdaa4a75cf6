//! A worker that dies in any way is noticed, reported and replaced; its neighbours do not notice.

use reqwest::StatusCode;
use serde_json::json;

use super::support::{Node, Package, chat_body, signal};

/// A template of a few bytes that takes all the memory there is.
const DOUBLING: &str = "{% set ns = namespace(x='ab') %}{% for i in range(40) %}\
                        {% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}";

/// A request that runs until it is stopped.
fn endless(model: &str) -> serde_json::Value {
    let mut body = chat_body(model, "Count from 1 to 200.");
    body["stream"] = json!(true);
    body["ignore_eos"] = json!(true);
    body["max_tokens"] = json!(1900);
    body
}

/// What a stream says without what differs from one inference to the next; each event's number and
/// data, and the last one's.
async fn events(mut stream: reqwest::Response, first: Vec<u8>) -> Vec<String> {
    let mut bytes = first;
    while let Some(chunk) = stream.chunk().await.unwrap() {
        bytes.extend(chunk);
    }
    let text = String::from_utf8(bytes).unwrap();
    let without_id = |event: &str| {
        let (id, data) = event.split_once('\n').unwrap();
        let data = data.split_once("\"choices\"").map_or(data, |(_, rest)| rest);
        format!("{} {data}", id.rsplit(':').next().unwrap())
    };
    text.split_terminator("\n\n").map(without_id).collect()
}

/// Ends the worker in some way while it streams with sampling on, and sees the whole story: the
/// reader has a pause, then the rest, to the token.
async fn dies(end: impl FnOnce(u32)) {
    let node = Node::ready(&[]).await;
    let worker = node.worker();
    let mut body = endless("pinion-tiny");
    body["seed"] = json!(7);
    body["temperature"] = json!(1.2);
    body["frequency_penalty"] = json!(0.2);
    body["stream_options"] = json!({"include_usage": true});
    let stream = node.open("/v1/chat/completions", &body).await;
    let undisturbed = events(stream, Vec::new()).await;
    let mut stream = node.open("/v1/chat/completions", &body).await;
    assert_eq!(stream.status(), StatusCode::OK);
    let first = stream.chunk().await.unwrap().unwrap().to_vec();
    end(worker);
    let disturbed = events(stream, first).await;
    node.line_with("the worker died");
    assert_ne!(node.worker(), worker);
    assert!(100 < undisturbed.len(), "{}", undisturbed.len());
    let last = undisturbed.len() - 2;
    assert_eq!(disturbed[..last], undisturbed[..last]);
    assert_eq!(disturbed.last(), undisturbed.last());
    let (status, answer) = node.chat("pinion-tiny", "Who are you?").await;
    assert_eq!(status, StatusCode::OK, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_is_replaced_and_its_requests_go_on() {
    dies(|worker| signal(worker, "KILL")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_worker_is_replaced_and_its_requests_go_on() {
    dies(|worker| signal(worker, "ABRT")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_worker_is_replaced_and_its_requests_go_on() {
    dies(|worker| signal(worker, "STOP")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_worker_is_reported_before_it_is_killed_and_may_come_back() {
    let node = Node::ready(&["--hang-timeout", "1h"]).await;
    let worker = node.worker();
    signal(worker, "STOP");
    node.line_with("does not answer");
    let (status, _) = node.get("/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let (status, answer) = node.chat("pinion-tiny", "Hello").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{answer}");
    assert_eq!(answer["error"]["code"], "worker_unresponsive");
    signal(worker, "CONT");
    node.until_ready().await;
    assert_eq!(node.worker(), worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_runs_out_of_memory_ends_alone() {
    let greedy = Package::starter();
    greedy.template(&format!(
        "{{% if 'boom' in messages[-1].content %}}{DOUBLING}{{% endif %}}{{{{ messages[-1].content }}}}"
    ));
    let modest = Package::starter();
    std::fs::rename(modest.path(), modest.path().with_file_name("modest")).unwrap();
    let modest_name = modest.path().with_file_name("modest");
    let packages = [greedy.name(), modest_name.to_str().unwrap().to_owned()];
    let node = Node::ready(&[&packages[0], &packages[1], "--worker-headroom", "256MiB"]).await;
    let workers = node.workers();
    let mut neighbour = node.open("/v1/chat/completions", &endless("modest")).await;
    let (status, answer) = node.chat("mine", "boom").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{answer}");
    assert_eq!(answer["error"]["code"], "worker_crashed", "{answer}");
    assert!(neighbour.chunk().await.unwrap().is_some());
    drop(neighbour);
    node.until_ready().await;
    assert_eq!(node.workers().intersection(&workers).count(), 1);
}

/// Memory that is never enough, and a chain that overflows the stack.
#[tokio::test(flavor = "multi_thread")]
async fn a_package_that_always_ends_its_worker_is_given_up() {
    let chain = format!("{{{{ {}1 }}}}", "1+".repeat(20_000));
    for template in [DOUBLING.to_owned(), chain] {
        let package = Package::starter();
        package.template(&template);
        let node = Node::start(&[&package.name(), "--worker-headroom", "256MiB"]);
        node.line_with("the worker died");
        node.line_with("mine: error: ");
        let (status, answer) = node.chat("mine", "Hello").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{answer}");
        assert_eq!(answer["error"]["code"], "model_failed", "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_loops_is_ended_and_the_worker_lives() {
    let package = Package::starter();
    package
        .template("{% for i in range(9000) %}{% for j in range(9000) %}{% endfor %}{% endfor %}");
    let node = Node::ready(&[&package.name()]).await;
    let worker = node.worker();
    let (status, answer) = node.chat("mine", "Hello").await;
    assert!(status.is_client_error() || status.is_server_error(), "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("template"), "{answer}");
    assert_eq!(node.worker(), worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_die_with_their_node() {
    let mut node = Node::ready(&[]).await;
    let worker = node.worker();
    signal(node.id(), "KILL");
    node.wait();
    let gone = || !std::path::Path::new(&format!("/proc/{worker}/fd/0")).exists();
    node.until("gone with its worker", async || gone()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_ends_what_runs_and_then_itself() {
    let mut node = Node::ready(&[]).await;
    let mut body = chat_body("pinion-tiny", "Count from 1 to 60.");
    body["stream"] = json!(true);
    let mut stream = node.open("/v1/chat/completions", &body).await;
    let mut text = stream.chunk().await.unwrap().unwrap().to_vec();
    signal(node.id(), "TERM");
    while let Some(chunk) = stream.chunk().await.unwrap() {
        text.extend(chunk);
    }
    assert!(String::from_utf8(text).unwrap().contains("[DONE]"));
    assert!(node.wait().success());
}
