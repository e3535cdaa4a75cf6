//! What the node measures about itself, and how it tells.

mod histogram;
mod http;
mod package;
mod prometheus;
#[cfg(test)]
mod tests;

pub use histogram::Histogram;
pub use http::HttpMetrics;
pub use package::{Outcome, PackageMetrics, Timing};
pub(crate) use prometheus::render;
pub use prometheus::{Kind, METRICS, Metric};
