//! Samples in, counted stacks out.
//!
//! A stack is identified by its addresses, all of them, never by a hash alone.

use std::collections::HashMap;

use agent_common::{SampleKind, UnwindEnd, WaitReason};

use crate::aggregate::threads::{self, Threads};
use crate::event::{Comm, Sample};
use crate::units::{CgroupId, Nanos, Pid, Tid, Uid};

/// A stack with its owner. Frames are innermost first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StackKey {
    /// What it is a sample of.
    pub kind: SampleKind,
    /// Process.
    pub pid: Pid,
    /// Name of the thread.
    pub comm: Comm,
    /// Its cgroup.
    pub cgroup: CgroupId,
    /// User who owned the process; 0 where that is not certain.
    pub uid: Uid,
    /// Thread, of samples that stand for waiting: whether it idled is known only later.
    pub thread: Option<Tid>,
    /// Why the thread was blocked, of `OffCpu` samples.
    pub reason: WaitReason,
    /// How the user stack ended.
    pub user_end: UnwindEnd,
    /// Kernel frames.
    pub kernel: Box<[u64]>,
    /// User frames.
    pub user: Box<[u64]>,
    /// Who woke it, of `Wakeup` samples.
    pub waker: Option<Box<Waker>>,
}

/// The other half of a wakeup.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Waker {
    /// Process.
    pub pid: Pid,
    /// Name of the thread.
    pub comm: Comm,
    /// Kernel frames.
    pub kernel: Box<[u64]>,
    /// User frames.
    pub user: Box<[u64]>,
}

/// How much of one stack there was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Samples.
    pub samples: u64,
    /// What they stand for, in the unit of their kind.
    pub weight: u64,
}

/// Stacks counted over a span of time.
#[derive(Clone, Debug, Default)]
pub struct StackCounts {
    /// First instant.
    pub start: Nanos,
    /// Last instant.
    pub end: Nanos,
    /// Samples by stack.
    pub counts: HashMap<StackKey, Tally>,
    /// Where the time of the threads went, of those that the scheduler's probes follow.
    pub threads: Threads,
    /// Samples that found the table of stacks full.
    pub overflow: u64,
}

/// Distinct stacks kept per span; more are counted as overflow. A busy host makes a few thousand in 10 s.
pub const MAX_STACKS: usize = 65_536;

impl StackCounts {
    /// An empty span that starts at `start`.
    pub fn starting(start: Nanos) -> Self {
        Self { start, end: start, ..Self::default() }
    }

    /// Counts a sample.
    pub fn observe(&mut self, time: Nanos, sample: Sample) {
        let Sample { kind, pid, tid, comm, cgroup, weight, uid, reason, user_end, other: _, pair: _, kernel, user } =
            sample;
        self.end = self.end.max(time);
        let (kernel, user) = (kernel.into_boxed_slice(), user.into_boxed_slice());
        let thread = matches!(kind, SampleKind::OffCpu | SampleKind::RunQueue).then_some(tid);
        let key = StackKey { kind, pid, comm, cgroup, uid, thread, reason, user_end, kernel, user, waker: None };
        self.add(key, Tally { samples: 1, weight });
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.start =
            if self.counts.is_empty() && self.threads.is_empty() { other.start } else { self.start.min(other.start) };
        self.end = self.end.max(other.end);
        self.overflow = self.overflow.saturating_add(other.overflow);
        for (id, totals) in &other.threads {
            threads::add(&mut self.threads, *id, totals);
        }
        for (key, count) in &other.counts {
            self.add(key.clone(), *count);
        }
    }

    /// Samples counted.
    pub fn total(&self) -> u64 {
        self.counts.values().map(|tally| tally.samples).sum()
    }

    /// Adds to a stack.
    pub fn add(&mut self, key: StackKey, tally: Tally) {
        let room = self.counts.len() < MAX_STACKS;
        match self.counts.entry(key) {
            std::collections::hash_map::Entry::Occupied(mut o) => {
                let sum = o.get_mut();
                sum.samples = sum.samples.saturating_add(tally.samples);
                sum.weight = sum.weight.saturating_add(tally.weight);
            }
            std::collections::hash_map::Entry::Vacant(v) if room => {
                v.insert(tally);
            }
            std::collections::hash_map::Entry::Vacant(_) => self.overflow = self.overflow.saturating_add(tally.samples),
        }
    }
}
