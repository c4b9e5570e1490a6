//! Comparisons of two spans, and hot spots: what grew, as a graph and in words. As with profiles everybody gets his own.

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use serde::Deserialize;

use crate::profile::Base;
use crate::serve::app::App;
use crate::serve::compare::{Comparison, DiffFormat};
use crate::serve::filter::Filter;
use crate::serve::handlers::profiles::{Asked, kind, open, refusal, reply, viewer};
use crate::serve::peer::{Peer, Role};
use crate::serve::problem::Refusal;
use crate::serve::query::Args;
use crate::serve::render::Question;
use crate::serve::span::Span;
use crate::units::{Nanos, Pid, ProfileKind};

/// Most hot spots of one answer.
const MOST_HOTSPOTS: usize = 200;
/// What hot spots are compared with when nothing else is asked for: the ten minutes before.
const BASELINE: Nanos = Nanos::from_secs(600);

/// Arguments of a comparison.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiffArgs {
    from: Option<String>,
    to: Option<String>,
    diff_from: Option<String>,
    diff_to: Option<String>,
    pid: Option<u32>,
    cgroup: Option<String>,
    container: Option<String>,
    comm: Option<String>,
    #[serde(default)]
    format: DiffFormat,
    #[serde(default)]
    base: Widths,
}

/// Whose widths a graph has.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Widths {
    Before,
    #[default]
    After,
}

/// Arguments of hot spots.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HotspotArgs {
    kind: Option<String>,
    from: Option<String>,
    to: Option<String>,
    diff_from: Option<String>,
    diff_to: Option<String>,
    pid: Option<u32>,
    cgroup: Option<String>,
    container: Option<String>,
    comm: Option<String>,
    top: Option<usize>,
}

/// `GET /v1/profiles/{kind}/diff?from=&to=&diff_from=&diff_to=&pid=&…&format=svg|text|json&base=after|before`
pub async fn diff(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    Extension(role): Extension<Role>,
    Path(name): Path<String>,
    Args(args): Args<DiffArgs>,
) -> Result<Response, Refusal> {
    let kind = kind(&name)?;
    let DiffArgs { from, to, diff_from, diff_to, pid, cgroup, container, comm, format, base } = args;
    let (asked, span) = asked(&app, kind, from, to)?;
    let before = baseline(&app, &span, span.length(), diff_from.as_deref(), diff_to.as_deref())?;
    let base = match base {
        Widths::Before => Base::Before,
        Widths::After => Base::After,
    };
    let view = app.view();
    let filter = Filter { pid: pid.map(Pid), cgroup, container, comm };
    let asked = Asked { filter: filter.clone(), ..asked };
    let question = Question { kind, span, filter, viewer: viewer(peer, role, kind)?, open: open(&view) };
    let comparison = Comparison { before, format, base };
    let drawn = app.renderer.compare(question, comparison).await;
    drawn.map(reply).map_err(|error| refusal(error, &asked, &view))
}

/// `GET /v1/hotspots?kind=&from=&to=&diff_from=&diff_to=&pid=&…&top=`
pub async fn hotspots(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    Extension(role): Extension<Role>,
    Args(args): Args<HotspotArgs>,
) -> Result<Response, Refusal> {
    let HotspotArgs { kind: name, from, to, diff_from, diff_to, pid, cgroup, container, comm, top } = args;
    let kind = name.as_deref().map_or(Ok(ProfileKind::Cpu), kind)?;
    let (asked, span) = asked(&app, kind, from, to)?;
    let before = baseline(&app, &span, BASELINE, diff_from.as_deref(), diff_to.as_deref())?;
    let view = app.view();
    let filter = Filter { pid: pid.map(Pid), cgroup, container, comm };
    let asked = Asked { filter: filter.clone(), ..asked };
    let question = Question { kind, span, filter, viewer: viewer(peer, role, kind)?, open: open(&view) };
    let most = top.unwrap_or(20).clamp(1, MOST_HOTSPOTS);
    let ranked = app.renderer.rank(question, before, most).await;
    ranked.map(reply).map_err(|error| refusal(error, &asked, &view))
}

fn asked(app: &App, kind: ProfileKind, from: Option<String>, to: Option<String>) -> Result<(Asked, Span), Refusal> {
    let (from, to) = (from.unwrap_or_else(|| "-60s".to_owned()), to.unwrap_or_else(|| "now".to_owned()));
    let span = Span::parse(&from, &to, app.now(), (app.wall)())?;
    Ok((Asked { kind, from, to, filter: Filter::default() }, span))
}

/// The span of before: as named; by its beginning alone, as long as the other; or what lies just before that.
fn baseline(app: &App, span: &Span, length: Nanos, from: Option<&str>, to: Option<&str>) -> Result<Span, Refusal> {
    let (now, wall) = (app.now(), (app.wall)());
    match (from, to) {
        (Some(from), Some(to)) => Span::parse(from, to, now, wall),
        (Some(from), None) => {
            let named = Span::parse(from, "now", now, wall)?;
            Ok(Span { ended: named.began.since(span.length()), ..named })
        }
        (None, Some(_)) => {
            let fix = "give diff_from too, or neither for the time just before";
            Err(Refusal::bad_request("bad-span", "diff_to is given without diff_from", fix))
        }
        (None, None) => Ok(Span { began: span.began + length, ended: span.began, ..*span }),
    }
}
