//! `GET /health-check`: always 200; the body says whether predictions are taken.

use axum::Json;
use jiff::Timestamp;
use pinion_cog_compat::prediction::{HealthCheck, HealthStatus, Setup, SetupStatus, VersionInfo};

use super::service::{Service, VERSION};
use super::target::Target;
use crate::supervisor::PackageState;

pub(super) async fn health_check(target: Target) -> Json<HealthCheck> {
    Json(health(&target.service))
}

fn health(service: &Service) -> HealthCheck {
    let package = &service.package;
    let state = package.state();
    let status = match &state {
        PackageState::Loading { .. } | PackageState::Restarting { .. } => HealthStatus::Starting,
        PackageState::Ready if package.max_in_flight() <= package.in_flight() => HealthStatus::Busy,
        PackageState::Ready => HealthStatus::Ready,
        PackageState::Unresponsive => HealthStatus::Unhealthy,
        PackageState::Failed(error) if error.code == "worker_defunct" => HealthStatus::Defunct,
        PackageState::Failed(_) => HealthStatus::SetupFailed,
        PackageState::Draining | PackageState::Stopped => HealthStatus::Defunct,
    };
    let logs = match &state {
        PackageState::Restarting { reason, .. } => reason.clone(),
        PackageState::Failed(error) => error.message.clone(),
        _ => package.info().map(|info| lines(&info.warnings)).unwrap_or_default(),
    };
    let times = service.setup();
    let setup_status = match (status, times.completed) {
        (HealthStatus::SetupFailed, _) => SetupStatus::Failed,
        (_, Some(_)) => SetupStatus::Succeeded,
        (_, None) => SetupStatus::Starting,
    };
    let user_healthcheck_error = (status == HealthStatus::Unhealthy)
        .then(|| "Healthcheck error: the worker does not answer".to_owned());
    HealthCheck {
        status,
        setup: Some(Setup {
            started_at: Some(rfc3339(times.started)),
            completed_at: times.completed.map(rfc3339),
            status: setup_status,
            logs: Some(logs),
        }),
        version: Some(VersionInfo {
            coglet: VERSION.to_owned(),
            git_sha: None,
            build_time: None,
            python_sdk: None,
            python: None,
        }),
        user_healthcheck_error,
    }
}

fn lines(warnings: &[String]) -> String {
    warnings.iter().flat_map(|warning| [warning.as_str(), "\n"]).collect()
}

/// With nanoseconds and a numeric offset, as Cog writes it.
fn rfc3339(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.9f+00:00").to_string()
}
