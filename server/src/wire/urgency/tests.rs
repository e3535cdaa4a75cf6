//! Tests of `urgency`.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use pinion_engine::RouteClass;
use serde_json::{Value, json};

use super::urgency;
use crate::error::ApiError;
use crate::ipc::Urgency;
use crate::wire::fields::Fields;

fn read(headers: &[(&'static str, &'static str)], body: &Value) -> Result<Urgency, ApiError> {
    let pair = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
    let headers: HeaderMap = headers.iter().map(pair).collect();
    urgency(&headers, &Fields::of_body(body.as_object().unwrap()), Duration::from_millis(40))
}

fn class(headers: &[(&'static str, &'static str)], body: &Value) -> RouteClass {
    read(headers, body).unwrap().class
}

fn deadline(headers: &[(&'static str, &'static str)], body: &Value) -> Option<u64> {
    read(headers, body).unwrap().deadline_millis
}

#[test]
fn the_class_is_read_from_every_carrier_in_order() {
    let none = json!({});
    assert_eq!(class(&[], &none), RouteClass::Default);
    let pinion = ("x-pinion-route-class", "latency");
    let llm_d = ("x-llm-d-inference-objective", "reasoning");
    let baggage = ("baggage", "user=a, route_class=compliance;p=1,x=y");
    let metadata = json!({"metadata": {"route_class": "reasoning"}, "service_tier": "priority"});
    assert_eq!(class(&[llm_d, baggage, pinion], &metadata), RouteClass::Latency);
    assert_eq!(class(&[baggage, llm_d], &metadata), RouteClass::Reasoning);
    assert_eq!(class(&[baggage], &metadata), RouteClass::Compliance);
    assert_eq!(class(&[], &metadata), RouteClass::Reasoning);
    for (tier, expected) in [
        ("priority", RouteClass::Latency),
        ("auto", RouteClass::Default),
        ("default", RouteClass::Default),
        ("flex", RouteClass::Reasoning),
        ("scale", RouteClass::Default),
    ] {
        assert_eq!(class(&[], &json!({"service_tier": tier})), expected);
    }
}

#[test]
fn the_deadline_counts_from_the_arrival_of_the_request() {
    let none = json!({});
    assert_eq!(deadline(&[], &none), None);
    assert_eq!(deadline(&[("x-pinion-deadline-ms", "100")], &none), Some(60));
    assert_eq!(deadline(&[("x-pinion-deadline-ms", "30")], &none), Some(0));
    let gateway = ("cf-aig-request-timeout", "2040");
    assert_eq!(deadline(&[gateway, ("x-llm-d-slo-ttft-ms", "1040")], &none), Some(1000));
    assert_eq!(deadline(&[gateway], &json!({"metadata": {"deadline_ms": "50"}})), Some(2000));
    assert_eq!(deadline(&[], &json!({"metadata": {"deadline_ms": "50"}})), Some(10));
    assert_eq!(deadline(&[], &json!({"metadata": {"deadline_ms": 50}})), Some(10));
}

#[test]
fn unknown_values_are_errors_only_where_the_name_is_ours() {
    let error = read(&[("x-pinion-route-class", "fast")], &json!({})).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`x-pinion-route-class` must be latency, compliance, default or reasoning: fast"
    );
    let error = read(&[], &json!({"metadata": {"deadline_ms": "soon"}})).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("metadata.deadline_ms"));
    assert!(read(&[("x-pinion-deadline-ms", "0")], &json!({})).is_err());
    let foreign = [("x-llm-d-inference-objective", "gold"), ("cf-aig-request-timeout", "soon")];
    assert_eq!(read(&foreign, &json!({"service_tier": 7})).unwrap(), Urgency::default());
}
