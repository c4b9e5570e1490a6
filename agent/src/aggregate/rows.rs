//! Cumulative rows of the kernel side in, deltas by process out. Never negative: a counter that fell is a reset.
//!
//! The newest row of each key is kept for the listings; the sums of one tick are kept for the windows. The first tick
//! in which a process is seen only sets its baseline, so that history before the watch never looks like a burst.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agent_common::{SocketRow, SyscallRow, TaskRow};

use crate::aggregate::byte_counts::moves_bytes;
use crate::aggregate::table::Table;
use crate::aggregate::usage::told;
use crate::units::{Nanos, Pid};

/// Whether the counters of a process only rose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Continuity {
    /// They did.
    #[default]
    Whole,
    /// One fell: the probes were loaded anew, the process id was reused, or a counter wrapped.
    Reset,
}

/// System calls of one process in one tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyscallTotals {
    /// Calls that returned.
    pub calls: u64,
    /// Bytes moved by those that return a byte count.
    pub bytes: u64,
    /// Whether the counters only rose.
    pub continuity: Continuity,
}

/// Sockets of one process in one tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketTotals {
    /// Bytes that wait to be read now, over all its sockets.
    pub receive_queue: u64,
    /// Whether the time that bytes wait in them is followed.
    pub is_followed: bool,
    /// Bytes read whose residency is known.
    pub measured_bytes: u64,
    /// Sum over them of the microseconds waited.
    pub byte_us: u64,
    /// Packets refused because a queue was full.
    pub overflows: u64,
    /// Whether the counters only rose.
    pub continuity: Continuity,
}

/// Cost of one process in one tick; a counter that this host does not have is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskDelta {
    /// CPU time, ns.
    pub cpu_ns: Option<u64>,
    /// Context switches.
    pub switches: Option<u64>,
    /// Page faults, while somebody looks.
    pub page_faults: Option<u64>,
    /// CPU cycles, likewise.
    pub cycles: Option<u64>,
    /// Instructions, likewise.
    pub instructions: Option<u64>,
    /// Whether the counters only rose.
    pub continuity: Continuity,
}

/// System call rows by (process, call number).
#[derive(Debug)]
pub struct SyscallRows {
    rows: Table<(u32, u32), Arc<SyscallRow>>,
    tick: BTreeMap<Pid, SyscallTotals>,
    known: BTreeSet<Pid>,
}

impl SyscallRows {
    /// Keeps at most `capacity` rows.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { rows: Table::with_capacity(capacity), tick: BTreeMap::new(), known: BTreeSet::new() }
    }

    /// Takes in a row.
    pub fn observe(&mut self, now: Nanos, row: Box<SyscallRow>) {
        let pid = Pid(row.pid);
        let (calls, sum, nr) = (row.calls, row.result_sum, row.nr);
        let before = self.rows.put(now, (row.pid, row.nr), Arc::from(row)).map(|old| (old.calls, old.result_sum));
        // A row that was evicted comes back with all its history; only without evictions is a new row a first one.
        let fresh = self.known.contains(&pid) && self.rows.evicted() == 0;
        let totals = self.tick.entry(pid).or_default();
        let (then_calls, then_sum) = match before {
            Some(then) if then.0 <= calls && then.1 <= sum => then,
            Some(_) => {
                totals.continuity = Continuity::Reset;
                return;
            }
            None if fresh => (0, 0),
            None => return,
        };
        totals.calls = totals.calls.saturating_add(calls - then_calls);
        if moves_bytes(nr) {
            totals.bytes = totals.bytes.saturating_add(sum - then_sum);
        }
    }

    /// Ends the tick: the sums of the processes that had a baseline before it. `keep` says which stay known.
    pub fn cut(&mut self, keep: impl Fn(Pid) -> bool) -> BTreeMap<Pid, SyscallTotals> {
        cut(&mut self.tick, &mut self.known, keep)
    }

    /// The newest row of each key.
    pub fn table(&self) -> &Table<(u32, u32), Arc<SyscallRow>> {
        &self.rows
    }
}

/// Socket rows by cookie.
#[derive(Debug)]
pub struct SocketRows {
    rows: Table<u64, Arc<SocketRow>>,
    tick: BTreeMap<Pid, SocketTotals>,
    known: BTreeSet<Pid>,
}

impl SocketRows {
    /// Keeps at most `capacity` rows.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { rows: Table::with_capacity(capacity), tick: BTreeMap::new(), known: BTreeSet::new() }
    }

    /// Takes in a row.
    pub fn observe(&mut self, now: Nanos, row: Box<SocketRow>) {
        let counters = |row: &SocketRow| {
            let read = row.stats.is_followed().then_some((row.stats.measured_bytes, row.stats.byte_us));
            (read, row.seen.overflows)
        };
        let pid = Pid(row.seen.pid);
        let ((read, overflows), waiting) = (counters(&row), row.seen.receive_queue);
        let before = self.rows.put(now, row.seen.cookie, Arc::from(row)).map(|old| counters(&old));
        let totals = self.tick.entry(pid).or_default();
        totals.receive_queue = totals.receive_queue.saturating_add(waiting);
        totals.is_followed |= read.is_some();
        let Some((read_then, overflows_then)) = before else {
            return;
        };
        // Of a socket that is followed from now on, what it counted before is nothing to go by.
        let ((bytes, byte_us), (bytes_then, byte_us_then)) = read.zip(read_then).unwrap_or_default();
        if bytes < bytes_then || byte_us < byte_us_then || overflows < overflows_then {
            totals.continuity = Continuity::Reset;
            return;
        }
        totals.measured_bytes = totals.measured_bytes.saturating_add(bytes - bytes_then);
        totals.byte_us = totals.byte_us.saturating_add(byte_us - byte_us_then);
        totals.overflows = totals.overflows.saturating_add(overflows - overflows_then);
    }

    /// Ends the tick, as [`SyscallRows::cut`] does.
    pub fn cut(&mut self, keep: impl Fn(Pid) -> bool) -> BTreeMap<Pid, SocketTotals> {
        cut(&mut self.tick, &mut self.known, keep)
    }

    /// The newest row of each socket.
    pub fn table(&self) -> &Table<u64, Arc<SocketRow>> {
        &self.rows
    }
}

/// Cost rows by process.
#[derive(Debug)]
pub struct TaskRows {
    rows: Table<Pid, TaskRow>,
    tick: BTreeMap<Pid, TaskDelta>,
}

impl TaskRows {
    /// Keeps at most `capacity` rows.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { rows: Table::with_capacity(capacity), tick: BTreeMap::new() }
    }

    /// Takes in a row.
    pub fn observe(&mut self, now: Nanos, row: TaskRow) {
        let pid = Pid(row.pid);
        let Some(then) = self.rows.put(now, pid, row) else {
            return;
        };
        let total = self.tick.entry(pid).or_insert(TaskDelta {
            cpu_ns: Some(0),
            switches: Some(0),
            page_faults: Some(0),
            cycles: Some(0),
            instructions: Some(0),
            continuity: Continuity::Whole,
        });
        let pairs = [
            (&mut total.cpu_ns, then.task_clock_ns, row.task_clock_ns),
            (&mut total.switches, then.context_switches, row.context_switches),
            (&mut total.page_faults, then.page_faults, row.page_faults),
            (&mut total.cycles, then.cycles, row.cycles),
            (&mut total.instructions, then.instructions, row.instructions),
        ];
        for (sum, then, now) in pairs {
            *sum = match (*sum, told(then), told(now)) {
                (Some(sum), Some(then), Some(now)) if then <= now => Some(sum.saturating_add(now - then)),
                (_, Some(then), Some(now)) if then > now => {
                    total.continuity = Continuity::Reset;
                    None
                }
                _ => None,
            };
        }
    }

    /// Ends the tick.
    pub fn cut(&mut self) -> BTreeMap<Pid, TaskDelta> {
        std::mem::take(&mut self.tick)
    }
}

fn cut<T: Copy>(
    tick: &mut BTreeMap<Pid, T>,
    known: &mut BTreeSet<Pid>,
    keep: impl Fn(Pid) -> bool,
) -> BTreeMap<Pid, T> {
    let sums = std::mem::take(tick);
    let whole = sums.iter().filter(|(pid, _)| known.contains(pid)).map(|(pid, sum)| (*pid, *sum)).collect();
    known.retain(|pid| keep(*pid));
    known.extend(sums.keys().copied().filter(|pid| keep(*pid)));
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_common::{RESIDENCY_BUCKETS, SYSCALL_BUCKETS, SocketSeen, SocketStats};

    fn calls(nr: u32, calls: u64, sum: u64) -> Box<SyscallRow> {
        Box::new(SyscallRow {
            pid: 7,
            nr,
            calls,
            errors: 0,
            restarts: 0,
            result_sum: sum,
            timed: 0,
            total_ns: 0,
            in_flight: 0,
            histogram: [0; SYSCALL_BUCKETS],
        })
    }

    fn socket(measured_bytes: u64, byte_us: u64, overflows: u64) -> Box<SocketRow> {
        Box::new(SocketRow {
            seen: SocketSeen { cookie: 1, pid: 7, receive_queue: 50, overflows, ..SocketSeen::ZERO },
            stats: SocketStats {
                pid: 1,
                kind: 1,
                reads: 0,
                read_bytes: 0,
                measured_bytes,
                byte_us,
                unmeasured_bytes: 0,
                merged: 0,
                oldest: [0; RESIDENCY_BUCKETS],
                bytes: [0; RESIDENCY_BUCKETS],
            },
        })
    }

    fn task(task_clock_ns: u64, context_switches: u64) -> TaskRow {
        TaskRow {
            pid: 7,
            threads: 1,
            task_clock_ns,
            context_switches,
            page_faults: 0,
            cycles: u64::MAX,
            instructions: u64::MAX,
        }
    }

    fn write() -> u32 {
        u32::try_from(syscalls::Sysno::write.id()).unwrap()
    }

    fn getppid() -> u32 {
        u32::try_from(syscalls::Sysno::getppid.id()).unwrap()
    }

    #[test]
    fn history_before_the_watch_is_a_baseline_and_a_new_call_counts_from_zero() {
        let mut rows = SyscallRows::with_capacity(8);
        rows.observe(Nanos(1), calls(write(), 1_000, 9_000));
        assert!(rows.cut(|_| true).is_empty());
        rows.observe(Nanos(2), calls(write(), 1_010, 9_500));
        rows.observe(Nanos(2), calls(getppid(), 5, 777));
        let sums = rows.cut(|_| true)[&Pid(7)];
        assert_eq!((sums.calls, sums.bytes), (15, 500), "the result of getppid is no byte count");
        assert!(rows.cut(|_| true).is_empty(), "a tick without rows is unknown, not zero");
    }

    #[test]
    fn counters_that_fall_are_a_reset_never_a_negative_number() {
        let mut rows = SyscallRows::with_capacity(8);
        for (now, count) in [(1, 1_000), (2, 3)] {
            rows.observe(Nanos(now), calls(write(), count, count));
            let sums = rows.cut(|_| true);
            if let Some(sums) = sums.get(&Pid(7)) {
                assert_eq!(*sums, SyscallTotals { continuity: Continuity::Reset, ..SyscallTotals::default() });
            }
        }
        rows.observe(Nanos(3), calls(write(), 10, 10));
        assert_eq!(rows.cut(|_| true)[&Pid(7)].calls, 7, "the reset is the new baseline");
        let mut tasks = TaskRows::with_capacity(8);
        for (row, want) in
            [(task(100, 5), None), (task(40, 6), Some((None, Some(1)))), (task(90, 9), Some((Some(50), Some(3))))]
        {
            tasks.observe(Nanos(1), row);
            let delta = tasks.cut().get(&Pid(7)).copied();
            assert_eq!(delta.map(|d| (d.cpu_ns, d.switches)), want);
        }
    }

    #[test]
    fn a_counter_that_the_host_lacks_stays_unknown() {
        let mut tasks = TaskRows::with_capacity(8);
        tasks.observe(Nanos(1), task(1, u64::MAX));
        tasks.observe(Nanos(2), task(5, u64::MAX));
        let delta = tasks.cut()[&Pid(7)];
        assert_eq!((delta.cpu_ns, delta.switches, delta.continuity), (Some(4), None, Continuity::Whole));
        assert_eq!((delta.page_faults, delta.cycles, delta.instructions), (Some(0), None, None));
    }

    #[test]
    fn sockets_add_up_by_process() {
        let mut rows = SocketRows::with_capacity(8);
        rows.observe(Nanos(1), socket(100, 5_000, 3));
        rows.cut(|_| true);
        rows.observe(Nanos(2), socket(300, 9_000, 4));
        let sums = rows.cut(|_| true)[&Pid(7)];
        assert_eq!((sums.receive_queue, sums.measured_bytes, sums.byte_us, sums.overflows), (50, 200, 4_000, 1));
        rows.observe(Nanos(3), socket(1, 1, 0));
        assert_eq!(rows.cut(|_| true)[&Pid(7)].continuity, Continuity::Reset);
    }

    #[test]
    fn of_sockets_that_nobody_follows_the_queue_is_known_and_the_waiting_is_not() {
        let mut rows = SocketRows::with_capacity(8);
        let unfollowed = |overflows| {
            let SocketRow { seen, .. } = *socket(0, 0, overflows);
            Box::new(SocketRow { seen, stats: SocketStats::UNFOLLOWED })
        };
        let mut sums = Vec::new();
        for (time, row) in
            [unfollowed(3), socket(100, 5_000, 4), socket(300, 9_000, 4), unfollowed(5)].into_iter().enumerate()
        {
            rows.observe(Nanos(time as u64), row);
            sums.extend(rows.cut(|_| true).remove(&Pid(7)));
        }
        let told = |s: &SocketTotals| (s.is_followed, s.measured_bytes, s.overflows, s.receive_queue, s.continuity);
        let whole = Continuity::Whole;
        assert_eq!(
            sums.iter().map(told).collect::<Vec<_>>(),
            [(true, 0, 1, 50, whole), (true, 200, 0, 50, whole), (false, 0, 1, 50, whole)],
            "the first tick only makes it known"
        );
    }
}
