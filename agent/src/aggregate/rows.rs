//! Cumulative rows of the kernel side in, deltas by process out. Never negative: a counter that fell is a reset.
//!
//! The newest row of each key is kept for the listings; the sums of one tick are kept for the windows. The first tick
//! in which a process is seen only sets its baseline, so that history before the watch never looks like a burst.

use std::collections::{BTreeMap, BTreeSet};

use agent_common::{COMPAT_BIT, SocketRow, SyscallRow, TaskRow};

use crate::aggregate::table::Table;
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
    /// Whether the counters only rose.
    pub continuity: Continuity,
}

/// System call rows by (process, call number).
#[derive(Debug)]
pub struct SyscallRows {
    rows: Table<(u32, u32), Box<SyscallRow>>,
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
        let before = self.rows.put(now, (row.pid, row.nr), row).map(|old| (old.calls, old.result_sum));
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
    pub fn table(&self) -> &Table<(u32, u32), Box<SyscallRow>> {
        &self.rows
    }
}

/// Socket rows by cookie.
#[derive(Debug)]
pub struct SocketRows {
    rows: Table<u64, Box<SocketRow>>,
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
        let counters = |row: &SocketRow| (row.stats.measured_bytes, row.stats.byte_us, row.seen.overflows);
        let pid = Pid(row.seen.pid);
        let (after, waiting) = (counters(&row), row.seen.receive_queue);
        let before = self.rows.put(now, row.seen.cookie, row).map(|old| counters(&old));
        let totals = self.tick.entry(pid).or_default();
        totals.receive_queue = totals.receive_queue.saturating_add(waiting);
        let Some(then) = before else {
            return;
        };
        if after.0 < then.0 || after.1 < then.1 || after.2 < then.2 {
            totals.continuity = Continuity::Reset;
            return;
        }
        totals.measured_bytes = totals.measured_bytes.saturating_add(after.0 - then.0);
        totals.byte_us = totals.byte_us.saturating_add(after.1 - then.1);
        totals.overflows = totals.overflows.saturating_add(after.2 - then.2);
    }

    /// Ends the tick, as [`SyscallRows::cut`] does.
    pub fn cut(&mut self, keep: impl Fn(Pid) -> bool) -> BTreeMap<Pid, SocketTotals> {
        cut(&mut self.tick, &mut self.known, keep)
    }

    /// The newest row of each socket.
    pub fn table(&self) -> &Table<u64, Box<SocketRow>> {
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
            continuity: Continuity::Whole,
        });
        let pairs = [
            (&mut total.cpu_ns, then.task_clock_ns, row.task_clock_ns),
            (&mut total.switches, then.context_switches, row.context_switches),
        ];
        for (sum, then, now) in pairs {
            *sum = match (*sum, counted(then), counted(now)) {
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

/// `u64::MAX` stands for "not to be had here".
fn counted(value: u64) -> Option<u64> {
    (value != u64::MAX).then_some(value)
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

/// Whether the result of this call is a byte count.
pub fn moves_bytes(nr: u32) -> bool {
    use nix::libc;
    const CALLS: [nix::libc::c_long; 18] = [
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_pread64,
        libc::SYS_pwrite64,
        libc::SYS_readv,
        libc::SYS_writev,
        libc::SYS_preadv,
        libc::SYS_pwritev,
        libc::SYS_preadv2,
        libc::SYS_pwritev2,
        libc::SYS_recvfrom,
        libc::SYS_sendto,
        libc::SYS_recvmsg,
        libc::SYS_sendmsg,
        libc::SYS_sendfile,
        libc::SYS_splice,
        libc::SYS_vmsplice,
        libc::SYS_copy_file_range,
    ];
    nr & COMPAT_BIT == 0 && CALLS.contains(&libc::c_long::from(nr))
}
