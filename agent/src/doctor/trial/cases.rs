//! The cases of the trial, one a capability: which family it tries, what is asked for, what is done, and how what came is
//! judged. Pure but for the actions that it names.

use agent_common::{FLOW_READS, FLOW_WRITES, LossReason, SampleKind};

use super::{Action, Came, Outcome, act};
use crate::serve::listing::{socket_row, syscall_name};
use crate::source::ebpf::Family;
use crate::source::{Scope, Wanted};
use crate::units::Pid;

/// One capability.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) family: Family,
    pub(super) wanted: fn(Pid) -> Wanted,
    pub(super) act: Action,
    pub(super) judge: fn(&Came, Pid) -> Outcome,
}

/// Every capability, in the order of the table.
pub(super) const CASES: &[Case] = &[
    Case {
        name: "try-cpu",
        family: Family::Cpu,
        wanted: |pid| Wanted { cpu: Some(Scope::Pids([pid].into())), ..Wanted::default() },
        act: act::spin,
        judge: cpu,
    },
    Case {
        name: "try-syscalls",
        family: Family::Syscalls,
        wanted: |pid| Wanted { syscalls: Some(Scope::Pids([pid].into())), ..Wanted::default() },
        act: act::calls,
        judge: calls,
    },
    Case {
        name: "try-flows",
        family: Family::Flows,
        wanted: |pid| Wanted { flows: [pid].into(), ..Wanted::default() },
        act: act::unix,
        judge: flows,
    },
    Case {
        name: "try-sockets-tcp",
        family: Family::Sockets,
        wanted: sockets,
        act: act::tcp,
        judge: |came, pid| residency(came, pid, "tcp"),
    },
    Case {
        name: "try-sockets-unix",
        family: Family::Sockets,
        wanted: sockets,
        act: act::unix,
        judge: |came, pid| residency(came, pid, "unix"),
    },
    Case {
        name: "try-sockets-udp",
        family: Family::Sockets,
        wanted: sockets,
        act: act::udp,
        judge: |came, pid| residency(came, pid, "udp"),
    },
    Case {
        name: "try-sockets-unixgram",
        family: Family::Sockets,
        wanted: sockets,
        act: act::unix_datagrams,
        judge: |came, pid| residency(came, pid, "unixgram"),
    },
    Case {
        name: "try-sock",
        family: Family::Sockets,
        wanted: |pid| Wanted { socket_stacks: true, ..sockets(pid) },
        act: act::unix,
        judge: readers,
    },
    Case {
        name: "try-processes",
        family: Family::Processes,
        wanted: |_| Wanted::default(),
        act: act::nothing,
        judge: |_, _| Outcome::Seen("births and changes of program are told".to_owned()),
    },
    Case { name: "try-offcpu", family: Family::Sched, wanted: sched, act: act::hand_over, judge: off_cpu },
    Case {
        name: "try-wakeup",
        family: Family::Wakeups,
        wanted: |pid| Wanted { wakeups: true, ..sched(pid) },
        act: act::hand_over,
        judge: wakeups,
    },
    Case {
        name: "try-floor",
        family: Family::Floor,
        wanted: |_| Wanted::default(),
        act: act::nothing,
        judge: |_, _| Outcome::Seen("an empty pair on the system call tracepoints".to_owned()),
    },
];

fn sockets(pid: Pid) -> Wanted {
    Wanted { sockets: Some([pid].into()), ..Wanted::default() }
}

fn sched(pid: Pid) -> Wanted {
    Wanted { sched: Some(Scope::Pids([pid].into())), ..Wanted::default() }
}

fn off_cpu(came: &Came, pid: Pid) -> Outcome {
    /// Of the 300 ms that one thread sleeps at the end, not to speak of its turns.
    const LEAST_NS: u64 = 200_000_000;
    let waited: u64 = came.samples(pid, SampleKind::OffCpu).map(|sample| sample.weight).sum();
    let total = came.samples(pid, SampleKind::OffCpu).count();
    let with_user = came.samples(pid, SampleKind::OffCpu).filter(|sample| !sample.user.is_empty()).count();
    let told = format!("{total} samples for {} ms of waiting, {with_user} with a user stack", waited / 1_000_000);
    if waited >= LEAST_NS && with_user > 0 { Outcome::Seen(told) } else { Outcome::NotSeen(told) }
}

fn wakeups(came: &Came, pid: Pid) -> Outcome {
    let total = came.samples(pid, SampleKind::Wakeup).count();
    let told = format!("{total} stacks of wakers");
    if total > 0 { Outcome::Seen(told) } else { Outcome::NotSeen(told) }
}

fn cpu(came: &Came, pid: Pid) -> Outcome {
    /// Of the some 500 that half a second of work should give: an emulated clock is late.
    const ENOUGH: usize = 25;
    let total = came.samples(pid, SampleKind::Cpu).count();
    let with_user = came.samples(pid, SampleKind::Cpu).filter(|s| !s.user.is_empty()).count();
    let told = format!("{total} samples of half a second of work, {with_user} with a user stack");
    if total >= ENOUGH && with_user * 2 >= total { Outcome::Seen(told) } else { Outcome::NotSeen(told) }
}

fn calls(came: &Came, pid: Pid) -> Outcome {
    let row = came.rows.syscalls.values().find(|r| r.pid == pid.0 && syscall_name(r.nr) == "getppid");
    let (calls, timed) = row.map_or((0, 0), |row| (row.calls, row.timed));
    let told = format!("{calls} of {} calls counted, {timed} with a latency", act::CALLS);
    if calls == act::CALLS && timed > 0 { Outcome::Seen(told) } else { Outcome::NotSeen(told) }
}

fn flows(came: &Came, pid: Pid) -> Outcome {
    let sent = act::MESSAGES * act::MESSAGE as u64;
    let rows = || came.rows.flows.values().filter(|row| row.key.pid == pid.0 && row.target.starts_with(b"socket:"));
    let moved = |way: usize| rows().map(|row| row.stats.ways[way].bytes).find(|bytes| *bytes == sent);
    let (out, taken) = (moved(FLOW_WRITES).unwrap_or(0), moved(FLOW_READS).unwrap_or(0));
    let told = format!("{out} of {sent} bytes seen out of one descriptor, {taken} into another");
    let right = out == sent && taken == sent;
    if right && came.lost()[LossReason::FlowTableFull] == 0 { Outcome::Seen(told) } else { Outcome::NotSeen(told) }
}

fn residency(came: &Came, pid: Pid, kind: &str) -> Outcome {
    let sent = act::MESSAGES * act::MESSAGE as u64;
    let rows = came.rows.sockets.values().filter(|row| row.seen.pid == pid.0);
    let rows = rows.map(|row| socket_row(row, String::new())).filter(|row| row.kind == kind);
    let Some(row) = rows.max_by_key(|row| row.read_bytes) else {
        return Outcome::NotSeen(format!("no {kind} socket of this process was found"));
    };
    let waited = row.mean_ns.unwrap_or(0);
    let measured = row.read_bytes.saturating_sub(row.unmeasured_bytes);
    let told = format!("{measured} of {sent} bytes measured, each waited {} ms", waited / 1_000_000);
    let least = u64::try_from(act::WAIT.as_nanos()).unwrap_or(u64::MAX);
    // The wait of a message that is read at once is known to a microsecond; that it is no less than the sleep is certain.
    let right = row.read_bytes == sent && measured == sent && waited >= least - least / 50;
    if right && came.lost()[LossReason::SocketTableFull] == 0 { Outcome::Seen(told) } else { Outcome::NotSeen(told) }
}

fn readers(came: &Came, pid: Pid) -> Outcome {
    let stacks = came.samples(pid, SampleKind::Socket);
    let with_user = stacks.filter(|sample| !sample.user.is_empty()).count();
    let told = format!("{with_user} stacks of {} reads that ended a wait", act::MESSAGES);
    if with_user as u64 == act::MESSAGES { Outcome::Seen(told) } else { Outcome::NotSeen(told) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_of_probes_is_tried() {
        for family in Family::ALL {
            assert!(CASES.iter().any(|case| case.family == family), "nothing tries {family}");
        }
    }
}
