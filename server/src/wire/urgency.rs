//! Route class and deadline, from wherever a gateway lets them through.

use std::time::Duration;

use axum::http::HeaderMap;
use pinion_engine::RouteClass;
use serde_json::Value;

use super::fields::Fields;
use crate::error::ApiError;
use crate::ipc::Urgency;

/// Where a control is read. Each has a header and a body field, because gateways drop headers.
#[derive(Clone, Copy, Debug)]
enum Carrier {
    /// Named by this project: an unknown value is an error.
    Header(&'static str),
    /// Named by others, whose values may mean nothing here.
    ForeignHeader(&'static str),
    /// A key of the W3C header `baggage`.
    Baggage(&'static str),
    /// A key of the body's `metadata`.
    Metadata(&'static str),
    /// A field of the body.
    ForeignField(&'static str),
}

/// The first that is there counts.
const CLASS: &[Carrier] = &[
    Carrier::Header("x-pinion-route-class"),
    Carrier::ForeignHeader("x-llm-d-inference-objective"),
    Carrier::Baggage("route_class"),
    Carrier::Metadata("route_class"),
    Carrier::ForeignField("service_tier"),
];

/// Milliseconds to the first token. The first that is there counts.
const DEADLINE: &[Carrier] = &[
    Carrier::Header("x-pinion-deadline-ms"),
    Carrier::ForeignHeader("x-llm-d-slo-ttft-ms"),
    Carrier::ForeignHeader("cf-aig-request-timeout"),
    Carrier::Metadata("deadline_ms"),
];

/// OpenAI's names of classes.
const SERVICE_TIERS: &[(&str, RouteClass)] = &[
    ("priority", RouteClass::Latency),
    ("auto", RouteClass::Default),
    ("flex", RouteClass::Reasoning),
];

/// Reads the urgency of a request that arrived so long ago.
pub(crate) fn urgency(
    headers: &HeaderMap,
    body: &Fields<'_>,
    age: Duration,
) -> Result<Urgency, ApiError> {
    let class = first(CLASS, headers, body, class, "latency, compliance, default or reasoning")?;
    let millis = |text: &str| text.parse().ok().filter(|millis| 0_u64 < *millis);
    let deadline = first(DEADLINE, headers, body, millis, "a number of milliseconds above 0")?;
    let age = age.as_millis() as u64;
    Ok(Urgency {
        class: class.unwrap_or_default(),
        deadline_millis: deadline.map(|millis| millis.saturating_sub(age)),
    })
}

fn class(name: &str) -> Option<RouteClass> {
    let tier = SERVICE_TIERS.iter().find(|(tier, _)| *tier == name).map(|(_, class)| *class);
    tier.or_else(|| RouteClass::ALL.into_iter().find(|class| class.name() == name))
}

fn first<T>(
    carriers: &[Carrier],
    headers: &HeaderMap,
    body: &Fields<'_>,
    parse: impl Fn(&str) -> Option<T>,
    expected: &str,
) -> Result<Option<T>, ApiError> {
    for carrier in carriers {
        let Some((name, text)) = carrier.read(headers, body)? else { continue };
        match parse(text.trim()) {
            Some(value) => return Ok(Some(value)),
            None if carrier.is_foreign() => {}
            None => {
                let message = format!("`{name}` must be {expected}: {}", text.escape_default());
                return Err(ApiError::invalid("invalid_value", message).at(name));
            }
        }
    }
    Ok(None)
}

impl Carrier {
    fn is_foreign(self) -> bool {
        matches!(self, Self::ForeignHeader(_) | Self::Baggage(_) | Self::ForeignField(_))
    }

    /// The name for errors, and the value.
    fn read(
        self,
        headers: &HeaderMap,
        body: &Fields<'_>,
    ) -> Result<Option<(String, String)>, ApiError> {
        let header = |name: &str| headers.get(name)?.to_str().ok();
        let (name, text) = match self {
            Self::Header(name) | Self::ForeignHeader(name) => {
                (name.to_owned(), header(name).map(str::to_owned))
            }
            Self::Baggage(key) => {
                let members = header("baggage").unwrap_or_default().split(',');
                let pairs = members.filter_map(|member| member.split(';').next()?.split_once('='));
                let value = pairs.into_iter().find(|(name, _)| name.trim() == key);
                ("baggage".to_owned(), value.map(|(_, value)| value.to_owned()))
            }
            Self::Metadata(key) => {
                let metadata = body.object("metadata")?;
                let value = metadata.as_ref().and_then(|metadata| metadata.get(key));
                (format!("metadata.{key}"), value.map(plain))
            }
            Self::ForeignField(name) => {
                (name.to_owned(), body.get(name).and_then(Value::as_str).map(str::to_owned))
            }
        };
        Ok(text.map(|text| (name, text)))
    }
}

/// Metadata values are strings by OpenAI's rules; numbers are understood.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests;
