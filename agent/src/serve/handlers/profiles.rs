//! Profiles of a past span: a question in, a flame graph or text out. Drawing is the renderer's work; kinds that are not
//! recorded all the time can be asked for from now on.

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use crate::event::{Input, Watch, WatchKind};
use crate::serve::app::App;
use crate::serve::filter::{Filter, Viewer};
use crate::serve::handlers::watch::{PATIENCE, is_attached, process};
use crate::serve::peer::{Peer, Role, Sight};
use crate::serve::problem::Refusal;
use crate::serve::query::Args;
use crate::serve::render::{ProfileFormat, Question, RenderError, RenderRequest, Rendered, Stretch};
use crate::serve::span::{Edges, Span};
use crate::serve::view::View;
use crate::units::{Nanos, Pid, ProfileKind};

/// Longest time for which a kind is recorded for one request, seconds.
const LONGEST_S: u64 = 60;
/// A request takes effect at the tick after the one that brings it; slices close once a second.
const SETTLE: Nanos = Nanos(2 * Nanos::TICK.0);

/// Arguments of a profile.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileArgs {
    from: Option<String>,
    to: Option<String>,
    seconds: Option<u64>,
    pid: Option<u32>,
    cgroup: Option<String>,
    container: Option<String>,
    comm: Option<String>,
    #[serde(default)]
    format: ProfileFormat,
}

impl ProfileArgs {
    fn filter(&self) -> Filter {
        Filter {
            pid: self.pid.map(Pid),
            cgroup: self.cgroup.clone(),
            container: self.container.clone(),
            comm: self.comm.clone(),
        }
    }
}

/// `GET /v1/profiles/{kind}?from=&to=&seconds=&pid=&cgroup=&container=&comm=&format=`
pub async fn profile(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    Extension(role): Extension<Role>,
    Path(kind): Path<String>,
    Args(args): Args<ProfileArgs>,
) -> Result<Response, Refusal> {
    let kind = self::kind(&kind)?;
    let viewer = viewer(peer, role, kind)?;
    let span = match args.seconds {
        Some(seconds) => record(&app, kind, &args, seconds, viewer).await?,
        None => span(&app, args.from.as_deref(), args.to.as_deref())?,
    };
    let view = app.view();
    let question = Question { kind, span, filter: args.filter(), viewer, open: open(&view) };
    let request = RenderRequest { question, format: args.format };
    let asked = Asked {
        kind,
        from: args.from.clone().unwrap_or_else(|| "-60s".to_owned()),
        to: args.to.clone().unwrap_or_else(|| "now".to_owned()),
        filter: args.filter(),
    };
    let rendered = app.renderer.render(request).await.map_err(|error| refusal(error, &asked, &view))?;
    Ok(reply(rendered))
}

/// What was asked for, for the answer when there is nothing.
pub(super) struct Asked {
    pub(super) kind: ProfileKind,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) filter: Filter,
}

/// The kind of that name.
pub(super) fn kind(text: &str) -> Result<ProfileKind, Refusal> {
    text.parse().map_err(|bad: crate::units::NoSuchKind| {
        Refusal::not_found("no-kind", bad.to_string(), "ask for one of those, such as /v1/profiles/cpu")
    })
}

/// What the caller may see.
pub(super) fn viewer(peer: Peer, role: Role, kind: ProfileKind) -> Result<Viewer, Refusal> {
    match (peer.sight(role), kind) {
        (Sight::All, _) => Ok(Viewer::All),
        // A waker's stack is that of another process, whosever it is.
        (_, ProfileKind::Wakeup) => {
            let detail = "who woke whom shows stacks of other users";
            Err(Refusal::forbidden(
                "not-root",
                detail,
                "ask as root (sudo) or as a member of the group that reads, or for another kind",
            ))
        }
        (_, _) => Ok(Viewer::User(peer.uid)),
    }
}

/// The span asked for; the last minute when none is.
fn span(app: &App, from: Option<&str>, to: Option<&str>) -> Result<Span, Refusal> {
    Span::parse(from.unwrap_or("-60s"), to.unwrap_or("now"), app.now(), (app.wall)())
}

/// The slices of the open window.
pub(super) fn open(view: &View) -> Vec<Stretch> {
    let slices = view.slices.iter().map(|stacks| Stretch {
        stacks: stacks.clone(),
        kinds: view.recorded.clone(),
        lost: view.losses.between(stacks.start, stacks.end),
    });
    slices.collect()
}

pub(super) fn reply(rendered: Rendered) -> Response {
    let mut response = ([(header::CONTENT_TYPE, rendered.content_type)], rendered.bytes).into_response();
    // What could not be read is said beside the profile: there is no room for it in every form.
    if let Some(trouble) = rendered.trouble.and_then(|text| HeaderValue::from_str(&text).ok()) {
        response.headers_mut().insert("x-tidegate-incomplete", trouble);
    }
    response
}

/// Records a kind for some seconds, for the asking.
async fn record(
    app: &App,
    kind: ProfileKind,
    args: &ProfileArgs,
    seconds: u64,
    viewer: Viewer,
) -> Result<Span, Refusal> {
    if args.from.is_some() || args.to.is_some() {
        let detail = "seconds are from now on, from and to are of the past";
        return Err(Refusal::bad_request("bad-span", detail, "give either of them"));
    }
    if !(1..=LONGEST_S).contains(&seconds) {
        let detail = format!("{seconds} s is not from 1 s to {LONGEST_S} s");
        return Err(Refusal::bad_request("bad-seconds", detail, "ask again and again for a longer time"));
    }
    let pid = args.pid.map(process).transpose()?;
    if viewer != Viewer::All {
        let detail = "what is recorded for the asking costs the whole host";
        return Err(Refusal::forbidden("not-root", detail, "ask as root (sudo), or for what has been recorded"));
    }
    let whats: &[WatchKind] = match kind {
        ProfileKind::Cpu => &[WatchKind::Cpu],
        ProfileKind::Offcpu | ProfileKind::Runq => &[WatchKind::Sched],
        ProfileKind::Wall => &[WatchKind::Cpu, WatchKind::Sched],
        ProfileKind::Wakeup => &[WatchKind::Sched, WatchKind::Wakeups],
        ProfileKind::Sock => &[WatchKind::Sockets, WatchKind::SocketStacks],
    };
    if kind == ProfileKind::Sock && pid.is_none() {
        let fix = "give ?pid=N; sockets are watched one process at a time";
        return Err(Refusal::bad_request("pid-missing", "no process named", fix));
    }
    let (asked, length) = (app.now(), Nanos::from_secs(seconds));
    // One slice more: the last one asked for has to close before the watch ends.
    let until = asked + SETTLE + length + Nanos::from_secs(2);
    for what in whats {
        app.send(Input::Watch(Watch { what: *what, pid, until }))?;
    }
    let start = app.wait_for(PATIENCE, |view| view.now >= asked + SETTLE).await?;
    for what in whats {
        is_attached(&start, *what)?;
    }
    let last = start.now + length;
    let closed = |view: &View| {
        let newest = view.slices.last().map_or(view.closed, |slice| slice.end);
        view.now >= last && newest >= last
    };
    app.wait_for(length.into(), |view| view.now >= last).await.ok();
    let end = app.wait_for(PATIENCE, closed).await?;
    Ok(Span { now: end.now, began: end.now.since(start.now), ended: Nanos(0), edges: Edges::Touch })
}

pub(super) fn refusal(error: RenderError, asked: &Asked, view: &View) -> Refusal {
    let Asked { kind, from, to, filter } = asked;
    let kind = *kind;
    match error {
        RenderError::NotRecorded { trouble } => {
            let trouble = trouble.map(|text| format!(" ({text})")).unwrap_or_default();
            let detail = format!("{kind} was not recorded from {from} to {to}{trouble}");
            let now = format!("ask for it from now on: /v1/profiles/{kind}?seconds=10");
            let always = format!("`[profiles] kinds = [\"cpu\", \"{kind}\"]` in the configuration records it always");
            let fix = match (kind, view.recorded.contains(&kind)) {
                (_, true) => "it is recorded now: ask for a later span".to_owned(),
                (ProfileKind::Cpu, false) if !view.degraded.is_empty() => {
                    format!("see `tidegate doctor`: {}", view.degraded.join("; "))
                }
                (ProfileKind::Cpu, false) => format!("{now}; `[cpu] enabled = true` records it always"),
                (_, false) => format!("{now}; {always}"),
            };
            Refusal::not_found("not-recorded", detail, fix)
        }
        RenderError::NoBaseline => {
            let detail = format!("there is no {kind} profile of before to compare with");
            Refusal::not_found("no-baseline", detail, "name a span of before that was recorded: diff_from=, diff_to=")
        }
        RenderError::NothingSeen => {
            let whose = filter.whose();
            let detail = format!("no {kind} sample of {whose} from {from} to {to}");
            Refusal::not_found("no-samples", detail, "wait until it has run, or ask for a longer span")
        }
        error => not_drawn(&error),
    }
}

/// What a profile that could not be drawn is answered with.
fn not_drawn(error: &RenderError) -> Refusal {
    let detail = format!("the profile could not be drawn: {error}");
    match error {
        RenderError::Busy => Refusal::unavailable("busy", detail, "try again in a second"),
        RenderError::Gone => Refusal::unavailable("renderer-gone", detail, "restart the agent"),
        RenderError::Format(_)
        | RenderError::NotRecorded { .. }
        | RenderError::NothingSeen
        | RenderError::NoBaseline => {
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "not-drawn", detail, "try another format or span")
        }
    }
}
