//! The life of a package.

use std::time::Duration;

use crate::error::ApiError;
use crate::ipc::LoadStage;

/// Where a package is in its life; health, metrics and routes read it.
#[derive(Clone, Debug, PartialEq)]
pub enum PackageState {
    /// The worker loads.
    Loading {
        /// What it does.
        stage: LoadStage,
        /// Bytes done.
        done: u64,
        /// Bytes in all, zero if unknown.
        total: u64,
    },
    /// Requests run.
    Ready,
    /// The worker has not answered for most of a second; it is killed if that goes on.
    Unresponsive,
    /// The worker died and comes back.
    Restarting {
        /// Deaths in a row.
        attempt: u32,
        /// Why the last one died.
        reason: String,
        /// When the next one starts.
        after: Duration,
    },
    /// The package cannot be served: it does not load, or kills its worker again and again.
    Failed(ApiError),
    /// Running requests end, new ones are refused.
    Draining,
    /// The worker is gone for good.
    Stopped,
}

/// `PackageState` without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are those of PackageState")]
pub enum StateKind {
    Loading,
    Ready,
    Unresponsive,
    Restarting,
    Failed,
    Draining,
    Stopped,
}

impl PackageState {
    /// Which state.
    pub fn kind(&self) -> StateKind {
        match self {
            Self::Loading { .. } => StateKind::Loading,
            Self::Ready => StateKind::Ready,
            Self::Unresponsive => StateKind::Unresponsive,
            Self::Restarting { .. } => StateKind::Restarting,
            Self::Failed(_) => StateKind::Failed,
            Self::Draining => StateKind::Draining,
            Self::Stopped => StateKind::Stopped,
        }
    }

    /// Why a new request is refused now, if it is.
    pub fn refusal(&self, package: &str) -> Option<ApiError> {
        let loading = |why: String, after| Some(ApiError::later("model_loading", why, after));
        match self {
            Self::Ready => None,
            Self::Loading { .. } => {
                loading(format!("the package is still loading: {package}"), Duration::from_secs(1))
            }
            Self::Restarting { reason, after, .. } => loading(
                format!("the worker of the package is restarting: {package}: {reason}"),
                after.saturating_add(Duration::from_secs(1)),
            ),
            Self::Unresponsive => Some(ApiError::node(
                "worker_unresponsive",
                format!("the worker of the package does not answer: {package}"),
            )),
            Self::Failed(error) => Some(ApiError::model(
                "model_failed",
                format!("the package cannot be served: {package}: {}", error.message),
            )),
            Self::Draining | Self::Stopped => Some(ApiError::node(
                "draining",
                format!("the package takes no new requests: {package}"),
            )),
        }
    }
}

impl StateKind {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Loading,
        Self::Ready,
        Self::Unresponsive,
        Self::Restarting,
        Self::Failed,
        Self::Draining,
        Self::Stopped,
    ];

    /// Lower-case name for logs, metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Ready => "ready",
            Self::Unresponsive => "unresponsive",
            Self::Restarting => "restarting",
            Self::Failed => "failed",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }
}
