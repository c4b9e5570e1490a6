//! The host as a whole: is the agent well, what can it see here, and its figures for a metrics system.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::serve::app::App;
use crate::serve::check::Check;
use crate::serve::metrics;
use crate::serve::problem::Refusal;
use crate::serve::reply::HealthJson;
use crate::units::Nanos;

/// A run loop that has not turned for so long is stuck.
const STUCK_AFTER: Nanos = Nanos::from_secs(5);
/// Media type of the metrics.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `GET /v1/health`
pub async fn health(State(app): State<App>) -> Result<Json<HealthJson>, Refusal> {
    let (view, now) = (app.view(), app.now());
    let age = now.since(view.now);
    if age > STUCK_AFTER {
        let detail = format!("the run loop has not turned for {:.1} s", age.as_secs_f64());
        return Err(Refusal::unavailable("stuck", detail, "restart the agent and report its log"));
    }
    Ok(Json(HealthJson {
        status: if view.degraded.is_empty() { "ok" } else { "degraded" }.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_s: now.since(view.started).0 / Nanos::SECOND.0,
        tick_age_ms: age.0 / 1_000_000,
        paused: view.paused,
        attached: view.attached.iter().map(|probe| (*probe).to_owned()).collect(),
        remarks: view.remarks.clone(),
        degraded: view.degraded.clone(),
    }))
}

/// `GET /v1/doctor`
pub async fn doctor(State(app): State<App>) -> Result<Json<Vec<Check>>, Refusal> {
    // It reads a file of some megabytes: not on the thread that tunes.
    tokio::task::spawn_blocking(move || app.preflight.run()).await.map(Json).map_err(|e| {
        Refusal::unavailable("preflight-failed", format!("the preflight broke off: {e}"), "run `tidegate doctor`")
    })
}

/// `GET /v1/metrics`
pub async fn metrics(State(app): State<App>) -> Response {
    let text = metrics::render(&app.view(), app.inbox.refused());
    ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response()
}
