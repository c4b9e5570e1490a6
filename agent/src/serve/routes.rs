//! The table of routes: every path and method with who may use it. A router is built from it, so no route is without an
//! entry; a request that the table refuses never reaches its handler.

use axum::Router;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::{Method, header};
use axum::middleware::{Next, from_fn, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};

use crate::serve::app::App;
use crate::serve::groups::{Granted, Grants};
use crate::serve::handlers::{compare, guidance, host, knobs, owner, pipelines, profiles, tuning, watch};
use crate::serve::peer::{Peer, Role};
use crate::serve::problem::{self, Refusal};
use crate::units::{PipelineName, Uid};

/// Who may use a route. Root may use all of them, unless a name belongs to somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Any local user.
    Anyone,
    /// Root and the group that reads: figures of the whole host.
    Reader,
    /// Root, both groups, and whoever owns at least one pipeline; the handler shows each owner only his own.
    AnyOwner,
    /// Root, both groups, and the owner of the pipeline in the path.
    Viewer,
    /// Root, and the owner of the pipeline in the path.
    Owner,
    /// Root, the group that tunes, and the owner of the pipeline in the path.
    OwnerOrTuner,
    /// Root and the group that tunes.
    Tuner,
    /// Whoever the name in the path belongs to, or anyone if it is free.
    Namesake,
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Method.
    pub method: &'static Method,
    /// Path.
    pub path: &'static str,
    /// Who may use it.
    pub who: Who,
    handler: fn(MethodFilter) -> MethodRouter<App>,
}

macro_rules! routes {
    ($($method:ident $path:literal $who:ident $handler:path;)*) => {
        &[$(Route {
            method: &Method::$method,
            path: $path,
            who: Who::$who,
            handler: |filter| on(filter, $handler),
        },)*]
    };
}

/// The table.
pub static ROUTES: &[Route] = routes! {
    GET    "/v1/health"                     Anyone       host::health;
    GET    "/v1/guidance"                   Anyone       guidance::guidance;
    GET    "/v1/doctor"                     Reader       host::doctor;
    GET    "/v1/metrics"                    Reader       host::metrics;
    GET    "/v1/profiles/{kind}"            Anyone       profiles::profile;
    GET    "/v1/profiles/{kind}/diff"       Anyone       compare::diff;
    GET    "/v1/hotspots"                   Anyone       compare::hotspots;
    GET    "/v1/syscalls"                   Reader       watch::syscalls;
    GET    "/v1/sockets"                    Reader       watch::sockets;
    GET    "/v1/pipelines"                  AnyOwner     pipelines::list;
    PUT    "/v1/pipelines/{name}"           Namesake     pipelines::register;
    GET    "/v1/pipelines/{name}"           Viewer       pipelines::show;
    DELETE "/v1/pipelines/{name}"           Owner        pipelines::remove;
    GET    "/v1/pipelines/{name}/settings"  Viewer       knobs::settings;
    GET    "/v1/pipelines/{name}/signals"   Viewer       knobs::signals;
    GET    "/v1/pipelines/{name}/decisions" Viewer       knobs::decisions;
    POST   "/v1/pipelines/{name}/signals"   Owner        owner::signals;
    POST   "/v1/pipelines/{name}/ack"       Owner        owner::ack;
    POST   "/v1/pipelines/{name}/lease"     Owner        owner::lease;
    PUT    "/v1/pipelines/{name}/bounds"    Owner        owner::bounds;
    POST   "/v1/pipelines/{name}/mode"      OwnerOrTuner tuning::mode;
    PUT    "/v1/pipelines/{name}/override"  Tuner        tuning::pin;
    DELETE "/v1/pipelines/{name}/override"  Tuner        tuning::free;
    POST   "/v1/pipelines/{name}/rollback"  Tuner        tuning::roll_back;
    POST   "/v1/tuning/pause"               Tuner        tuning::pause;
    POST   "/v1/tuning/resume"              Tuner        tuning::resume;
};

/// The router of the whole table.
pub fn router(app: &App) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        let filter = MethodFilter::try_from(route.method.clone()).expect("the table holds standard methods only");
        let gate = Gate { app: app.clone(), who: route.who };
        router = router.route(route.path, (route.handler)(filter).route_layer(from_fn_with_state(gate, admit)));
    }
    router
        .fallback(no_route)
        .with_state(app.clone())
        .layer(from_fn(refuse_browsers))
        .layer(map_response(problem::dress))
}

async fn no_route(request: Request) -> Refusal {
    let table: Vec<String> = ROUTES.iter().map(|route| format!("{} {}", route.method, route.path)).collect();
    Refusal::not_found(
        "no-route",
        format!("no such path: {}", request.uri().path()),
        format!("the paths are {}", table.join(", ")),
    )
}

/// What the table says to somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    May,
    /// Not for this caller.
    MayNot,
}

/// Who asks, as the table sees him.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// What he is to the pipeline in the path.
    pub role: Role,
    /// What his groups let him do.
    pub grants: Grants,
    /// Whether somebody has the name in the path.
    pub name: NameState,
    /// What a listing would show him.
    pub owns_any: OwnsAny,
}

/// Judges by the table alone.
pub fn judge(who: Who, caller: Caller) -> Verdict {
    let Caller { role, grants, name, owns_any } = caller;
    let root = role == Role::Root;
    let reader = root || grants.read == Granted::Yes;
    let tuner = root || grants.tune == Granted::Yes;
    // A name that is free has no owner; the handler says that there is no such pipeline.
    let owner = root || role == Role::Owner || name == NameState::Free;
    let may = match who {
        Who::Anyone => true,
        Who::Reader => reader,
        Who::AnyOwner => reader || tuner || owns_any == OwnsAny::Yes,
        Who::Viewer => reader || tuner || owner,
        Who::Owner => owner,
        Who::OwnerOrTuner => owner || tuner,
        Who::Tuner => tuner,
        Who::Namesake => name != NameState::Others,
    };
    if may { Verdict::May } else { Verdict::MayNot }
}

/// To whom the name in the path belongs, as the caller sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameState {
    /// To nobody, or there is no name in the path. A handler that needs the pipeline answers 404.
    Free,
    /// To the caller.
    Own,
    /// To another user.
    Others,
}

/// Whether the caller owns any pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnsAny {
    /// At least one.
    Yes,
    /// None.
    No,
}

#[derive(Clone, Debug)]
struct Gate {
    app: App,
    who: Who,
}

async fn admit(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    match check(&gate, request).await {
        Ok(request) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

async fn check(gate: &Gate, request: Request) -> Result<Request, Refusal> {
    let (mut parts, body) = request.into_parts();
    let peer = parts.extensions.get::<Peer>().copied().ok_or_else(|| {
        Refusal::forbidden("unknown-peer", "the caller's credentials are not known", "connect by the Unix socket")
    })?;
    let name = match Path::<Vec<(String, String)>>::from_request_parts(&mut parts, &()).await {
        Ok(Path(found)) => found.into_iter().find(|(key, _)| key == "name").map(|(_, value)| value),
        Err(_no_parameters) => None,
    };
    let name = name
        .map(PipelineName::try_from)
        .transpose()
        .map_err(|bad| Refusal::bad_request("bad-name", bad.to_string(), "choose a name of those characters"))?;
    let view = gate.app.view();
    let owner: Option<Uid> = name.as_ref().and_then(|n| gate.app.claims.owner(n, &view, gate.app.now()));
    let role = peer.role(gate.app.agent, owner);
    let state = match owner {
        None => NameState::Free,
        Some(owner) if owner == peer.uid => NameState::Own,
        Some(_another) => NameState::Others,
    };
    let owns_any = if view.pipelines.iter().any(|p| p.uid == peer.uid) { OwnsAny::Yes } else { OwnsAny::No };
    match judge(gate.who, Caller { role, grants: peer.grants, name: state, owns_any }) {
        Verdict::May => {
            parts.extensions.insert(role);
            if let Some(name) = name {
                parts.extensions.insert(name);
            }
            Ok(Request::from_parts(parts, body))
        }
        Verdict::MayNot => Err(not_for(peer, gate.who, parts.uri.path())),
    }
}

fn not_for(peer: Peer, who: Who, path: &str) -> Refusal {
    let uid = peer.uid.0;
    let (code, fix) = match who {
        Who::Namesake => ("name-taken", "choose another name; this one belongs to another user"),
        Who::Owner => ("not-owner", "ask as the user who registered this pipeline, or as root"),
        Who::OwnerOrTuner => {
            ("not-owner", "ask as the user who registered this pipeline, or as a member of tidegate-tune")
        }
        Who::Viewer => ("not-owner", "ask as the user who registered this pipeline, or as a member of tidegate-read"),
        Who::AnyOwner => ("not-owner", "register a pipeline first, or ask as a member of tidegate-read"),
        Who::Reader => ("not-reader", "ask as root (sudo), or as a member of the group tidegate-read"),
        Who::Tuner => ("not-tuner", "ask as root (sudo), or as a member of the group tidegate-tune"),
        Who::Anyone => ("not-root", "ask as root (sudo)"),
    };
    Refusal::forbidden(code, format!("user {uid} may not use {path}"), fix)
}

/// A browser that was led here sends one of these; nothing else does.
async fn refuse_browsers(request: Request, next: Next) -> Response {
    let led = [header::ORIGIN, header::REFERER].into_iter().find(|h| request.headers().contains_key(h));
    match led {
        Some(field) => Refusal::forbidden(
            "from-a-browser",
            format!("the request carries the header field {field}"),
            "send it without; web pages may not speak to this socket",
        )
        .into_response(),
        None => next.run(request).await,
    }
}
