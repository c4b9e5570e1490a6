//! One pipeline's settings, signals, decisions and lease, for its owner.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use tidegate_client::abi::{DecisionJson, SettingsReply, SignalsJson};

use crate::event::Input;
use crate::serve::app::{App, pipeline};
use crate::serve::problem::Refusal;
use crate::serve::query::Args;
use crate::units::PipelineName;

/// Reason of settings that no decision led to.
const NO_DECISION: &str = "defaults";

/// `GET /v1/pipelines/{name}/settings`: what the settings page says. The `ETag` is the generation.
pub async fn settings(
    State(app): State<App>,
    Extension(name): Extension<PipelineName>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let view = app.view();
    let shown = pipeline(&view, &name)?;
    let (generation, settings) = app.pages.look(shown.uid, &name).unwrap_or((shown.generation, shown.settings));
    let etag = format!("\"{}\"", generation.0);
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok());
    let known = known.flat_map(|list| list.split(',')).map(|tag| tag.trim().trim_start_matches("W/"));
    let unchanged = known.into_iter().any(|tag| tag == etag || tag == "*");
    let tag = HeaderValue::from_str(&etag).expect("a number in quotes is a valid header");
    if unchanged {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    let reason = shown.decisions.iter().rev().find(|d| d.generation == generation.0).map(|d| d.reason.clone());
    let reply = SettingsReply {
        name: name.to_string(),
        generation: generation.0,
        batch_bytes: settings.batch.0,
        flush_interval_us: settings.interval.0,
        reason: reason.unwrap_or_else(|| NO_DECISION.to_owned()),
        ttl_ms: shown.registration.lease.ttl_ms,
    };
    Ok(([(header::ETAG, tag)], Json(reply)).into_response())
}

/// `GET /v1/pipelines/{name}/signals`
pub async fn signals(
    State(app): State<App>,
    Extension(name): Extension<PipelineName>,
) -> Result<Json<SignalsJson>, Refusal> {
    Ok(Json(pipeline(&app.view(), &name)?.signals.clone()))
}

/// Which decisions.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecisionArgs {
    after: Option<u64>,
    limit: Option<usize>,
}

/// `GET /v1/pipelines/{name}/decisions?after=SEQUENCE&limit=N`: oldest first; a limit keeps the newest.
pub async fn decisions(
    State(app): State<App>,
    Extension(name): Extension<PipelineName>,
    Args(args): Args<DecisionArgs>,
) -> Result<Json<Vec<DecisionJson>>, Refusal> {
    let view = app.view();
    let all = &pipeline(&view, &name)?.decisions;
    let fresh = all.iter().filter(|d| args.after.is_none_or(|after| d.sequence > after));
    let mut newest: Vec<_> =
        fresh.rev().take(args.limit.unwrap_or(usize::MAX)).map(|d| DecisionJson::clone(d)).collect();
    newest.reverse();
    Ok(Json(newest))
}

/// `POST /v1/pipelines/{name}/lease`: a pipeline without a report page says that it lives.
pub async fn lease(State(app): State<App>, Extension(name): Extension<PipelineName>) -> Result<StatusCode, Refusal> {
    pipeline(&app.view(), &name)?;
    app.send(Input::Lease { name })?;
    Ok(StatusCode::NO_CONTENT)
}
