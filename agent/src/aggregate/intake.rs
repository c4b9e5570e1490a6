//! Samples and rows of threads in, stacks and thread totals of the open span out. A waker's stack waits here for that of
//! the sleeper it woke.

use std::collections::{HashMap, VecDeque};

use agent_common::{SampleKind, ThreadRow};

use crate::aggregate::stacks::{StackCounts, StackKey, Tally, Waker};
use crate::aggregate::threads::{self, ThreadRows};
use crate::event::Sample;
use crate::units::Nanos;

/// Wakers that wait for their sleeper; a sleeper that never comes (its sample was lost) makes room.
const MOST_WAKERS: usize = 1024;

/// What is kept from one span to the next.
#[derive(Debug, Default)]
pub struct Intake {
    rows: ThreadRows,
    wakers: HashMap<u32, Sample>,
    order: VecDeque<u32>,
}

impl Intake {
    /// Takes in a sample.
    pub fn sample(&mut self, time: Nanos, sample: Sample, into: &mut StackCounts) {
        if sample.pair == 0 {
            into.observe(time, sample);
        } else if sample.kind == SampleKind::Wakeup {
            self.order.push_back(sample.pair);
            let replaced = self.wakers.insert(sample.pair, sample);
            let oldest = if self.order.len() > MOST_WAKERS { self.order.pop_front() } else { None };
            let gone = oldest.and_then(|pair| self.wakers.remove(&pair));
            // Alone, a waker still says who woke.
            for waker in replaced.into_iter().chain(gone) {
                into.observe(time, waker);
            }
        } else {
            if let Some(waker) = self.wakers.remove(&sample.pair) {
                into.end = into.end.max(time);
                let (key, tally) = woken(&sample, waker);
                into.add(key, tally);
            }
            if sample.weight > 0 {
                into.observe(time, sample);
            }
        }
    }

    /// Takes in a row of a thread.
    pub fn thread(&mut self, time: Nanos, row: &ThreadRow, into: &mut StackCounts) {
        let (id, totals) = self.rows.observe(time, row);
        into.end = into.end.max(time);
        threads::add(&mut into.threads, id, &totals);
    }
}

/// The sleeper's stack with the waker's.
fn woken(sleeper: &Sample, waker: Sample) -> (StackKey, Tally) {
    let tally = Tally { samples: 1, weight: waker.weight };
    let with = Waker { pid: waker.pid, comm: waker.comm, kernel: waker.kernel.into(), user: waker.user.into() };
    let key = StackKey {
        kind: SampleKind::Wakeup,
        pid: sleeper.pid,
        comm: sleeper.comm,
        cgroup: sleeper.cgroup,
        uid: sleeper.uid,
        thread: None,
        reason: sleeper.reason,
        user_end: sleeper.user_end,
        kernel: sleeper.kernel.clone().into(),
        user: sleeper.user.clone().into(),
        waker: Some(Box::new(with)),
    };
    (key, tally)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Comm;
    use crate::units::{CgroupId, Pid, Tid, Uid};
    use agent_common::{UnwindEnd, WaitReason};

    fn sample(kind: SampleKind, pair: u32, weight: u64, user: u64) -> Sample {
        Sample {
            kind,
            pid: Pid(1),
            tid: Tid(1),
            comm: Comm([0; 16]),
            cgroup: CgroupId(0),
            weight,
            uid: Uid(0),
            reason: WaitReason::Lock,
            user_end: UnwindEnd::Entry,
            other: None,
            pair,
            kernel: vec![],
            user: vec![user],
        }
    }

    #[test]
    fn a_waker_is_put_over_the_sleeper_it_woke_and_a_wait_counts_once() {
        let mut intake = Intake::default();
        let mut counts = StackCounts::default();
        intake.sample(Nanos(1), sample(SampleKind::Wakeup, 7, 16, 0xa), &mut counts);
        assert!(counts.counts.is_empty(), "its sleeper has not come yet");
        intake.sample(Nanos(2), sample(SampleKind::OffCpu, 7, 500, 0xb), &mut counts);
        let find = |kind| counts.counts.iter().find(|(key, _)| key.kind == kind).unwrap();
        let (key, tally) = find(SampleKind::Wakeup);
        assert_eq!((tally.samples, tally.weight, &*key.user), (1, 16, &[0xb][..]));
        assert_eq!(&*key.waker.as_ref().unwrap().user, &[0xa]);
        let (key, tally) = find(SampleKind::OffCpu);
        assert_eq!((tally.weight, key.thread), (500, Some(Tid(1))));
    }

    #[test]
    fn wakers_without_a_sleeper_make_room_and_are_told_alone() {
        let mut intake = Intake::default();
        let mut counts = StackCounts::default();
        let most = u32::try_from(MOST_WAKERS).unwrap();
        for pair in 1..=most + 10 {
            intake.sample(Nanos(1), sample(SampleKind::Wakeup, pair, 1, 0xa), &mut counts);
        }
        assert_eq!(counts.total(), 10);
        assert_eq!((intake.wakers.len(), intake.order.len()), (MOST_WAKERS, MOST_WAKERS));
    }
}
