//! What the owner of a pipeline says of it: what it does, what it runs by, that it lives, and within which bounds.
//! Nothing here changes state: each request goes in as a record.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use tidegate_client::abi::{Acknowledgement, BoundsRequest, SignalsReport};

use crate::event::Input;
use crate::serve::app::{App, pipeline};
use crate::serve::body::JsonBody;
use crate::serve::handlers::tuning::settle;
use crate::serve::peer::{Peer, Role};
use crate::serve::problem::Refusal;
use crate::serve::reply::PipelineJson;
use crate::serve::view::View;
use crate::serve::{validate, watched};
use crate::units::PipelineName;

/// `POST /v1/pipelines/{name}/signals`: a pipeline without a report page says what it does.
pub async fn signals(
    State(app): State<App>,
    Extension(name): Extension<PipelineName>,
    JsonBody(report): JsonBody<SignalsReport>,
) -> Result<StatusCode, Refusal> {
    validate::report(&report)?;
    has_no_page(&app.view(), &name)?;
    app.send(Input::Report { name, report: Box::new(report) })?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/pipelines/{name}/ack`: a pipeline without a report page says what it runs by.
pub async fn ack(
    State(app): State<App>,
    Extension(name): Extension<PipelineName>,
    JsonBody(ack): JsonBody<Acknowledgement>,
) -> Result<StatusCode, Refusal> {
    has_no_page(&app.view(), &name)?;
    app.send(Input::Ack { name, ack })?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/pipelines/{name}/lease`: a pipeline without a report page says that it lives.
pub async fn lease(State(app): State<App>, Extension(name): Extension<PipelineName>) -> Result<StatusCode, Refusal> {
    pipeline(&app.view(), &name)?;
    app.send(Input::Lease { name })?;
    Ok(StatusCode::NO_CONTENT)
}

/// `PUT /v1/pipelines/{name}/bounds`: narrower ones; root widens again, up to what the pipeline registered.
pub async fn bounds(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    Extension(role): Extension<Role>,
    Extension(name): Extension<PipelineName>,
    JsonBody(request): JsonBody<BoundsRequest>,
) -> Result<Json<PipelineJson>, Refusal> {
    let view = app.view();
    let shown = pipeline(&view, &name)?;
    let within = if role == Role::Root { &shown.registration.knobs } else { &shown.bounds };
    let knobs = validate::bounds(&request, &shown.bounds, within)?;
    let view = settle(&app, Input::Bound { name: name.clone(), uid: peer.uid, knobs }).await?;
    Ok(Json(pipeline(&view, &name)?.into()))
}

/// Two accounts of the same counters would each look like a fall of the other.
fn has_no_page(view: &View, name: &PipelineName) -> Result<(), Refusal> {
    let shown = pipeline(view, name)?;
    watched::settable(shown)?;
    if shown.registration.report.is_none() {
        return Ok(());
    }
    let detail = format!("{name} reports by its page");
    let fix = "write to the page, or register without `report`";
    Err(Refusal::new(StatusCode::CONFLICT, "has-report-page", detail, fix))
}
