//! Listings of watched processes: about the seconds that were asked for, and about processes that there are.

use std::sync::Arc;
use std::time::Duration;

use agent_common::{RESIDENCY_BUCKETS, SYSCALL_BUCKETS, SocketRow, SocketSeen, SocketStats, SyscallRow};
use serde_json::{Value, json};
use tidegate::event::Input;
use tidegate::serve::view::{Listed, View};
use tidegate::units::Nanos;

use crate::serve_kit::{Answer, NOW, Stage, stage, view};

/// A process that surely lives, and one that surely does not.
const LIVES: fn() -> u32 = std::process::id;
const DEAD: u32 = 4_194_304;

fn calls(pid: u32, nr: u32, calls: u64, in_flight: u64) -> Listed<SyscallRow> {
    let mut histogram = [0; SYSCALL_BUCKETS];
    // What came later took longer: a quantile over everything is another than one over the span.
    (histogram[20], histogram[60]) = (calls.min(1_000), calls.saturating_sub(1_000));
    let row = SyscallRow {
        pid,
        nr,
        calls,
        errors: 0,
        restarts: 0,
        result_sum: 10 * calls,
        timed: calls,
        total_ns: 1_000 * calls,
        in_flight,
        histogram,
    };
    Listed { row: Arc::new(row), comm: None }
}

fn socket(cookie: u64, fd: i32, reads: u64) -> Listed<SocketRow> {
    let seen = SocketSeen { cookie, pid: LIVES(), fd, kind: 2, inode: cookie, ..SocketSeen::ZERO };
    let stats = SocketStats {
        pid: LIVES(),
        kind: 2,
        reads,
        read_bytes: 100 * reads,
        measured_bytes: 100 * reads,
        byte_us: 0,
        unmeasured_bytes: 0,
        merged: 0,
        oldest: [0; RESIDENCY_BUCKETS],
        bytes: [0; RESIDENCY_BUCKETS],
    };
    Listed { row: Arc::new(SocketRow { seen, stats }), comm: None }
}

/// Asks, and shows the view `after` each of those times.
async fn watched(stage: &Stage, path: &str, shown: Vec<(Nanos, View)>) -> Answer {
    let show = async {
        for (after, view) in shown {
            // In paused time this ends when nothing else can go on: the view before it has been looked at.
            tokio::time::sleep(Duration::from_millis(10)).await;
            stage.views.send_replace(Arc::new(View { now: NOW + after, ..view }));
        }
    };
    tokio::join!(stage.ask(0, "GET", path, ""), show).0
}

fn attached(family: &'static str) -> View {
    // Some other thing that does not work here must not matter.
    View { attached: vec![family], degraded: vec!["cpu: refused".to_owned()], ..view(Vec::new()) }
}

fn rows(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json().as_array().expect("a listing is an array").clone()
}

#[tokio::test(start_paused = true)]
async fn calls_before_the_watch_are_not_in_its_listing() {
    let me = LIVES();
    let start = vec![calls(me, 0, 1_000, 0), calls(me, 39, 700, 0), calls(me, 230, 0, 1), calls(DEAD, 0, 50, 2)];
    let end = vec![calls(me, 0, 1_005, 0), start[1].clone(), start[2].clone(), start[3].clone(), calls(me, 1, 2, 0)];
    let shown = |rows: &Vec<_>| View { syscalls: Arc::new(rows.clone()), ..attached("syscalls") };
    let mut stage = stage(attached("syscalls"));
    let asked = vec![
        (Nanos::TICK, shown(&Vec::new())),
        (Nanos(3 * Nanos::TICK.0), shown(&start)),
        (Nanos::SECOND, shown(&vec![calls(me, 0, 9_999, 0)])),
        (Nanos(13 * Nanos::TICK.0), shown(&end)),
    ];
    let listing = rows(&watched(&stage, "/v1/syscalls?seconds=1", asked).await);
    let told: Vec<_> = listing.iter().map(|r| json!([r["syscall"], r["calls"], r["in_flight"], r["bytes"]])).collect();
    assert_eq!(
        told,
        [json!(["read", 5, 0, 50]), json!(["write", 2, 0, 20]), json!(["clock_nanosleep", 0, 1, null])],
        "dearest first; nothing of a dead process, nothing that was not called"
    );
    let (p50, p99) = (listing[0]["p50_ns"].as_u64().unwrap(), listing[0]["p99_ns"].as_u64().unwrap());
    assert!(p50 > 10_000 && p99 < 2 * p50, "quantiles of the span alone: {p50} {p99}");
    let inputs: Vec<Input> = std::iter::from_fn(|| stage.inbox.try_next()).collect();
    assert!(matches!(inputs[..], [Input::Watch(w)] if w.pid.is_none() && w.until > NOW + Nanos::SECOND), "{inputs:?}");
}

#[tokio::test(start_paused = true)]
async fn sockets_tell_what_was_read_in_the_watch_and_closed_ones_only_when_something_was() {
    let start = vec![socket(1, 3, 100), socket(2, -1, 70), socket(3, 4, 10), socket(4, 5, 8)];
    let end = vec![
        socket(1, 3, 104),
        start[1].clone(),
        socket(3, -1, 11),
        // Left over from an earlier watch: nobody has told of it since.
        start[3].clone(),
        socket(5, -1, 0),
        socket(6, 9, 0),
    ];
    let shown = |rows: &Vec<_>| View { sockets: Arc::new(rows.clone()), ..attached("sockets") };
    let asked = vec![(Nanos(2 * Nanos::TICK.0), shown(&start)), (Nanos::from_secs(2), shown(&end))];
    let path = format!("/v1/sockets?pid={}", LIVES());
    let listing = rows(&watched(&stage(attached("sockets")), &path, asked).await);
    let told: Vec<_> = listing.iter().map(|r| json!([r["inode"], r["fd"], r["reads"], r["read_bytes"]])).collect();
    assert_eq!(told, [json!([1, 3, 4, 400]), json!([6, 9, 0, 0]), json!([3, null, 1, 100])]);
}

#[tokio::test(start_paused = true)]
async fn nothing_seen_is_an_answer_only_where_something_could_be_seen() {
    let quiet = vec![(Nanos(2 * Nanos::TICK.0), attached("syscalls")), (Nanos::from_secs(2), attached("syscalls"))];
    assert_eq!(rows(&watched(&stage(attached("syscalls")), "/v1/syscalls", quiet).await), [Value::Null; 0]);
    let blind = vec![(Nanos(2 * Nanos::TICK.0), attached("sockets"))];
    let answer = watched(&stage(attached("sockets")), "/v1/syscalls", blind).await;
    assert_eq!((answer.status, answer.problem().as_str()), (503, "degraded"));
    assert!(answer.body.contains("cpu: refused"), "the cause is told: {answer:?}");
}

#[tokio::test]
async fn a_process_that_does_not_exist_is_told_from_one_that_does_nothing() {
    let mut stage = stage(attached("syscalls"));
    for (query, status, code) in [
        ("pid=4194304", 404, "no-process"),
        ("pid=4194305", 400, "bad-pid"),
        ("pid=0", 400, "bad-pid"),
        ("pid=1&seconds=0", 400, "bad-seconds"),
    ] {
        for what in ["syscalls", "sockets"] {
            let answer = stage.ask(0, "GET", &format!("/v1/{what}?{query}"), "").await;
            assert_eq!((answer.status, answer.problem().as_str()), (status, code), "{what}?{query}");
        }
    }
    assert!(stage.inbox.try_next().is_none(), "nothing is watched for a request that is refused");
}
