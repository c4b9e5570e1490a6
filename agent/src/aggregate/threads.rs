//! Cumulative rows of threads in, where their time went within a span out. Never estimates: running, runnable and blocked
//! of a thread add up to the time that passed.

use std::collections::HashMap;

use agent_common::{ThreadRow, ThreadState, WAIT_REASONS, WaitReason};

use crate::aggregate::table::Table;
use crate::event::Comm;
use crate::units::{CgroupId, Nanos, Pid, Tid};

/// Threads whose last row is kept; what has been gone longest makes room.
const MOST_THREADS: usize = 65_536;

/// A thread, told from one that got its number later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ThreadId {
    /// Process.
    pub pid: Pid,
    /// Thread.
    pub tid: Tid,
    /// Its start, ns since boot.
    pub started: Nanos,
}

/// Where the time of a thread went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadTotals {
    /// Its name, the last one.
    pub comm: Comm,
    /// Its cgroup.
    pub cgroup: CgroupId,
    /// On a CPU.
    pub run: Nanos,
    /// Waiting for a CPU.
    pub runq: Nanos,
    /// Blocked, by [`WaitReason`].
    pub blocked: [Nanos; WAIT_REASONS],
    /// Times it left a CPU.
    pub switches: u64,
}

impl ThreadTotals {
    /// Blocked, whatever the reason.
    pub fn blocked_in_all(&self) -> Nanos {
        self.blocked.iter().fold(Nanos(0), |sum, part| sum + *part)
    }

    /// All the time there was.
    pub fn wall(&self) -> Nanos {
        self.run + self.runq + self.blocked_in_all()
    }

    /// Whether it did nothing but wait for something to happen. Who sleeps by the clock or waits for a disk or for memory
    /// is busy with that.
    pub fn is_idle(&self) -> bool {
        const WORK: u64 = 10_000;
        let busy = [WaitReason::Sleep, WaitReason::Io, WaitReason::Page, WaitReason::Other];
        let busy = busy.iter().fold(self.run, |sum, reason| sum + self.blocked[*reason as usize]);
        self.wall() > Nanos(0) && busy.0.saturating_mul(WORK) <= self.wall().0
    }

    /// Adds what happened later.
    pub fn add(&mut self, later: &Self) {
        (self.comm, self.cgroup) = (later.comm, later.cgroup);
        self.run = self.run + later.run;
        self.runq = self.runq + later.runq;
        self.switches = self.switches.saturating_add(later.switches);
        for (sum, part) in self.blocked.iter_mut().zip(later.blocked) {
            *sum = *sum + part;
        }
    }
}

/// Totals of the threads of a span.
pub type Threads = HashMap<ThreadId, ThreadTotals>;

/// Adds `later` to the totals of one thread.
pub fn add(threads: &mut Threads, id: ThreadId, later: &ThreadTotals) {
    threads.entry(id).and_modify(|sum| sum.add(later)).or_insert(*later);
}

/// Makes differences of cumulative rows.
#[derive(Debug)]
pub struct ThreadRows {
    last: Table<ThreadId, ThreadRow>,
}

impl Default for ThreadRows {
    fn default() -> Self {
        Self { last: Table::with_capacity(MOST_THREADS) }
    }
}

impl ThreadRows {
    /// What happened to the thread since its row before this one; since it was first followed, if there is none.
    pub fn observe(&mut self, time: Nanos, row: &ThreadRow) -> (ThreadId, ThreadTotals) {
        let id = ThreadId { pid: Pid(row.pid), tid: Tid(row.tid), started: Nanos(row.started_ns) };
        // Who was followed anew counts from nothing.
        let before = self.last.put(time, id, *row).filter(|before| before.first_ns == row.first_ns);
        let since = |now: u64, then: Option<u64>| now.saturating_sub(then.unwrap_or(0));
        let totals = ThreadTotals {
            comm: Comm(row.comm),
            cgroup: CgroupId(row.cgroup),
            run: Nanos(since(row.run_ns, before.map(|b| b.run_ns))),
            runq: Nanos(since(row.runq_ns, before.map(|b| b.runq_ns))),
            blocked: std::array::from_fn(|i| Nanos(since(row.blocked_ns[i], before.map(|b| b.blocked_ns[i])))),
            switches: since(row.switches, before.map(|b| b.switches)),
        };
        if row.state == ThreadState::Ended as u16 {
            self.last.remove(id);
        }
        (id, totals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(first: u64, run: u64, sleep: u64, state: ThreadState) -> ThreadRow {
        let mut blocked_ns = [0; WAIT_REASONS];
        blocked_ns[WaitReason::Sleep as usize] = sleep;
        ThreadRow {
            pid: 1,
            tid: 2,
            comm: [0; 16],
            cgroup: 0,
            started_ns: 5,
            first_ns: first,
            since_ns: 0,
            state: state as u16,
            reason: 0,
            reserved: 0,
            switches: 0,
            run_ns: run,
            runq_ns: 0,
            blocked_ns,
        }
    }

    #[test]
    fn spans_of_a_thread_add_up_to_its_last_row() {
        let mut rows = ThreadRows::default();
        let mut threads = Threads::new();
        let steps = [(10, 0, 0), (20, 4, 6), (30, 4, 16), (40, 14, 16)];
        for (time, run, sleep) in steps {
            let (id, totals) = rows.observe(Nanos(time), &row(10, run, sleep, ThreadState::Running));
            add(&mut threads, id, &totals);
        }
        let total = threads.values().next().unwrap();
        assert_eq!((total.run, total.blocked_in_all(), total.wall()), (Nanos(14), Nanos(16), Nanos(30)));
    }

    #[test]
    fn a_thread_that_is_followed_anew_counts_from_nothing_and_one_that_ended_is_forgotten() {
        let mut rows = ThreadRows::default();
        rows.observe(Nanos(20), &row(10, 9, 1, ThreadState::Blocked));
        let (_, anew) = rows.observe(Nanos(40), &row(30, 3, 7, ThreadState::Ended));
        assert_eq!(anew.wall(), Nanos(10));
        assert!(rows.last.is_empty());
    }

    #[test]
    fn a_thread_is_idle_when_it_only_waits_for_something_to_happen() {
        let (_, mut totals) = ThreadRows::default().observe(Nanos(0), &row(0, 0, 0, ThreadState::Blocked));
        assert!(!totals.is_idle(), "no time has passed");
        totals.blocked[WaitReason::Poll as usize] = Nanos::SECOND;
        assert!(totals.is_idle());
        let sleeper = ThreadTotals { blocked: std::array::from_fn(|_| Nanos::SECOND), ..totals };
        assert!(!sleeper.is_idle());
        assert!(!ThreadTotals { run: Nanos::from_millis(1), ..totals }.is_idle());
    }
}
