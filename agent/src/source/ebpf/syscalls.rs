//! Counters of system calls: the kernel's table in, a row for each that changed out. Rows of processes that have ended make
//! room.

use std::collections::{BTreeSet, HashMap};

use agent_common::{SYSCALL_FIRST, SyscallKey, SyscallRow, SyscallStats};

use super::{EbpfSource, TICKS_A_SECOND};
use crate::event::{RawBatch, encode};
use crate::source::Scope;
use crate::source::in_flight::in_flight;
use crate::source::processes::look_up;
use crate::units::{Nanos, Pid};

impl EbpfSource {
    pub(super) fn snapshot_syscalls(&mut self, now: Nanos, batch: &mut RawBatch, seen: &mut BTreeSet<Pid>) {
        let whole_second = self.ticks.is_multiple_of(TICKS_A_SECOND);
        let waiting = match &self.wanted.syscalls {
            // The whole host is a big table: once a second is often enough.
            Some(Scope::Host) if !whole_second => return,
            Some(scope) => whole_second.then(|| in_flight(scope)),
            None => return,
        };
        // Before the counters are read: what has ended by now makes no further call, so that its last counts are told.
        let ended = if whole_second { self.ended() } else { BTreeSet::new() };
        let mut rows: HashMap<(u32, u32), SyscallRow> = HashMap::new();
        for (key, per_cpu) in self.maps.syscalls.iter().filter_map(Result::ok) {
            rows.insert((key.pid, key.nr), sum(key, &per_cpu));
        }
        // A call that has not returned has no counters yet; one that ended with its thread never gets any.
        let waits = waiting.iter().flat_map(HashMap::keys).map(|(pid, nr)| (pid.0, *nr));
        let waited = self.sent_syscalls.iter().filter(|(_, sent)| sent.1 > 0).map(|(key, _)| *key);
        for (pid, nr) in waits.chain(waited) {
            rows.entry((pid, nr)).or_insert_with(|| sum(SyscallKey { pid, nr }, &[]));
        }
        for (key, mut row) in rows {
            let sent = self.sent_syscalls.entry(key).or_insert((u64::MAX, 0));
            row.in_flight = match &waiting {
                Some(waiting) => waiting.get(&(Pid(key.0), key.1)).copied().unwrap_or(0),
                None => sent.1,
            };
            if *sent != (row.calls, row.in_flight) {
                *sent = (row.calls, row.in_flight);
                seen.insert(Pid(key.0));
                encode::syscall(batch, now, &row);
            }
            if ended.contains(&key.0) {
                self.sent_syscalls.remove(&key);
                if let Err(cause) = self.maps.syscalls.remove(&SyscallKey { pid: key.0, nr: key.1 }) {
                    tracing::debug!(%cause, pid = key.0, "make room for other processes");
                }
            }
        }
    }

    /// Processes in the table of system calls that have ended: their rows make room, and whoever gets their number next
    /// begins from nothing.
    fn ended(&self) -> BTreeSet<u32> {
        let pids: BTreeSet<u32> = self.sent_syscalls.keys().map(|(pid, _)| *pid).collect();
        pids.into_iter().filter(|pid| look_up(Pid(*pid)).is_none()).collect()
    }
}

fn sum(key: SyscallKey, per_cpu: &[SyscallStats]) -> SyscallRow {
    let mut row = SyscallRow {
        pid: key.pid,
        nr: key.nr,
        calls: 0,
        errors: 0,
        restarts: 0,
        result_sum: 0,
        timed: 0,
        total_ns: 0,
        in_flight: 0,
        histogram: [0; agent_common::SYSCALL_BUCKETS],
    };
    for cpu in per_cpu {
        row.calls = row.calls.saturating_add(cpu.calls);
        row.errors = row.errors.saturating_add(cpu.errors);
        row.restarts = row.restarts.saturating_add(cpu.restarts);
        row.result_sum = row.result_sum.wrapping_add(cpu.result_sum);
        row.timed = row.timed.saturating_add(cpu.timed);
        row.total_ns = row.total_ns.saturating_add(cpu.total_ns);
        for (total, count) in row.histogram.iter_mut().skip(SYSCALL_FIRST).zip(cpu.histogram) {
            *total += u64::from(count);
        }
    }
    row
}
