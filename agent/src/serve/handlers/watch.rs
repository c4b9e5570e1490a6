//! Listings of watched processes: somebody asks, the probes attach for as long as it takes, and the rows come back.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use crate::event::{Input, Watch, WatchKind};
use crate::serve::app::App;
use crate::serve::problem::Refusal;
use crate::serve::query::Args;
use crate::serve::view::{SocketJson, SyscallJson, View};
use crate::units::{Nanos, Pid};

/// Longest watch in one request, seconds.
const LONGEST_S: u64 = 60;
/// A request takes effect at the tick after the one that brings it.
const SETTLE: Nanos = Nanos(2 * Nanos::TICK.0);
/// The watch outlives the wait by so much, so that the rows are still there when the answer is made.
const LINGER: Nanos = Nanos::SECOND;

/// Arguments of a listing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchArgs {
    pid: Option<u32>,
    #[serde(default = "one")]
    seconds: u64,
}

fn one() -> u64 {
    1
}

/// `GET /v1/syscalls?pid=&seconds=`
pub async fn syscalls(State(app): State<App>, Args(args): Args<WatchArgs>) -> Result<Json<Vec<SyscallJson>>, Refusal> {
    let view = watch(&app, WatchKind::Syscalls, &args).await?;
    let rows = view.syscalls.iter().filter(|row| args.pid.is_none_or(|pid| row.pid == pid));
    rows_or_why(&view, rows.cloned().collect()).map(Json)
}

/// `GET /v1/sockets?pid=&seconds=`
pub async fn sockets(State(app): State<App>, Args(args): Args<WatchArgs>) -> Result<Json<Vec<SocketJson>>, Refusal> {
    if args.pid.is_none() {
        let fix = "give ?pid=N; sockets are watched one process at a time";
        return Err(Refusal::bad_request("pid-missing", "no process named", fix));
    }
    let view = watch(&app, WatchKind::Sockets, &args).await?;
    let rows = view.sockets.iter().filter(|row| args.pid.is_none_or(|pid| row.pid == pid));
    rows_or_why(&view, rows.cloned().collect()).map(Json)
}

async fn watch(app: &App, what: WatchKind, args: &WatchArgs) -> Result<std::sync::Arc<View>, Refusal> {
    if args.seconds > LONGEST_S {
        let detail = format!("{} s is longer than {LONGEST_S} s", args.seconds);
        return Err(Refusal::bad_request("bad-seconds", detail, "ask again and again for a longer time"));
    }
    let ready = app.now() + Nanos::from_secs(args.seconds) + SETTLE;
    app.send(Input::Watch(Watch { what, pid: args.pid.map(Pid), until: ready + LINGER }))?;
    app.wait_for(Duration::from_secs(args.seconds + 5), |view| view.now >= ready).await
}

/// Nothing seen because nothing happened is an answer; nothing seen because the host does not let us is none.
fn rows_or_why<T>(view: &View, rows: Vec<T>) -> Result<Vec<T>, Refusal> {
    if rows.is_empty() && !view.degraded.is_empty() {
        return Err(Refusal::unavailable("degraded", view.degraded.join("; "), "see `tidegate doctor`"));
    }
    Ok(rows)
}
