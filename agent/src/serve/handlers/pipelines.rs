//! Pipelines come, are shown, and go. Registration is idempotent: the same name from the same user takes over.

use std::path::PathBuf;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use tidegate_client::abi::{Registration, RegistrationReply, VALUE_NAMES};

use crate::event::Input;
use crate::serve::app::{App, pipeline};
use crate::serve::body::JsonBody;
use crate::serve::claims::{Claim, IN_ALL, PER_USER, Refused};
use crate::serve::groups::Granted;
use crate::serve::handlers::knobs::look_closer;
use crate::serve::peer::{Peer, Role, Sight};
use crate::serve::problem::Refusal;
use crate::serve::reply::PipelineJson;
use crate::serve::view::PipelineView;
use crate::serve::{validate, watched};
use crate::units::PipelineName;

/// `GET /v1/pipelines`: all of them for root and for whoever may see or tune what belongs to others, his own for anybody
/// else.
pub async fn list(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    Extension(role): Extension<Role>,
) -> Json<Vec<PipelineJson>> {
    let view = app.view();
    let sees_all = peer.sight(role) == Sight::All || peer.grants.tune == Granted::Yes;
    let shown = view.pipelines.iter().filter(|p| sees_all || p.uid == peer.uid);
    Json(shown.map(PipelineJson::from).collect())
}

/// `GET /v1/pipelines/{name}`
pub async fn show(
    State(app): State<App>,
    Extension(name): Extension<PipelineName>,
) -> Result<Json<PipelineJson>, Refusal> {
    let view = app.view();
    let shown = pipeline(&view, &name)?;
    look_closer(&app, shown);
    Ok(Json(shown.into()))
}

/// `PUT /v1/pipelines/{name}`
pub async fn register(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    Extension(role): Extension<Role>,
    Extension(name): Extension<PipelineName>,
    JsonBody(registration): JsonBody<Registration>,
) -> Result<(StatusCode, Json<RegistrationReply>), Refusal> {
    validate::registration(&registration)?;
    watched::check(&registration)?;
    let process = match &registration.watch {
        Some(watch) => Some(watched::process(watch, &peer, role)?),
        None => peer.process,
    };
    let Some(process) = process else {
        let detail = "the process at the other end cannot be seen from here";
        let fix = "register from the pipeline's own process, in the agent's process namespace";
        return Err(Refusal::forbidden("unknown-process", detail, fix));
    };
    let view = app.view();
    let known = view.pipelines.iter().any(|p| p.name == name);
    let claim = Claim { uid: peer.uid, process, at: app.now() };
    app.claims.claim(&name, claim, &view).map_err(|refused| claim_refused(&name, refused))?;
    let resumed = app.pages.look(peer.uid, &name);
    app.send(Input::Register {
        name: name.clone(),
        pid: process.pid,
        start_ticks: process.start_ticks,
        uid: peer.uid,
        registration: Box::new(registration.clone()),
        resumed,
    })?;
    let is_taken_up = |p: &PipelineView| {
        p.name == name && p.pid == process.pid && p.uid == peer.uid && *p.registration == registration
    };
    let view = app.taken_up(|view| view.pipelines.iter().any(is_taken_up)).await?;
    let shown = pipeline(&view, &name)?;
    let is_watched = registration.watch.is_some();
    if !is_watched && app.pages.look(peer.uid, &name).is_none() {
        let why = view.degraded.iter().find(|line| line.contains(name.as_str())).cloned();
        let detail = why.unwrap_or_else(|| format!("the settings page of {name} could not be written"));
        return Err(Refusal::unavailable("no-page", detail, "see the agent's log; free room or correct the directory"));
    }
    let reply = RegistrationReply {
        name: name.to_string(),
        settings_page: if is_watched { PathBuf::new() } else { app.pages.path(peer.uid, &name) },
        values: VALUE_NAMES.map(str::to_owned).to_vec(),
        generation: shown.generation.0,
        mode: registration.mode,
    };
    Ok((if known { StatusCode::OK } else { StatusCode::CREATED }, Json(reply)))
}

fn claim_refused(name: &PipelineName, refused: Refused) -> Refusal {
    match refused {
        Refused::Taken(owner) => {
            Refusal::forbidden("name-taken", format!("{name} belongs to user {}", owner.0), "choose another name")
        }
        Refused::TooMany => Refusal::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many-pipelines",
            format!("at most {PER_USER} pipelines of a user and {IN_ALL} in all"),
            "remove pipelines that are no longer needed: DELETE /v1/pipelines/{name}",
        ),
    }
}

/// `DELETE /v1/pipelines/{name}`
pub async fn remove(State(app): State<App>, Extension(name): Extension<PipelineName>) -> Result<StatusCode, Refusal> {
    pipeline(&app.view(), &name)?;
    app.send(Input::Gone { name: name.clone() })?;
    app.taken_up(|view| view.pipelines.iter().all(|p| p.name != name)).await?;
    if let Some(claim) = app.claims.of(&name) {
        app.claims.release(&name, claim.process);
    }
    Ok(StatusCode::NO_CONTENT)
}
