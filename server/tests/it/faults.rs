//! Full, crashed, hung and broken: each has a status that clients and gateways understand.

use pinion_server::config::DisconnectPolicy;
use pinion_server::supervisor::StateKind;
use serde_json::json;

use crate::node::{Node, Setup, post, says};

#[tokio::test]
async fn a_request_that_ends_two_workers_ends_in_a_retryable_error_and_a_third_comes() {
    let node = Node::ready().await;
    let answer = node.post("/v1/chat/completions", says("crash")).await;
    assert_eq!(answer.error(), (503, "worker_crashed".to_owned(), None));
    assert_eq!(answer.header("x-should-retry"), "true");
    assert!(answer.text.contains("signal 6"), "{}", answer.text);

    let meanwhile = node.post("/v1/chat/completions", says("count 1")).await;
    assert_eq!(meanwhile.error().0, 503);
    assert_ne!(meanwhile.header("retry-after"), "");

    node.reaches("tiny", StateKind::Ready).await;
    let again = node.post("/v1/chat/completions", says("count 1")).await;
    assert_eq!(again.status, 200);
    let metrics = node.get("/metrics").await.text;
    assert!(metrics.contains("pinion_worker_deaths_total{package=\"tiny\"} 2\n"), "{metrics}");
    let resumed = "pinion_generations_resumed_total{package=\"tiny\"} 1\n";
    assert!(metrics.contains(resumed), "{metrics}");
    assert!(metrics.contains("pinion_requests_total{package=\"tiny\",outcome=\"failed\"} 1\n"));
}

#[tokio::test]
async fn a_stream_whose_worker_dies_goes_on_with_the_next_one_behind_its_last_token() {
    let node = Node::ready().await;
    let mut body = says("crash-late");
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    let answer = node.post("/v1/chat/completions", body).await;
    assert_eq!(answer.status, 200);
    let contents: Vec<String> = answer
        .events()
        .iter()
        .filter_map(|event| Some(event["choices"][0]["delta"]["content"].as_str()?.to_owned()))
        .collect();
    assert_eq!(contents, ["", "first", " second"]);
    assert!(answer.text.ends_with("data: [DONE]\n\n"), "{}", answer.text);
}

#[tokio::test]
async fn a_generation_that_waits_for_a_new_worker_can_be_cancelled() {
    let mut setup = Setup::default();
    setup.config.on_disconnect = DisconnectPolicy::Cancel;
    let node = setup.ready().await;
    let mut body = says("die-alone");
    body["stream"] = json!(true);
    let response = node.send(post("/v1/chat/completions", body)).await;
    node.reaches("tiny", StateKind::Restarting).await;
    drop(response);
    while 0 < node.app.packages()[0].in_flight() {
        tokio::task::yield_now().await;
    }
    node.reaches("tiny", StateKind::Ready).await;
    assert_eq!(node.cancelled().await, 0);
}

#[tokio::test]
async fn a_worker_that_hangs_is_killed_and_its_requests_fail() {
    let node = Node::ready().await;
    let answer = node.post("/v1/chat/completions", says("stall")).await;
    assert_eq!(answer.error(), (503, "worker_crashed".to_owned(), None));
    assert!(answer.text.contains("did not answer"), "{}", answer.text);
}

#[tokio::test]
async fn a_full_package_refuses_with_429_and_when_to_come_back() {
    let mut setup = Setup { max_in_flight: 2, ..Setup::default() };
    setup.config.on_disconnect = DisconnectPolicy::Cancel;
    let node = setup.ready().await;
    let mut body = says("wait gate");
    body["stream"] = json!(true);
    let open = [
        node.send(post("/v1/chat/completions", body.clone())).await,
        node.send(post("/v1/chat/completions", body)).await,
    ];
    let answer = node.post("/v1/chat/completions", says("count 1")).await;
    assert_eq!(answer.error(), (429, "queue_full".to_owned(), None));
    assert_eq!((answer.header("retry-after"), answer.header("x-should-retry")), ("1", "true"));
    drop(open);
    while 0 < node.app.packages()[0].in_flight() {
        tokio::task::yield_now().await;
    }
    assert_eq!(node.post("/v1/chat/completions", says("count 1")).await.status, 200);
}

#[tokio::test]
async fn choices_that_do_not_all_fit_are_refused_together() {
    let setup = Setup { max_in_flight: 2, ..Setup::default() };
    let node = setup.ready().await;
    let mut body = says("wait gate");
    body["n"] = json!(3);
    assert_eq!(node.post("/v1/chat/completions", body).await.error().0, 429);
    assert_eq!(node.app.packages()[0].in_flight(), 0);
    assert_eq!(node.cancelled().await, 0, "nothing was begun");
    let body = json!({"prompt": ["wait a", "wait b", "wait c"]});
    assert_eq!(node.post("/v1/completions", body).await.error().0, 429);
    assert_eq!(node.app.packages()[0].in_flight(), 0);
    assert_eq!(node.cancelled().await, 0, "nothing was begun");
}

#[tokio::test]
async fn a_refusal_by_the_engines_queue_is_a_429() {
    let node = Node::ready().await;
    let answer = node.post("/v1/completions", json!({"prompt": "full"})).await;
    assert_eq!(answer.error().0, 429);
}

#[tokio::test]
async fn a_package_that_cannot_be_loaded_says_why_and_its_neighbour_serves() {
    let packages = vec![("good", "cpu"), ("bad", "broken"), ("late", "slow")];
    let node = Setup { packages, ..Setup::default() }.start();
    node.reaches("bad", StateKind::Failed).await;
    node.reaches("good", StateKind::Ready).await;
    let ask = |model: &str| {
        let mut body = says("count 1");
        body["model"] = json!(model);
        node.post("/v1/chat/completions", body)
    };
    let bad = ask("bad").await;
    assert_eq!(bad.error(), (503, "model_failed".to_owned(), None));
    assert!(bad.text.contains("as the script says: bad_weights"), "{}", bad.text);
    let late = ask("late").await;
    assert_eq!(late.error(), (503, "model_loading".to_owned(), None));
    assert_eq!(late.header("retry-after"), "1");
    assert_eq!(ask("good").await.status, 200);

    let readiness = node.get("/readyz").await;
    assert_eq!(readiness.status, 503);
    let packages = &readiness.json()["packages"];
    assert_eq!(packages[0], json!({"name": "good", "state": "ready"}));
    assert_eq!(packages[1]["state"], "failed");
    assert!(packages[1]["reason"].as_str().is_some_and(|why| why.contains("bad_weights")));
    assert_eq!(packages[2]["state"], "loading");
    assert_eq!(node.get("/livez").await.status, 200);
}
