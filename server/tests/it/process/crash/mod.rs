//! A node that is killed at any moment loses no stream that somebody saw begin.

mod harness;

use harness::{Crash, Report};
use reqwest::StatusCode;
use serde_json::json;

use super::support::{Node, Package, chat_body, pinion, signal};

#[test]
fn streams_survive_the_death_of_the_node_to_the_token() {
    let directory = tempfile::tempdir().unwrap();
    let crash = Crash {
        program: env!("CARGO_BIN_EXE_pinion").into(),
        directory: directory.path().to_owned(),
        rounds: 4,
        streams: 8,
        seed: 1,
    };
    let Report { resumed, usage, .. } = crash.run().unwrap();
    assert!(4 <= resumed, "{resumed} streams were interrupted");
    let records = pinion_server::journal::usage(directory.path()).unwrap();
    for (id, tokens) in usage {
        let of_stream: Vec<u32> = records
            .iter()
            .filter(|record| record.id == id)
            .map(|record| record.usage.completion_tokens)
            .collect();
        assert_eq!(of_stream, [tokens], "{id}");
    }
}

/// Kills a node in the middle of a stream, changes its package in some way, and reads the stream
/// from the next node.
async fn after_a_change(change: impl FnOnce(&Package)) -> String {
    let (package, directory) = (Package::starter(), tempfile::tempdir().unwrap());
    let (name, streams) = (package.name(), directory.path().to_str().unwrap());
    let mut node = Node::ready(&[&name, "--stream-dir", streams]).await;
    let mut body = chat_body("mine", "Count from 1 to 100.");
    body["stream"] = json!(true);
    body["ignore_eos"] = json!(true);
    body["max_tokens"] = json!(1000);
    let mut stream = node.open("/v1/chat/completions", &body).await;
    let path = stream.headers()["content-location"].to_str().unwrap().to_owned();
    assert!(stream.chunk().await.unwrap().is_some());
    signal(node.id(), "KILL");
    node.wait();
    change(&package);
    let node = Node::start(&[&name, "--stream-dir", streams]);
    let (status, text) = node.get(&path).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    text.as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_while_its_reader_waits_for_the_package() {
    let text = after_a_change(|_| {}).await;
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_package_has_changed_ends_and_says_so() {
    let text = after_a_change(|package| {
        package.template("{{ messages[-1].content }}!");
    })
    .await;
    assert!(text.contains("node_restarted") && text.contains("has changed"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_package_does_not_load_ends_and_says_so() {
    let text = after_a_change(|package| {
        package.write("weights/model.safetensors", "short");
    })
    .await;
    assert!(text.contains("node_restarted") && text.contains("does not load"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_node_is_told_that_the_streams_are_taken() {
    let directory = tempfile::tempdir().unwrap();
    let streams = directory.path().to_str().unwrap();
    let node = Node::ready(&["--stream-dir", streams]).await;
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--stream-dir", streams];
    let output = pinion(&arguments).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(streams) && text.contains("--stream-dir"), "{text}");
    let (_, ready) = node.get("/readyz").await;
    assert_eq!(ready["streams"]["durability"], "durable");
}
