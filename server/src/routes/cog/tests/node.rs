//! What is asked of a package besides predictions, and where packages are.

use super::*;
use crate::error::ApiError;
use crate::ipc::LoadStage;
use crate::supervisor::PackageState;

#[tokio::test]
async fn health_tells_the_state_of_the_package() {
    let node = node();
    let loading = PackageState::Loading { stage: LoadStage::Weights, done: 0, total: 0 };
    let restarting = PackageState::Restarting {
        attempt: 1,
        reason: "signal 9".to_owned(),
        after: Duration::from_secs(1),
    };
    let failed = |code, text| PackageState::Failed(ApiError::model(code, text));
    let cases = [
        (PackageState::Ready, "READY", "succeeded", ""),
        (PackageState::Unresponsive, "UNHEALTHY", "succeeded", ""),
        (restarting, "STARTING", "succeeded", "signal 9"),
        (loading, "STARTING", "starting", ""),
        (failed("bad_weights", "no weights"), "SETUP_FAILED", "failed", "no weights"),
        (failed("worker_defunct", "it died"), "DEFUNCT", "succeeded", "it died"),
        (PackageState::Draining, "DEFUNCT", "succeeded", ""),
    ];
    for (state, status, setup, logs) in cases {
        node.worker.enter(state.clone());
        node.settle().await;
        let answer = node.get("/health-check").await;
        assert_eq!(answer.status, StatusCode::OK);
        let body = answer.json();
        assert_eq!(body["status"], status, "{state:?}");
        assert_eq!(
            (&body["setup"]["status"], &body["setup"]["logs"]),
            (&setup.into(), &logs.into())
        );
        assert_eq!(body["setup"]["completed_at"].is_string(), setup != "starting", "{state:?}");
        assert_eq!(body.get("user_healthcheck_error").is_some(), status == "UNHEALTHY");
        let started = body["setup"]["started_at"].as_str().unwrap();
        let time: jiff::Timestamp = started.parse().unwrap();
        assert!(started.len() == 35 && started.ends_with("+00:00"), "{started} {time}");
        assert!(answer.body.starts_with(r#"{"status":"#), "{}", answer.body);
        assert!(body["version"]["coglet"].as_str().unwrap().starts_with("pinion/"));
    }
    let head = node.send("HEAD", "/health-check", &[], &Value::Null).await;
    assert_eq!((head.status, &*head.body), (StatusCode::OK, ""));
}

#[tokio::test]
async fn discovery_and_schema_are_there_before_the_model_is() {
    let node = node();
    node.worker.enter(PackageState::Loading { stage: LoadStage::Weights, done: 0, total: 0 });
    let root = node.get("/").await.json();
    assert_eq!(root["predictions_url"], "/predictions");
    assert_eq!(root["predictions_cancel_url"], "/predictions/{prediction_id}/cancel");
    assert!(root.get("trainings_url").is_none());
    let schema = node.get("/openapi.json").await.json();
    assert_eq!(schema["paths"]["/predictions"]["post"]["x-cog-streaming"], true);
    assert_eq!(schema["components"]["schemas"]["Input"]["required"], json!(["prompt"]));
}

#[tokio::test]
async fn a_package_has_its_own_root_too() {
    let mut node = node();
    let root = node.get("/cog/tiny").await;
    assert_eq!(root.json()["predictions_url"], "/cog/tiny/predictions");
    assert_eq!(node.get("/cog/tiny/").await.body, root.body);
    assert_eq!(node.get("/cog/tiny/health-check").await.json()["status"], "READY");
    let answer = node.send("PUT", "/cog/tiny/predictions/a", &[], &prompt("a"));
    let worker = async { node.worker.job().await.say(hello()) };
    let (answer, ()) = tokio::join!(answer, worker);
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(
        node.get("/cog/tiny/predictions/a").await.json(),
        node.get("/predictions/a").await.json()
    );
    let unknown = node.send("POST", "/cog/huge/predictions", &[], &prompt("a")).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert_eq!(unknown.json()["error"], "the model is not served here: huge; served: tiny");
}

#[tokio::test]
async fn two_packages_do_not_share_a_root() {
    let ((one, _one), (two, mut worker)) = (scripted("one", "", 1), scripted("two", "", 1));
    let app = App::new(config(), vec![one, two], TaskTracker::new());
    let router = routes_with(&app, Webhooks::new(&config())).with_state(app);
    let send = |method, path: &str, body: &str| {
        let request = request(method, path, &[JSON], body);
        let router = router.clone();
        async move { Answer::of(router.oneshot(request).await.unwrap()).await }
    };
    for path in ["/", "/health-check", "/openapi.json", "/predictions/a"] {
        assert_eq!(send("GET", path, "").await.status, StatusCode::NOT_FOUND, "{path}");
    }
    let body = prompt("a").to_string();
    let (answer, ()) = tokio::join!(send("PUT", "/cog/two/predictions/a", &body), async {
        worker.job().await.say(hello());
    });
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(send("GET", "/cog/one/predictions/a", "").await.status, StatusCode::NOT_FOUND);
    assert_eq!(send("GET", "/cog/two/predictions/a", "").await.status, StatusCode::OK);
}

#[tokio::test]
async fn other_methods_and_trainings_are_as_in_cog() {
    let node = node();
    let answer = node.send("DELETE", "/predictions/a", &[], &Value::Null).await;
    assert_eq!((answer.status, &*answer.body), (StatusCode::METHOD_NOT_ALLOWED, ""));
    assert!(answer.header("allow").contains("PUT"), "{:?}", answer.headers);
    let answer = node.get("/predictions").await;
    assert_eq!((answer.status, answer.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "POST"));
    for (method, path) in
        [("POST", "/trainings"), ("PUT", "/trainings/a"), ("POST", "/trainings/a/cancel")]
    {
        let answer = node.send(method, path, &[], &prompt("a")).await;
        assert_eq!((answer.status, &*answer.body), (StatusCode::NOT_FOUND, ""));
    }
}

#[tokio::test]
async fn a_hostile_id_is_a_name_and_nothing_else() {
    let mut node = node();
    for id in ["../../etc/passwd", "/absolute", "", "ü \u{0}", "{id}"] {
        let body = json!({"id": id, "input": {"prompt": "a"}});
        let answer = node.send("POST", "/predictions", &[], &body);
        let worker = async { node.worker.job().await.say(hello()) };
        let (answer, ()) = tokio::join!(answer, worker);
        assert_eq!((answer.status, &answer.json()["id"]), (StatusCode::OK, &id.into()));
    }
    let escaped = node.get("/predictions/..%2F..%2Fetc%2Fpasswd").await;
    assert_eq!(escaped.json()["id"], "../../etc/passwd");
}

#[tokio::test]
async fn shutdown_is_answered_and_stops_the_node() {
    let node = node();
    assert!(!node.app.stopping().is_cancelled());
    let answer = node.send("POST", "/shutdown", &[], &Value::Null).await;
    assert_eq!((answer.status, &*answer.body), (StatusCode::OK, "{}"));
    assert!(node.app.stopping().is_cancelled());
}
