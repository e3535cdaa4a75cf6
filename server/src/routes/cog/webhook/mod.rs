//! Tells a caller's address of a prediction: each event in its order, the last one until it arrives.

use std::collections::HashSet;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use bytes::Bytes;
use pinion_cog_compat::prediction::{PredictionRequest, WebhookEvent};
use reqwest::StatusCode;
use serde_json::Value;
use tokio::sync::Semaphore;
use url::Url;

use super::prediction::Prediction;
use super::service::VERSION;
use crate::config::ServeConfig;
use crate::outbound::{Reach, is_forbidden};

mod report;

use self::report::Reports;

/// Further attempts for a last event.
const MAX_RETRIES: u32 = 12;
/// Last events that may wait for a further attempt; past it they are given up after the first.
const MAX_RETRYING: usize = 1024;
/// Headers of a request that go with its webhooks.
const TRACE_HEADERS: [&str; 2] = ["traceparent", "tracestate"];
/// Statuses after which a further attempt may do.
const RETRYABLE: [StatusCode; 5] = [
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::INTERNAL_SERVER_ERROR,
    StatusCode::BAD_GATEWAY,
    StatusCode::SERVICE_UNAVAILABLE,
    StatusCode::GATEWAY_TIMEOUT,
];

/// Delivers webhooks.
#[derive(Debug)]
pub(super) struct Webhooks {
    reach: Reach,
    client: Option<reqwest::Client>,
    headers: HeaderMap,
    retrying: Semaphore,
    /// The wait before a further attempt, by its number from 1.
    back_off: fn(u32) -> Duration,
}

/// Where events of one prediction go, and which.
#[derive(Debug)]
pub(super) struct Webhook {
    url: Url,
    wanted: HashSet<WebhookEvent>,
    headers: HeaderMap,
}

/// How one attempt ended.
enum Attempt {
    Arrived,
    /// A further one may do.
    Failed(String),
    /// A further one would fail the same way.
    Refused(String),
}

impl Webhooks {
    /// With the node's reach and token.
    pub(super) fn new(config: &ServeConfig) -> Self {
        let reach = if config.allow_private_webhooks { Reach::Any } else { Reach::Public };
        let client = reach.client(VERSION);
        let client = client.inspect_err(|error| tracing::error!("no webhooks: {error}")).ok();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(token) = &config.webhook_token {
            if let Ok(mut value) = HeaderValue::from_str(&format!("Bearer {token}")) {
                value.set_sensitive(true);
                headers.insert(AUTHORIZATION, value);
            } else {
                tracing::error!("the webhook token cannot be sent in a header");
            }
        }
        Self { reach, client, headers, retrying: Semaphore::new(MAX_RETRYING), back_off }
    }

    /// The same without waits between attempts.
    #[cfg(test)]
    pub(super) fn at_once(self) -> Self {
        Self { back_off: |_| Duration::ZERO, ..self }
    }

    /// The webhook that a request asks for. A bad address is logged and the prediction runs, as in Cog.
    pub(super) fn open(&self, request: &PredictionRequest, from: &HeaderMap) -> Option<Webhook> {
        use WebhookEvent as W;
        let text = request.webhook.as_deref()?;
        let url = match self.reach.parse(text) {
            Ok(url) => url,
            Err(error) => {
                tracing::error!("webhook refused: {error}");
                return None;
            }
        };
        let all = [W::Start, W::Output, W::Logs, W::Completed];
        let wanted: HashSet<W> =
            all.into_iter().filter(|event| request.webhook_for(*event).is_some()).collect();
        let mut headers = self.headers.clone();
        for name in TRACE_HEADERS {
            if let Some(value) = from.get(name) {
                headers.insert(name, value.clone());
            }
        }
        (!wanted.is_empty()).then_some(Webhook { url, wanted, headers })
    }

    /// Delivers the events of a prediction, one after the other, until the last one. Outputs that come while one is
    /// being delivered go out together, since each event carries everything so far.
    pub(super) async fn deliver(self: Arc<Self>, webhook: Webhook, prediction: Arc<Prediction>) {
        let mut changed = prediction.watch();
        let mut reports = Reports::default();
        loop {
            changed.mark_unchanged();
            let (report, over) = {
                let progress = prediction.progress();
                let report = reports.next(&progress, &webhook.wanted);
                (report, progress.state.status().is_terminal())
            };
            match report {
                Some((WebhookEvent::Completed, body)) => {
                    return self.deliver_last(&webhook, &body).await;
                }
                Some((_, body)) => match self.attempt(&webhook, encode(&body)).await {
                    Attempt::Arrived => {}
                    Attempt::Failed(reason) | Attempt::Refused(reason) => {
                        tracing::warn!(id = prediction.id(), "webhook not delivered: {reason}");
                    }
                },
                None if over || changed.changed().await.is_err() => return,
                None => {}
            }
        }
    }

    async fn deliver_last(&self, webhook: &Webhook, body: &Value) {
        let body = encode(body);
        let mut attempt = self.attempt(webhook, body.clone()).await;
        let _permit = match (&attempt, self.retrying.try_acquire()) {
            (Attempt::Failed(reason), Err(_)) => {
                return tracing::error!("webhook given up, too many others wait: {reason}");
            }
            (_, permit) => permit,
        };
        for number in 1..=MAX_RETRIES {
            match attempt {
                Attempt::Arrived => return,
                Attempt::Refused(reason) => return tracing::error!("webhook given up: {reason}"),
                Attempt::Failed(reason) => tracing::debug!(number, "webhook again: {reason}"),
            }
            tokio::time::sleep((self.back_off)(number)).await;
            attempt = self.attempt(webhook, body.clone()).await;
        }
        if let Attempt::Failed(reason) | Attempt::Refused(reason) = attempt {
            tracing::error!("webhook given up after {MAX_RETRIES} retries: {reason}");
        }
    }

    async fn attempt(&self, webhook: &Webhook, body: Bytes) -> Attempt {
        let Some(client) = &self.client else {
            return Attempt::Refused("there is no client".to_owned());
        };
        let request = client.post(webhook.url.clone()).headers(webhook.headers.clone()).body(body);
        match request.send().await {
            Ok(response) if response.status().is_success() => Attempt::Arrived,
            Ok(response) if RETRYABLE.contains(&response.status()) => {
                Attempt::Failed(response.status().to_string())
            }
            Ok(response) => Attempt::Refused(response.status().to_string()),
            Err(error) if is_forbidden(&error) => {
                Attempt::Refused("its address is private".to_owned())
            }
            Err(error) => Attempt::Failed(root_cause(&error.without_url())),
        }
    }
}

/// What lies under "error sending request".
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn encode(body: &Value) -> Bytes {
    Bytes::from(body.to_string())
}

fn back_off(number: u32) -> Duration {
    Duration::from_millis(100 << number.min(10))
}

#[cfg(test)]
mod tests;
