//! Listings of watched processes: somebody asks, the probes attach for as long as it takes, and the rows come back.
//!
//! A listing is about the seconds that were asked for and nothing else: the rows at the first tick that surely has the
//! probes attached are remembered, and what they hold is taken off the rows at the last.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use crate::event::{Input, Watch, WatchKind};
use crate::serve::app::App;
use crate::serve::listing::{sockets_between, syscalls_between};
use crate::serve::problem::Refusal;
use crate::serve::query::Args;
use crate::serve::view::{SocketJson, SyscallJson, View};
use crate::source::processes::look_up;
use crate::units::{Nanos, Pid};

/// Longest watch in one request, seconds.
const LONGEST_S: u64 = 60;
/// Highest process number that Linux gives out (`PID_MAX_LIMIT`).
const HIGHEST_PID: u32 = 1 << 22;
/// A request takes effect at the tick after the one that brings it.
const SETTLE: Nanos = Nanos(2 * Nanos::TICK.0);
/// The watch outlives the wait by so much, so that its probes are attached until the answer is made.
const LINGER: Nanos = Nanos::SECOND;
/// Time that the run loop gets beyond what a watch needs.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

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

/// The views at both ends of a watch.
struct Span {
    start: Arc<View>,
    end: Arc<View>,
}

/// `GET /v1/syscalls?pid=&seconds=`
pub async fn syscalls(State(app): State<App>, Args(args): Args<WatchArgs>) -> Result<Json<Vec<SyscallJson>>, Refusal> {
    let pid = args.pid.map(process).transpose()?;
    let span = watch(&app, WatchKind::Syscalls, pid, args.seconds).await?;
    Ok(Json(syscalls_between(&span.start.syscalls, &span.end.syscalls, pid, |pid| look_up(pid).is_some())))
}

/// `GET /v1/sockets?pid=&seconds=`
pub async fn sockets(State(app): State<App>, Args(args): Args<WatchArgs>) -> Result<Json<Vec<SocketJson>>, Refusal> {
    let Some(pid) = args.pid else {
        let fix = "give ?pid=N; sockets are watched one process at a time";
        return Err(Refusal::bad_request("pid-missing", "no process named", fix));
    };
    let pid = process(pid)?;
    let span = watch(&app, WatchKind::Sockets, Some(pid), args.seconds).await?;
    Ok(Json(sockets_between(&span.start.sockets, &span.end.sockets, pid)))
}

/// The process of that number: a typing error should not look like an idle process.
pub(super) fn process(pid: u32) -> Result<Pid, Refusal> {
    if pid == 0 || pid > HIGHEST_PID {
        let detail = format!("pid {pid} is no process number");
        return Err(Refusal::bad_request("bad-pid", detail, format!("give a number from 1 to {HIGHEST_PID}")));
    }
    if look_up(Pid(pid)).is_none() {
        let fix = "`ps -e` lists the processes there are; numbers are those of the agent's process namespace";
        return Err(Refusal::not_found("no-process", format!("there is no process {pid}"), fix));
    }
    Ok(Pid(pid))
}

async fn watch(app: &App, what: WatchKind, pid: Option<Pid>, seconds: u64) -> Result<Span, Refusal> {
    if !(1..=LONGEST_S).contains(&seconds) {
        let detail = format!("{seconds} s is not from 1 s to {LONGEST_S} s");
        return Err(Refusal::bad_request("bad-seconds", detail, "ask again and again for a longer time"));
    }
    let (asked, length) = (app.now(), Nanos::from_secs(seconds));
    app.send(Input::Watch(Watch { what, pid, until: asked + SETTLE + length + LINGER }))?;
    let start = app.wait_for(PATIENCE, |view| view.now >= asked + SETTLE).await?;
    is_attached(&start, what)?;
    let last = start.now + length;
    let end = app.wait_for(Duration::from_secs(seconds) + PATIENCE, |view| view.now >= last).await?;
    is_attached(&end, what)?;
    Ok(Span { start, end })
}

/// Nothing seen because nothing happened is an answer; nothing seen because the host does not let us is none.
pub(super) fn is_attached(view: &View, what: WatchKind) -> Result<(), Refusal> {
    if view.attached.contains(&what.family()) {
        return Ok(());
    }
    let why = match view.degraded.as_slice() {
        [] => "no cause is known".to_owned(),
        lines => lines.join("; "),
    };
    let detail = format!("the probes of {} are not attached: {why}", what.family());
    Err(Refusal::unavailable("degraded", detail, "see `tidegate doctor`"))
}
