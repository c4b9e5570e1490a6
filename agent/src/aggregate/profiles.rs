//! Samples and thread rows in, profile windows of 10 s out, each once: whoever takes it names it and keeps it. Never names
//! an address.
//!
//! The open window is kept as slices of 1 s. A slice is closed by the tick that ends it and never changes again, so
//! that what is shown can share it; ten of them are merged when the window closes.

use std::collections::VecDeque;
use std::sync::Arc;

use agent_common::ThreadRow;

use crate::aggregate::intake::Intake;
use crate::aggregate::stacks::StackCounts;
use crate::event::Sample;
use crate::units::Nanos;

/// Length of a profile window.
pub const WINDOW: Nanos = Nanos::from_secs(10);
/// Length of a slice of the open window.
pub const SLICE: Nanos = Nanos::SECOND;
/// Ticks keep to a grid, and come when they can.
const EARLY: Nanos = Nanos(Nanos::TICK.0 / 2);

/// The open profile window, and closed ones that nobody has taken yet.
#[derive(Debug)]
pub struct Profiles {
    closed: VecDeque<Arc<StackCounts>>,
    keep: usize,
    slices: Vec<Arc<StackCounts>>,
    opened: Nanos,
    open: StackCounts,
    intake: Intake,
}

impl Profiles {
    /// Keeps `keep` closed windows until they are taken; the first starts at `start`.
    pub fn new(keep: usize, start: Nanos) -> Self {
        Self {
            closed: VecDeque::new(),
            keep: keep.max(1),
            slices: Vec::new(),
            opened: start,
            open: StackCounts::starting(start),
            intake: Intake::default(),
        }
    }

    /// Counts a sample.
    pub fn observe(&mut self, time: Nanos, sample: Sample) {
        self.intake.sample(time, sample, &mut self.open);
    }

    /// Takes in a row of a thread: what it adds belongs to the span that is open when it comes.
    pub fn observe_thread(&mut self, time: Nanos, row: &ThreadRow) {
        self.intake.thread(time, row, &mut self.open);
    }

    /// A tick ended at `now`: closes the slice and the window that are full.
    pub fn tick(&mut self, now: Nanos) {
        // A tick that comes a moment early is the one that was meant, or the next would make a slice too long.
        if now.since(self.open.start) + EARLY < SLICE {
            return;
        }
        let mut slice = std::mem::replace(&mut self.open, StackCounts::starting(now));
        slice.end = slice.end.max(now);
        self.slices.push(Arc::new(slice));
        if now.since(self.opened) + EARLY < WINDOW {
            return;
        }
        let mut window = StackCounts::starting(self.opened);
        for slice in self.slices.drain(..) {
            window.merge(&slice);
        }
        window.start = self.opened;
        window.end = window.end.max(now);
        self.opened = now;
        self.closed.push_back(Arc::new(window));
        while self.closed.len() > self.keep {
            self.closed.pop_front();
        }
    }

    /// The windows that have closed since they were last taken, oldest first.
    pub fn take_closed(&mut self) -> Vec<Arc<StackCounts>> {
        self.closed.drain(..).collect()
    }

    /// The closed slices of the open window, oldest first.
    pub fn slices(&self) -> &[Arc<StackCounts>] {
        &self.slices
    }

    /// The slice that is still open.
    pub fn open(&self) -> &StackCounts {
        &self.open
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Comm;
    use crate::units::{CgroupId, Pid, Tid, Uid};
    use agent_common::{SampleKind, UnwindEnd, WaitReason};

    #[test]
    fn no_sample_is_lost_between_slices_and_windows() {
        let mut profiles = Profiles::new(100, Nanos(0));
        let (mut total, mut taken, mut windows) = (0, 0, 0);
        for tick in 1..=1_234_u64 {
            let now = Nanos(tick * Nanos::TICK.0);
            for nth in 0..tick % 5 {
                let sample = Sample {
                    kind: SampleKind::Cpu,
                    pid: Pid(1),
                    tid: Tid(1),
                    comm: Comm([0; 16]),
                    cgroup: CgroupId(0),
                    uid: Uid(0),
                    weight: 1,
                    reason: WaitReason::Other,
                    user_end: UnwindEnd::Entry,
                    other: None,
                    pair: 0,
                    kernel: vec![],
                    user: vec![tick % 7 + nth],
                };
                profiles.observe(now, sample);
                total += 1;
            }
            profiles.tick(now);
            let closed = profiles.take_closed();
            windows += closed.len();
            taken += closed.iter().map(|w| w.total()).sum::<u64>();
            let shown: u64 = profiles.slices().iter().map(|w| w.total()).sum();
            assert_eq!(taken + shown + profiles.open().total(), total, "at tick {tick}");
        }
        assert_eq!((windows, profiles.slices().len()), (12, 3), "123.4 s are 12 windows and 3 slices");
    }

    #[test]
    fn a_tick_that_comes_a_moment_early_makes_no_slice_longer() {
        let mut profiles = Profiles::new(100, Nanos(0));
        for half_second in 1..=40_u64 {
            // Every other one a millisecond late, the next one in time.
            profiles.tick(Nanos(half_second * 5 * Nanos::TICK.0 + half_second % 4 * 1_000_000));
        }
        assert_eq!((profiles.take_closed().len(), profiles.slices().len()), (2, 0));
    }

    #[test]
    fn windows_that_nobody_takes_are_forgotten() {
        let mut profiles = Profiles::new(3, Nanos(0));
        for second in 1..=100 {
            profiles.tick(Nanos::from_secs(second));
        }
        assert_eq!(profiles.take_closed().len(), 3);
    }
}
