//! CPU samples in, counted stacks out.
//!
//! A stack is identified by its addresses, all of them, never by a hash alone.

use std::collections::HashMap;

use crate::event::{Comm, Sample};
use crate::units::{Nanos, Pid};

/// A stack with its owner. Frames are innermost first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StackKey {
    /// Process.
    pub pid: Pid,
    /// Name of the thread.
    pub comm: Comm,
    /// Kernel frames.
    pub kernel: Vec<u64>,
    /// User frames.
    pub user: Vec<u64>,
}

/// Stacks counted over a span of time.
#[derive(Clone, Debug, Default)]
pub struct StackCounts {
    /// First instant.
    pub start: Nanos,
    /// Last instant.
    pub end: Nanos,
    /// Samples by stack.
    pub counts: HashMap<StackKey, u64>,
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
        let Sample { pid, tid: _, comm, kernel, user } = sample;
        self.end = self.end.max(time);
        self.add(StackKey { pid, comm, kernel, user }, 1);
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.start = if self.counts.is_empty() { other.start } else { self.start.min(other.start) };
        self.end = self.end.max(other.end);
        self.overflow = self.overflow.saturating_add(other.overflow);
        for (key, count) in &other.counts {
            self.add(key.clone(), *count);
        }
    }

    /// Samples counted.
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    fn add(&mut self, key: StackKey, count: u64) {
        let room = self.counts.len() < MAX_STACKS;
        match self.counts.entry(key) {
            std::collections::hash_map::Entry::Occupied(mut o) => *o.get_mut() += count,
            std::collections::hash_map::Entry::Vacant(v) if room => {
                v.insert(count);
            }
            std::collections::hash_map::Entry::Vacant(_) => self.overflow = self.overflow.saturating_add(count),
        }
    }
}
