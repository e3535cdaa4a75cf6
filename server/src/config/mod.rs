//! Configuration: strings become types once, with where each value came from.

use std::net::SocketAddr;
use std::time::Duration;

/// What the daemon needs to know besides its packages. Resolved: no value means "default" here.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Keys that clients must present; empty only on loopback or with `--insecure`.
    pub api_keys: Vec<String>,
    /// Longest request body in bytes.
    pub max_body_bytes: usize,
    /// Longest wait for running requests at shutdown.
    pub drain_timeout: Duration,
    /// Silence after which a stream carries a heartbeat.
    pub heartbeat: Duration,
    /// Bearer token of webhook deliveries.
    pub webhook_token: Option<String>,
    /// Whether webhooks may reach private addresses.
    pub allow_private_webhooks: bool,
}
