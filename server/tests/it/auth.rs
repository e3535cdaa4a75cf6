//! Keys guard every route that is not open, and web pages of others change nothing.

use axum::body::Body;
use axum::http::Request;
use pinion_server::routes::{Access, ROUTES, Route};
use serde_json::json;

use crate::node::{Node, Setup, post, says};

const OPEN: [&str; 3] = ["/livez", "/readyz", "/health"];

fn with_keys() -> Setup {
    let mut setup = Setup::default();
    setup.config.api_keys = vec!["first-key".to_owned(), "second-key".to_owned()];
    setup
}

fn request(route: &Route, path: &str) -> Request<Body> {
    let path = path.replace("{*id}", "tiny");
    let request = Request::builder().method(route.method).uri(path);
    let request = request.header("content-type", "application/json");
    request.body(Body::from("{}")).expect("a valid request")
}

#[tokio::test]
async fn every_route_but_the_probes_needs_a_key() {
    let node = with_keys().ready().await;
    for route in ROUTES.iter().copied().flatten() {
        for path in route.paths {
            let bare = node.ask(request(route, path)).await;
            let mut keyed = request(route, path);
            keyed.headers_mut().insert("authorization", "Bearer second-key".parse().unwrap());
            let keyed = node.ask(keyed).await;
            let status = keyed.status.as_u16();
            let is_stream = path.ends_with("{id}")
                && (route.method == "HEAD" || keyed.text.contains("stream_not_found"));
            assert!(![401, 404, 405].contains(&status) || is_stream, "{path}: {}", keyed.text);
            assert_eq!(route.access == Access::Open, OPEN.contains(path), "{path}");
            if OPEN.contains(path) {
                assert_eq!(bare.status, 200, "{path}");
            } else {
                assert_eq!(bare.status, 401, "{path}");
                if route.method != "HEAD" {
                    assert_eq!(bare.error().1, "invalid_api_key", "{path}");
                }
                assert_eq!(bare.header("www-authenticate"), "Bearer");
            }
        }
    }
    assert_eq!(node.get("/no/such/route").await.status, 401);
}

#[tokio::test]
async fn keys_come_as_bearer_or_as_x_api_key() {
    let node = with_keys().ready().await;
    let cases = [
        ("authorization", "Bearer first-key", 200),
        ("authorization", "bearer  second-key", 200),
        ("x-api-key", "first-key", 200),
        ("authorization", "Bearer first-ke", 401),
        ("authorization", "Bearer ", 401),
        ("authorization", "Basic first-key", 401),
        ("x-api-key", "first-key,second-key", 401),
    ];
    for (header, value, status) in cases {
        let request = Request::get("/v1/models").header(header, value).body(Body::empty()).unwrap();
        assert_eq!(node.ask(request).await.status, status, "{header}: {value}");
    }
}

#[tokio::test]
async fn prefix_caches_of_two_keys_are_apart() {
    let node = with_keys().ready().await;
    let mut salts = Vec::new();
    for key in ["first-key", "second-key", "first-key"] {
        let mut request = post("/v1/completions", json!({"prompt": "show"}));
        request.headers_mut().insert("x-api-key", key.parse().unwrap());
        let answer = node.ask(request).await.json();
        let text = answer["choices"][0]["text"].as_str().unwrap();
        let shown: serde_json::Value = serde_json::from_str(text).unwrap();
        salts.push(shown[1]["cache_salt"].clone());
    }
    assert_eq!(salts[0], salts[2]);
    assert_ne!(salts[0], salts[1]);
}

#[tokio::test]
async fn pages_of_other_hosts_change_nothing_on_a_loopback_node_without_keys() {
    let node = Node::ready().await;
    let cases = [
        ("http://evil.example", 403),
        ("http://127.0.0.1.evil.example", 403),
        ("null", 403),
        ("http://localhost:3000", 200),
        ("http://127.0.0.1:8080", 200),
        ("http://[::1]:8080", 200),
    ];
    for (origin, status) in cases {
        let mut request = post("/v1/chat/completions", says("count 1"));
        request.headers_mut().insert("origin", origin.parse().unwrap());
        assert_eq!(node.ask(request).await.status, status, "{origin}");
        let mut read = Request::get("/v1/models").body(Body::empty()).unwrap();
        read.headers_mut().insert("origin", origin.parse().unwrap());
        assert_eq!(node.ask(read).await.status, 200, "{origin}");
    }
}

#[tokio::test]
async fn a_key_is_enough_for_pages_of_other_hosts() {
    let node = with_keys().ready().await;
    let mut request = post("/v1/chat/completions", says("count 1"));
    request.headers_mut().insert("origin", "https://app.example".parse().unwrap());
    request.headers_mut().insert("x-api-key", "first-key".parse().unwrap());
    assert_eq!(node.ask(request).await.status, 200);
}
