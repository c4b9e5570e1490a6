//! Profiles of a past span: windows of the view in, a flame graph or text out. Drawing is the renderer's work.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use crate::serve::app::App;
use crate::serve::problem::Refusal;
use crate::serve::query::{Args, instant};
use crate::serve::render::{ProfileFormat, RenderError, RenderRequest};
use crate::units::Pid;

/// Arguments of a profile.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileArgs {
    #[serde(default = "a_minute_ago")]
    from: String,
    #[serde(default = "until_now")]
    to: String,
    pid: Option<u32>,
    #[serde(default)]
    format: Format,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Svg,
    Folded,
    Json,
}

fn a_minute_ago() -> String {
    "-60s".to_owned()
}

fn until_now() -> String {
    "now".to_owned()
}

/// `GET /v1/profiles/cpu?from=&to=&pid=&format=svg|folded|json`
pub async fn cpu(State(app): State<App>, Args(args): Args<ProfileArgs>) -> Result<Response, Refusal> {
    let now = app.now();
    let (from, to) = (instant(&args.from, now)?, instant(&args.to, now)?);
    if from >= to {
        let detail = format!("from {} is not before to {}", args.from, args.to);
        return Err(Refusal::bad_request("bad-span", detail, "exchange from and to"));
    }
    let view = app.view();
    let profiles: Vec<_> = view.profiles.iter().filter(|w| w.end >= from && w.start <= to).cloned().collect();
    let pid = args.pid.map(Pid);
    let sampled = profiles.iter().flat_map(|w| w.counts.keys()).any(|key| pid.is_none_or(|pid| key.pid == pid));
    if !sampled {
        let whose = pid.map_or_else(|| "the host".to_owned(), |pid| format!("process {pid}"));
        let detail = format!("no CPU sample of {whose} from {} to {}", args.from, args.to);
        let why = if view.degraded.is_empty() {
            "wait until it has run, or ask for a longer span".to_owned()
        } else {
            format!("see `tidegate doctor`: {}", view.degraded.join("; "))
        };
        return Err(Refusal::not_found("no-samples", detail, why));
    }
    let format = match args.format {
        Format::Svg => ProfileFormat::Svg,
        Format::Folded => ProfileFormat::Folded,
        Format::Json => ProfileFormat::Json,
    };
    let request = RenderRequest { profiles, pid, format, from, to, lost: view.losses.between(from, to) };
    let rendered = app.renderer.render(request).await.map_err(|error| not_drawn(&error))?;
    Ok(([(header::CONTENT_TYPE, rendered.content_type)], rendered.bytes).into_response())
}

fn not_drawn(error: &RenderError) -> Refusal {
    let detail = format!("the profile could not be drawn: {error}");
    match error {
        RenderError::Busy => Refusal::unavailable("busy", detail, "try again in a second"),
        RenderError::Gone => Refusal::unavailable("renderer-gone", detail, "restart the agent"),
        RenderError::Flame(_) | RenderError::Json(_) => {
            let status = axum::http::StatusCode::INTERNAL_SERVER_ERROR;
            Refusal::new(status, "not-drawn", detail, "try another format or span")
        }
    }
}
