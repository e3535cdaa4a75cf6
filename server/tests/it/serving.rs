//! The listener: real connections, their end, and the end of the node.

use std::net::SocketAddr;
use std::time::Duration;

use pinion_server::config::DisconnectPolicy;
use pinion_server::http::serve;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::node::{Node, Setup, says};

struct Listening {
    address: SocketAddr,
    serving: JoinSet<()>,
}

async fn listen(node: &Node) -> Listening {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let mut serving = JoinSet::new();
    serving.spawn(serve(node.app.clone(), listener));
    Listening { address, serving }
}

/// Sends a chat request and leaves the connection open.
async fn chat(address: SocketAddr, body: &Value) -> TcpStream {
    let body = body.to_string();
    let mut stream = TcpStream::connect(address).await.expect("the node listens");
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("the node reads");
    stream
}

fn streamed(content: &str) -> Value {
    let mut body = says(content);
    body["stream"] = json!(true);
    body
}

/// Reads until some text was seen, or the end; returns what was read.
async fn read_until(stream: &mut TcpStream, wanted: &str) -> String {
    let mut seen = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&seen);
        if text.contains(wanted) || stream.read_buf(&mut seen).await.unwrap_or(0) == 0 {
            return String::from_utf8_lossy(&seen).into_owned();
        }
    }
}

#[tokio::test]
async fn answers_arrive_over_a_connection_that_stays_open() {
    let node = Node::ready().await;
    let listening = listen(&node).await;
    let mut connection = chat(listening.address, &says("count 2")).await;
    let answer = read_until(&mut connection, "\"seed\":7}").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("\"content\":\"1 2\""), "{answer}");
    connection.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("still open");
    let again = read_until(&mut connection, "\"ok\"}").await;
    assert!(again.starts_with("HTTP/1.1 200 OK\r\n"), "{again}");
}

#[tokio::test]
async fn a_closed_connection_is_a_reader_that_left_of_streamed_and_whole_answers() {
    let mut setup = Setup::default();
    setup.config.on_disconnect = DisconnectPolicy::Cancel;
    let node = setup.ready().await;
    let listening = listen(&node).await;
    let mut stream = chat(listening.address, &streamed("wait forever")).await;
    read_until(&mut stream, "first").await;
    let whole = chat(listening.address, &says("queue forever")).await;
    while node.app.packages()[0].in_flight() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(node.cancelled().await, 0);
    drop(stream);
    while node.cancelled().await < 1 {}
    drop(whole);
    while node.cancelled().await < 2 {}
}

#[tokio::test]
async fn a_node_that_stops_takes_no_connections_and_finishes_open_requests() {
    let node = Node::ready().await;
    let mut listening = listen(&node).await;
    let mut stream = chat(listening.address, &streamed("wait gate")).await;
    read_until(&mut stream, "first").await;
    node.app.stopping().cancel();
    while TcpStream::connect(listening.address).await.is_ok() {}
    node.post("/v1/completions", json!({"prompt": "open gate"})).await;
    let rest = read_until(&mut stream, "[DONE]").await;
    assert!(rest.contains(" second") && rest.contains("[DONE]"), "{rest}");
    let ended = listening.serving.join_next().await;
    assert!(matches!(ended, Some(Ok(()))), "{ended:?}");
}

#[tokio::test]
async fn the_drain_timeout_bounds_the_wait_for_open_requests() {
    let mut setup = Setup::default();
    setup.config.drain_timeout = Duration::from_millis(1);
    setup.config.on_disconnect = DisconnectPolicy::Cancel;
    let node = setup.ready().await;
    let mut listening = listen(&node).await;
    let mut stream = chat(listening.address, &streamed("wait forever")).await;
    read_until(&mut stream, "first").await;
    node.app.stopping().cancel();
    let ended = listening.serving.join_next().await;
    assert!(matches!(ended, Some(Ok(()))), "{ended:?}");
    let rest = read_until(&mut stream, "[DONE]").await;
    assert!(!rest.contains("[DONE]"), "{rest}");
    while node.cancelled().await < 1 {}
}
