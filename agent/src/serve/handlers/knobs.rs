//! One pipeline's settings, signals and decisions: now, as soon as they change, or as a stream of server-sent events.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use tidegate_client::abi::{DecisionJson, SettingsReply};

use crate::event::{Input, Watch, WatchKind};
use crate::serve::app::{App, pipeline};
use crate::serve::etag::{Known, listed, tag};
use crate::serve::feeds::{DecisionsFeed, SettingsFeed, SignalsFeed, settings_reply};
use crate::serve::peer::Role;
use crate::serve::problem::Refusal;
use crate::serve::query::{Args, Patience};
use crate::serve::stream::{EVENT_STREAM, Feed, Next, respond};
use crate::serve::view::{PipelineView, View};
use crate::units::{Generation, Nanos, PipelineName, Settings};

/// How long to wait, and for what.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettingsArgs {
    wait: Option<Patience>,
    after: Option<u64>,
}

/// `GET /v1/pipelines/{name}/settings?wait=30s&after=GENERATION`: what the settings page says. The `ETag` is the generation.
///
/// With `wait` the answer comes as soon as the generation is another than `after` (or than `If-None-Match` names), and is
/// 304 when it stays so long. With `Accept: text/event-stream` every generation is an event, the newest one first.
pub async fn settings(
    State(app): State<App>,
    Extension(name): Extension<PipelineName>,
    Extension(role): Extension<Role>,
    headers: HeaderMap,
    Args(args): Args<SettingsArgs>,
) -> Result<Response, Refusal> {
    let view = app.view();
    let shown = pipeline(&view, &name)?;
    if wants_stream(&headers) {
        let place = app.watchers.take(role)?;
        let seen = last_event(&headers)?.or(args.after);
        return Ok(respond(&app, place, SettingsFeed::new(shown, seen)));
    }
    let known = Known::of(&headers);
    let (generation, settings) = app.newest(shown);
    let seen = args.after.or_else(|| known.names(generation).then_some(generation.0));
    let Some(patience) = args.wait.filter(|_| seen == Some(generation.0)) else {
        return Ok(answer(&known, shown, generation, settings));
    };
    let _place = app.watchers.take(role)?;
    let uid = shown.uid;
    let changed = app.changed(patience.0, |view| {
        view.pipelines.iter().all(|p| p.name != name || p.uid != uid || p.generation != generation)
    });
    let Some(view) = changed.await? else {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag(generation))]).into_response());
    };
    let shown = pipeline(&view, &name)?;
    if shown.uid != uid {
        return Err(Refusal::forbidden("not-owner", format!("{name} has gone to another user"), "choose another name"));
    }
    Ok(answer(&known, shown, shown.generation, shown.settings))
}

fn answer(known: &Known, shown: &PipelineView, generation: Generation, settings: Settings) -> Response {
    let tag = tag(generation);
    if known.holds(generation) {
        return (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response();
    }
    let reply: SettingsReply = settings_reply(shown, generation, settings);
    ([(header::ETAG, tag)], Json(reply)).into_response()
}

fn wants_stream(headers: &HeaderMap) -> bool {
    listed(headers, &header::ACCEPT).any(|kind| kind.split(';').next().map(str::trim) == Some(EVENT_STREAM))
}

/// Id of the last event that the caller has seen.
fn last_event(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let id = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    id.map(Some).ok_or_else(|| {
        let detail = format!("Last-Event-ID {value:?} is no event of this socket");
        Refusal::bad_request("bad-event-id", detail, "send the id of the last event seen, or leave the header out")
    })
}

/// How long the kernel's own view of a pipeline is kept up after somebody has asked.
const LOOKED_AT: Nanos = Nanos::from_secs(60);

/// Somebody looks at a pipeline: the kernel's own view of it, beside what it reports, begins or goes on.
pub(super) fn look_closer(app: &App, shown: &PipelineView) {
    let until = app.now() + LOOKED_AT;
    // An agent that is too busy to take it up still answers with what it has.
    app.send(Input::Watch(Watch { what: WatchKind::Flows, pid: Some(shown.pid), until })).ok();
}

/// A stream of signals is a look that lasts.
struct Looking {
    app: App,
    feed: SignalsFeed,
    /// When to ask for more of it.
    again: Nanos,
}

impl Feed for Looking {
    fn next(&mut self, view: &View) -> Next {
        if view.now >= self.again
            && let Some(shown) = self.feed.shown(view)
        {
            self.again = view.now + Nanos(LOOKED_AT.0 / 2);
            look_closer(&self.app, shown);
        }
        self.feed.next(view)
    }
}

/// `GET /v1/pipelines/{name}/signals`: now, or each tick as an event. What the kernel alone tells of a pipeline that reports
/// comes from the second tick after the first question on, for a minute after the last.
pub async fn signals(
    State(app): State<App>,
    Extension(name): Extension<PipelineName>,
    Extension(role): Extension<Role>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let view = app.view();
    let shown = pipeline(&view, &name)?;
    if wants_stream(&headers) {
        let place = app.watchers.take(role)?;
        let feed = SignalsFeed::new(shown, last_event(&headers)?);
        return Ok(respond(&app, place, Looking { app: app.clone(), feed, again: Nanos(0) }));
    }
    look_closer(&app, shown);
    Ok(Json(shown.signals.clone()).into_response())
}

/// Which decisions.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecisionArgs {
    after: Option<u64>,
    limit: Option<usize>,
}

/// `GET /v1/pipelines/{name}/decisions?after=SEQUENCE&limit=N`: oldest first; a limit keeps the newest. As a stream, each
/// decision is an event.
pub async fn decisions(
    State(app): State<App>,
    Extension(name): Extension<PipelineName>,
    Extension(role): Extension<Role>,
    headers: HeaderMap,
    Args(args): Args<DecisionArgs>,
) -> Result<Response, Refusal> {
    let view = app.view();
    let shown = pipeline(&view, &name)?;
    if wants_stream(&headers) {
        let place = app.watchers.take(role)?;
        let seen = last_event(&headers)?.or(args.after);
        return Ok(respond(&app, place, DecisionsFeed::new(shown, seen)));
    }
    let fresh = shown.decisions.iter().filter(|d| args.after.is_none_or(|after| d.sequence > after));
    let mut newest: Vec<_> =
        fresh.rev().take(args.limit.unwrap_or(usize::MAX)).map(|d| DecisionJson::clone(d)).collect();
    newest.reverse();
    Ok(Json(newest).into_response())
}
