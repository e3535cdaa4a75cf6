//! Counts of HTTP answers.

use std::collections::BTreeMap;

use axum::http::{Method, StatusCode};
use parking_lot::Mutex;

/// Answers by method, route and status.
#[derive(Debug, Default)]
pub struct HttpMetrics {
    /// A mutex because every connection counts here, for the length of one addition.
    answers: Mutex<BTreeMap<(String, String, u16), u64>>,
}

impl HttpMetrics {
    /// Counts an answer. `route` is the route's pattern, not the path, so that clients cannot grow
    /// the table; the method is one of a few for the same reason.
    pub fn answered(&self, method: &Method, route: &str, status: StatusCode) {
        let known = [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::HEAD];
        let method = if known.contains(method) { method.as_str() } else { "other" };
        let key = (method.to_owned(), route.to_owned(), status.as_u16());
        *self.answers.lock().entry(key).or_default() += 1;
    }

    /// Method, route, status and count of what was answered so far.
    pub fn answers(&self) -> Vec<(String, String, u16, u64)> {
        let answers = self.answers.lock();
        answers
            .iter()
            .map(|((method, route, status), count)| {
                (method.clone(), route.clone(), *status, *count)
            })
            .collect()
    }
}
