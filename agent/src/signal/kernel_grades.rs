//! What the kernel alone tells of every process whose descriptors are counted: their flows in, a grade of each out. Once a
//! process, however many pipelines it has: the kernel cannot tell them apart.

use std::collections::BTreeMap;

use crate::aggregate::flows::FlowDelta;
use crate::signal::kernel_grade::{KernelGrade, KernelTracker};
use crate::units::{Nanos, Pid};

/// A process, and the size of its events as far as it is known.
pub type Seen = (Pid, Option<u64>);

/// Follows processes from tick to tick.
#[derive(Debug, Default)]
pub struct KernelGrades {
    trackers: BTreeMap<Seen, KernelTracker>,
}

impl KernelGrades {
    /// Takes in what moved within a tick of length `span`. A process that is not among `told` is forgotten: what it did then
    /// is not what it does when it is told of again.
    pub fn observe<'a>(
        &mut self,
        span: Nanos,
        told: impl Iterator<Item = (Seen, &'a [FlowDelta])>,
    ) -> BTreeMap<Seen, KernelGrade> {
        let told: BTreeMap<Seen, &[FlowDelta]> = told.collect();
        self.trackers.retain(|seen, _| told.contains_key(seen));
        let grade = |(seen, flows): (Seen, &[FlowDelta])| {
            let tracker = self.trackers.entry(seen).or_insert_with(|| KernelTracker::new(seen.1));
            (seen, tracker.observe(span, flows))
        };
        told.into_iter().map(grade).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::kernel_grade::tests::flows;

    const SEEN: Seen = (Pid(7), Some(500));

    #[test]
    fn what_nobody_tells_any_more_is_forgotten() {
        let mut grades = KernelGrades::default();
        let mut tick = |flows: Option<&[FlowDelta]>| {
            grades.observe(Nanos::TICK, flows.map(|flows| (SEEN, flows)).into_iter()).remove(&SEEN)
        };
        let last = (0..60).filter_map(|i| tick(Some(&flows(300, i)))).last().unwrap();
        assert!(last.cost.is_some());
        assert!(tick(None).is_none());
        let again = tick(Some(&flows(300, 0))).unwrap();
        assert_eq!(again.cost, None, "of two flushes no cost is known");
    }

    #[test]
    fn what_the_kernel_has_not_told_of_is_unknown_and_what_did_nothing_is_idle() {
        let mut grades = KernelGrades::default();
        assert_eq!(grades.observe(Nanos::TICK, std::iter::empty()), BTreeMap::new());
        let grade = grades.observe(Nanos::TICK, std::iter::once((SEEN, [].as_slice()))).remove(&SEEN).unwrap();
        assert_eq!((grade.rate, grade.flushes_per_s, grade.sink), (None, None, None));
    }

    #[test]
    fn two_pipelines_of_one_process_are_one_flow() {
        let mut grades = KernelGrades::default();
        let mut last = None;
        for i in 0..60 {
            let flows = flows(300, i);
            let twice = [(SEEN, flows.as_slice()), (SEEN, flows.as_slice())];
            last = grades.observe(Nanos::TICK, twice.into_iter()).remove(&SEEN);
        }
        let rate = last.unwrap().rate.unwrap().0;
        assert!((rate - 3_000.0).abs() < 90.0, "{rate}");
    }
}
