//! The body of `GET /health-check`, in Cog's order of fields.
use serde::{Deserialize, Serialize};

/// The body of `GET /health-check`; the status code is always 200.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// Whether predictions are taken.
    pub status: HealthStatus,
    /// How the setup went.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub setup: Option<Setup>,
    /// What answers; absent before Cog 0.17.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionInfo>,
    /// What the model's own check said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_healthcheck_error: Option<String>,
}

/// Whether a node takes predictions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum HealthStatus {
    /// Nothing is known yet.
    Unknown,
    /// The model is being set up.
    Starting,
    /// Predictions are taken.
    Ready,
    /// Ready, with no slot free.
    Busy,
    /// The setup has failed; only a restart helps.
    SetupFailed,
    /// What runs the model has ended and does not come back.
    Defunct,
    /// The model's own check fails; predictions are still taken.
    Unhealthy,
}

/// How the setup of a model went. Times are RFC 3339.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<String>,
    /// How it stands.
    pub status: SetupStatus,
    /// What it wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs: Option<String>,
}

/// Where a setup stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SetupStatus {
    /// It runs.
    Starting,
    /// It has ended well.
    Succeeded,
    /// It has failed.
    Failed,
}

/// The versions of what answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionInfo {
    /// The HTTP server.
    pub coglet: String,
    /// The commit it was built from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub git_sha: Option<String>,
    /// When it was built.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_time: Option<String>,
    /// Cog's Python SDK; a native package has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub python_sdk: Option<String>,
    /// Python; a native package has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub python: Option<String>,
}
