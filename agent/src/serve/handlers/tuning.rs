//! A human takes the knobs, or gives them back; tuning as a whole is paused or goes on. For root and the group that tunes;
//! the mode of a pipeline is its owner's business too.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::{Extension, Json};
use tidegate_client::abi::{ModeRequest, OverrideRequest};

use crate::event::Input;
use crate::serve::app::{App, pipeline};
use crate::serve::body::JsonBody;
use crate::serve::etag::check_unchanged;
use crate::serve::peer::Peer;
use crate::serve::problem::Refusal;
use crate::serve::reply::PipelineJson;
use crate::serve::view::View;
use crate::serve::{validate, watched};
use crate::units::{Nanos, PipelineName};

/// `PUT /v1/pipelines/{name}/override`. With `If-Match` only while the settings are still those that the caller has seen.
pub async fn pin(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    Extension(name): Extension<PipelineName>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<OverrideRequest>,
) -> Result<Json<PipelineJson>, Refusal> {
    let view = app.view();
    let shown = pipeline(&view, &name)?;
    watched::settable(shown)?;
    check_unchanged(&headers, app.newest(shown).0)?;
    let knobs = shown.bounds;
    validate::pin(&request, &knobs)?;
    let view = settle(&app, Input::Override { name: name.clone(), uid: peer.uid, request }).await?;
    Ok(Json(pipeline(&view, &name)?.into()))
}

/// `DELETE /v1/pipelines/{name}/override`, likewise.
pub async fn free(
    State(app): State<App>,
    Extension(name): Extension<PipelineName>,
    headers: HeaderMap,
) -> Result<Json<PipelineJson>, Refusal> {
    check_unchanged(&headers, app.newest(pipeline(&app.view(), &name)?).0)?;
    let view = settle(&app, Input::Free { name: name.clone() }).await?;
    Ok(Json(pipeline(&view, &name)?.into()))
}

/// `POST /v1/pipelines/{name}/rollback`: back to the settings before the newest change.
pub async fn roll_back(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    Extension(name): Extension<PipelineName>,
) -> Result<Json<PipelineJson>, Refusal> {
    watched::settable(pipeline(&app.view(), &name)?)?;
    let view = settle(&app, Input::RollBack { name: name.clone(), uid: peer.uid }).await?;
    Ok(Json(pipeline(&view, &name)?.into()))
}

/// `POST /v1/pipelines/{name}/mode`: whether the agent may act.
pub async fn mode(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    Extension(name): Extension<PipelineName>,
    JsonBody(request): JsonBody<ModeRequest>,
) -> Result<Json<PipelineJson>, Refusal> {
    watched::settable(pipeline(&app.view(), &name)?)?;
    let view = settle(&app, Input::SetMode { name: name.clone(), uid: peer.uid, mode: request.mode }).await?;
    Ok(Json(pipeline(&view, &name)?.into()))
}

/// `POST /v1/tuning/pause`: settings stay where they are.
pub async fn pause(State(app): State<App>) -> Result<StatusCode, Refusal> {
    app.send(Input::Pause)?;
    app.taken_up(|view| view.paused).await.map(|_view| StatusCode::NO_CONTENT)
}

/// `POST /v1/tuning/resume`
pub async fn resume(State(app): State<App>) -> Result<StatusCode, Refusal> {
    app.send(Input::Resume)?;
    app.taken_up(|view| !view.paused).await.map(|_view| StatusCode::NO_CONTENT)
}

/// Hands the request over and waits for a view that knows of it: the second tick from now at the latest.
pub(super) async fn settle(app: &App, input: Input) -> Result<Arc<View>, Refusal> {
    let known = app.now() + Nanos(2 * Nanos::TICK.0);
    app.send(input)?;
    app.taken_up(move |view| view.now >= known).await
}
