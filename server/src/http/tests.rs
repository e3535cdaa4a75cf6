//! A handler that panics fails its request and nothing else.

use axum::body::Body;
use axum::routing::get;
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::*;

async fn breaks() -> &'static str {
    panic!("a secret of the implementation")
}

#[tokio::test]
async fn a_panic_is_answered_as_an_internal_error_without_its_message() {
    let router = Router::new().route("/", get(breaks)).layer(CatchPanicLayer::custom(panicked));
    let request = Request::get("/").body(Body::empty()).expect("a valid request");
    let response = router.oneshot(request).await.expect("the router answers everything");
    assert_eq!(response.status(), 500);
    let body = response.into_body().collect().await.expect("bodies do not fail").to_bytes();
    let text = String::from_utf8_lossy(&body);
    assert!(text.contains("\"code\":\"internal_error\""), "{text}");
    assert!(!text.contains("secret"), "{text}");
}
