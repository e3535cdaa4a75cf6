//! Following a prediction that runs: streams, replays, cancellation, and readers that leave.

use super::*;

const FRAMES: &str = "event: start\ndata: {\"id\":\"a\",\"status\":\"processing\"}\n\n\
    event: metric\ndata: {\"mode\":\"replace\",\"name\":\"input_token_count\",\"value\":3}\n\n\
    event: metric\ndata: {\"mode\":\"replace\",\"name\":\"time_to_first_token\",\"value\":T}\n\n\
    event: output\ndata: {\"chunk\":\"Hel\",\"index\":0}\n\n\
    event: output\ndata: {\"chunk\":\"lo\",\"index\":1}\n\n\
    event: metric\ndata: {\"mode\":\"replace\",\"name\":\"output_token_count\",\"value\":3}\n\n\
    event: completed\ndata: {\"id\":\"a\",\"logs\":\"\",\"metrics\":{\"input_token_count\":3,\"output_token_count\":3,\"predict_time\":T,\"time_to_first_token\":T},\"output\":[\"Hel\",\"lo\"],\"status\":\"succeeded\"}\n\n";

/// A stream without what the clock decides.
fn plain(frames: &str) -> String {
    let number = |text: &str| text.parse::<f64>().is_ok() && text.contains(['.', 'e']);
    let mut plain = String::new();
    for part in frames.split_inclusive([':', ',', '}']) {
        let (body, end) = part.split_at(part.len() - 1);
        if number(body) && ",}".contains(end) {
            plain.push('T');
            plain.push_str(end);
        } else {
            plain.push_str(part);
        }
    }
    plain
}

/// The next bytes of a stream.
async fn more(response: &mut Response) -> String {
    let frame = response.body_mut().frame().await.expect("the stream goes on").unwrap();
    String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn a_stream_has_the_frames_of_cog() {
    let mut node = node();
    let answer = node.send("PUT", "/predictions/a", &[EVENTS], &prompt("a"));
    let worker = async { node.worker.job().await.say(hello()) };
    let (answer, ()) = tokio::join!(answer, worker);
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("content-type"), "text/event-stream");
    assert_eq!(answer.header("cache-control"), "no-cache");
    assert_eq!(plain(&answer.body), FRAMES);
}

#[tokio::test]
async fn a_stream_that_joins_later_sees_everything_from_the_start() {
    let mut node = node();
    let job = node.start("a").await;
    let [begin, first, second, end] = hello();
    job.say([begin, first]);
    node.settle().await;
    let joined = node.send("PUT", "/predictions/a", &[EVENTS], &json!({}));
    let worker = async {
        node.settle().await;
        job.say([second, end]);
    };
    let (joined, ()) = tokio::join!(joined, worker);
    assert_eq!(plain(&joined.body), FRAMES);
}

#[tokio::test]
async fn a_silent_stream_carries_heartbeats_before_its_frames() {
    let heartbeat = Duration::from_millis(1);
    let mut node = node_with(ServeConfig { heartbeat, ..config() }, "", 4);
    let request = request("PUT", "/predictions/a", &[EVENTS, JSON], &prompt("a").to_string());
    let mut stream = node.respond(request).await;
    let job = node.worker.job().await;
    assert_eq!(more(&mut stream).await, ": hb\n");
    assert_eq!(more(&mut stream).await, ": hb\n");
    job.say(hello());
    let rest = Answer::of(stream).await.body;
    assert_eq!(plain(rest.trim_start_matches(": hb\n")), FRAMES);
}

#[tokio::test]
async fn a_cancelled_prediction_ends_when_the_worker_lets_go_of_it() {
    let mut node = node();
    let answer = node.send("PUT", "/predictions/a", &[], &prompt("a"));
    let worker = async {
        let job = node.worker.job().await;
        for _ in 0..2 {
            let cancel = node.send("POST", "/predictions/a/cancel", &[], &Value::Null).await;
            assert_eq!((cancel.status, &*cancel.body), (StatusCode::OK, "{}"));
        }
        let Heard::Cancel(key) = node.worker.hear().await else { panic!("no cancel") };
        assert_eq!(key, job.submit.key);
        assert_eq!(node.get("/predictions/a").await.json()["status"], "starting");
        job.say([cancelled()]);
    };
    let (answer, ()) = tokio::join!(answer, worker);
    let body = r#"{"id":"a","logs":"","metrics":{"predict_time":T},"status":"canceled"}"#;
    assert_eq!(answer.plain(), (200, body.to_owned()));
    for id in ["a", "b"] {
        let path = format!("/predictions/{id}/cancel");
        let gone = node.send("POST", &path, &[], &Value::Null).await;
        assert_eq!((gone.status, &*gone.body), (StatusCode::NOT_FOUND, "{}"));
    }
}

#[tokio::test]
async fn a_synchronous_client_that_leaves_cancels() {
    let mut node = node();
    let job = {
        let mut answer = Box::pin(node.send("PUT", "/predictions/a", &[], &prompt("a")));
        tokio::select! {
            _ = &mut answer => panic!("it has not ended"),
            job = node.worker.job() => job,
        }
    };
    let Heard::Cancel(key) = node.worker.hear().await else { panic!("no cancel") };
    assert_eq!(key, job.submit.key);
    job.say([cancelled()]);
    node.settle().await;
    assert_eq!(node.get("/predictions/a").await.json()["status"], "canceled");
}

#[tokio::test]
async fn the_last_stream_that_leaves_cancels_and_no_other() {
    let mut node = node();
    let request = || request("PUT", "/predictions/a", &[EVENTS, JSON], &prompt("a").to_string());
    let mut first = node.respond(request()).await;
    let job = node.worker.job().await;
    let mut second = node.respond(request()).await;
    job.say([started()]);
    assert!(more(&mut first).await.starts_with("event: start\n"));
    drop(first);
    job.say([delta("Hel")]);
    while !more(&mut second).await.contains("Hel") {}
    assert!(node.worker.is_quiet(), "one of two has left");
    drop(second);
    let Heard::Cancel(key) = node.worker.hear().await else { panic!("no cancel") };
    assert_eq!(key, job.submit.key);
}

#[tokio::test]
async fn an_asynchronous_prediction_does_not_need_its_streams() {
    let mut node = node();
    let job = node.start("a").await;
    let request = request("PUT", "/predictions/a", &[EVENTS, JSON], "{}");
    let mut stream = node.respond(request).await;
    job.say([started()]);
    more(&mut stream).await;
    drop(stream);
    node.settle().await;
    assert!(node.worker.is_quiet(), "it was cancelled");
    job.say([delta("Hello"), finished(1)]);
    node.settle().await;
    assert_eq!(node.get("/predictions/a").await.json()["status"], "succeeded");
}

#[tokio::test]
async fn a_prediction_has_a_bounded_number_of_streams() {
    let mut node = node();
    let _job = node.start("a").await;
    let request = || request("PUT", "/predictions/a", &[EVENTS, JSON], "{}");
    let mut streams = Vec::new();
    for _ in 0..1024 {
        streams.push(node.respond(request()).await);
    }
    let refused = Answer::of(node.respond(request()).await).await;
    assert_eq!(refused.plain(), (429, r#"{"error":"Too many stream subscribers"}"#.to_owned()));
    streams.pop();
    assert_eq!(node.respond(request()).await.status(), StatusCode::OK);
}
