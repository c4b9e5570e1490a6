//! Exact counts.

use agent_common::LossReason;
use tidegate::serve::listing::{syscall_name, syscall_row};
use tidegate::serve::view::SyscallJson;
use tidegate::source::ebpf::LoadOptions;
use tidegate::source::{Scope, Wanted};
use tidegate::units::{Nanos, Pid};

use crate::kit::{Probes, Seen, Subject, close};

pub(crate) const CASES: &[(&str, fn())] = &[
    ("a_million_calls_are_counted_exactly", a_million_calls_are_counted_exactly),
    ("every_call_is_timed_on_request", every_call_is_timed_on_request),
    ("one_call_in_16_is_timed_and_tells_the_same_quantiles", sampled_agrees_with_full),
    ("another_process_changes_no_count", another_process_changes_no_count),
    ("threads_that_share_a_latency_slot_lose_latencies_but_no_call", threads_that_share_a_latency_slot),
    ("errors_and_bytes_are_exact", errors_and_bytes_are_exact),
    ("a_call_that_began_before_the_probe_is_in_flight", a_call_that_began_before_the_probe_is_in_flight),
    ("probes_that_nobody_wants_are_detached", probes_that_nobody_wants_are_detached),
    ("a_call_that_began_under_an_earlier_watch_has_no_latency", a_call_that_began_under_an_earlier_watch),
    ("short_processes_make_room_in_the_table_for_others", short_processes_make_room),
];

const MILLION: u64 = 1_000_000;

fn watching(pid: Pid) -> Wanted {
    Wanted { syscalls: Some(Scope::Pids([pid].into())), ..Wanted::default() }
}

fn row(seen: &Seen, pid: Pid, name: &str) -> SyscallJson {
    let row = seen.rows.syscalls.values().find(|r| r.pid == pid.0 && syscall_name(r.nr) == name);
    syscall_row(row.unwrap_or_else(|| panic!("no row of {name}")), seen.rows.comm(pid.0))
}

fn a_million_calls_are_counted_exactly() {
    let subject = Subject::start(&format!("getppid {MILLION} 1"));
    let pid = subject.pid();
    let mut probes = Probes::load(LoadOptions::default());
    probes.watch(&watching(pid));
    let (_subject, _) = probes.while_acting(subject);
    let getppid = row(probes.seen(), pid, "getppid");
    assert_eq!((getppid.calls, getppid.errors), (MILLION, 0));
    close("calls that were timed", (MILLION - getppid.untimed) * 16, MILLION, 5, 0);
    let mean = getppid.total_ns.expect("timed") / MILLION;
    assert!(mean < 100_000, "a mean latency of {mean} ns");
    let lost = probes.seen().rows.lost;
    assert_eq!(
        (lost[LossReason::SlotCollision], lost[LossReason::StartUnseen]),
        (0, 0),
        "what is not chosen is not lost"
    );
    let (p50, p99) = (getppid.p50_ns.expect("timed"), getppid.p99_ns.expect("timed"));
    assert!(p50 <= p99, "p50 {p50} above p99 {p99}");
}

fn every_call_is_timed_on_request() {
    let subject = Subject::start(&format!("getppid {MILLION} 1"));
    let pid = subject.pid();
    let mut probes = Probes::load(LoadOptions { latency_every: 1, ..LoadOptions::default() });
    probes.watch(&watching(pid));
    let (_subject, _) = probes.while_acting(subject);
    let getppid = row(probes.seen(), pid, "getppid");
    assert_eq!((getppid.calls, getppid.untimed), (MILLION, 0));
}

/// The mix makes its five calls in turn, so that a choice in step with them would miss some of them for ever.
fn sampled_agrees_with_full() {
    const ROUNDS: u64 = 100_000;
    let quantiles = |latency_every| {
        let subject = Subject::start(&format!("mix {ROUNDS}"));
        let pid = subject.pid();
        let mut probes = Probes::load(LoadOptions { latency_every, ..LoadOptions::default() });
        probes.watch(&watching(pid));
        let (_subject, _) = probes.while_acting(subject);
        ["pwrite64", "pread64"].map(|name| {
            let call = row(probes.seen(), pid, name);
            close("timed", (call.calls - call.untimed) * u64::from(latency_every), call.calls, 5, 0);
            [call.p50_ns, call.p99_ns].map(|ns| ns.expect("timed").ilog2())
        })
    };
    let (full, sampled) = (quantiles(1), quantiles(16));
    for (full, sampled) in full.into_iter().flatten().zip(sampled.into_iter().flatten()) {
        assert!(full.abs_diff(sampled) <= 1, "octave {sampled} of the sampled calls, {full} of all");
    }
}

fn another_process_changes_no_count() {
    let subject = Subject::start(&format!("getppid {MILLION} 1"));
    let mut other = Subject::start(&format!("getppid {} 2", 2 * MILLION));
    let (pid, stranger) = (subject.pid(), other.pid());
    let mut probes = Probes::load(LoadOptions::default());
    probes.watch(&watching(pid));
    other.go();
    let (_subject, _) = probes.while_acting(subject);
    assert_eq!(row(probes.seen(), pid, "getppid").calls, MILLION);
    assert!(probes.seen().rows.syscalls.values().all(|r| r.pid != stranger.0), "a stranger was counted");
    other.hear();
}

fn threads_that_share_a_latency_slot() {
    let subject = Subject::start(&format!("getppid {MILLION} 2"));
    let pid = subject.pid();
    let mut probes = Probes::load(LoadOptions { latency_slots: 1, latency_every: 1, ..LoadOptions::default() });
    probes.watch(&watching(pid));
    let (_subject, _) = probes.while_acting(subject);
    let getppid = row(probes.seen(), pid, "getppid");
    assert_eq!(getppid.calls, MILLION);
    // What has no latency is said to have none, reason by reason.
    let lost = probes.seen().rows.lost;
    let untimed: u64 = probes.seen().rows.syscalls.values().map(|r| r.calls - r.timed).sum();
    assert_eq!(lost[LossReason::SlotCollision] + lost[LossReason::StartUnseen], untimed);
    assert!(untimed > 0, "the two threads never met in their slot");
}

fn errors_and_bytes_are_exact() {
    const ROUNDS: u64 = 10_000;
    let subject = Subject::start(&format!("mix {ROUNDS}"));
    let pid = subject.pid();
    let mut probes = Probes::load(LoadOptions::default());
    probes.watch(&watching(pid));
    let (_subject, _) = probes.while_acting(subject);
    let write = row(probes.seen(), pid, "pwrite64");
    assert_eq!((write.calls, write.errors, write.bytes), (3 * ROUNDS, 2 * ROUNDS, Some(100 * ROUNDS)));
    let read = row(probes.seen(), pid, "pread64");
    assert_eq!((read.calls, read.errors, read.bytes), (2 * ROUNDS, ROUNDS, Some(64 * ROUNDS)));
}

fn a_call_that_began_before_the_probe_is_in_flight() {
    let subject = Subject::start("wait");
    let mut probes = Probes::load(LoadOptions::default());
    probes.watch(&watching(subject.pid()));
    probes.run_for(Nanos::from_millis(250));
    let read = row(probes.seen(), subject.pid(), "read");
    assert_eq!((read.calls, read.in_flight), (0, 1));
}

fn probes_that_nobody_wants_are_detached() {
    let subject = Subject::start("getppid 1000 1");
    let mut probes = Probes::load(LoadOptions::default());
    assert_eq!(probes.attached(), Vec::<&str>::new());
    probes.watch(&watching(subject.pid()));
    assert_eq!(probes.attached(), ["syscalls"]);
    probes.watch(&Wanted::default());
    assert_eq!(probes.attached(), Vec::<&str>::new());
    let (_subject, _) = probes.while_acting(subject);
    assert!(probes.seen().rows.syscalls.is_empty(), "counted by a probe that was detached");
}

fn a_call_that_began_under_an_earlier_watch() {
    let subject = Subject::start("getppid 10 1");
    let pid = subject.pid();
    let mut probes = Probes::load(LoadOptions { latency_every: 1, ..LoadOptions::default() });
    probes.watch(&watching(pid));
    // Afterwards it waits for a line, in a read that the probe has seen beginning.
    let (mut subject, _) = probes.while_acting(subject);
    probes.run_for(Nanos::from_millis(200));
    probes.watch(&Wanted::default());
    probes.run_for(Nanos::from_millis(200));
    probes.watch(&watching(pid));
    let before = row(probes.seen(), pid, "read");
    subject.go();
    subject.wait();
    probes.flush();
    let read = row(probes.seen(), pid, "read");
    assert_eq!(read.calls, before.calls + 1);
    assert_eq!(read.total_ns, before.total_ns, "a latency that spans two watches");
}

fn short_processes_make_room() {
    const PROCESSES: u64 = 300;
    const TIMES: u64 = 4;
    let mut probes = Probes::load(LoadOptions::default());
    probes.watch(&Wanted { syscalls: Some(Scope::Host), ..Wanted::default() });
    for _ in 0..TIMES {
        let (_subject, _) = probes.while_acting(Subject::start(&format!("spawn {PROCESSES}")));
        // What has ended makes room once a second.
        probes.run_for(Nanos::from_millis(1200));
    }
    let rows = &probes.seen().rows;
    assert_eq!(rows.lost[LossReason::SyscallTableFull], 0);
    let all = rows.syscalls.values().chain(&rows.ended);
    let execs: u64 = all.filter(|r| syscall_name(r.nr) == "execve").map(|r| r.calls - r.errors).sum();
    assert!(execs >= TIMES * PROCESSES, "{execs} of {} programs were seen to start", TIMES * PROCESSES);
    assert!(rows.syscalls.values().all(|r| r.in_flight < 10_000), "calls in flight that cannot be");
}
