//! What was lost, by reason: counters in; what each reason lost, in all or of one span, out. Knows no reason by itself but
//! that of its own side: the others, and their names, are those of [`LossReason`].

use std::ops::{Index, IndexMut};

use agent_common::LossReason;
use serde::{Serialize, Serializer};

/// Reasons in all: those of the kernel side, and records that could not be decoded.
pub const REASONS: usize = KERNEL_REASONS + 1;
const KERNEL_REASONS: usize = LossReason::ALL.len();
const UNDECODABLE: &str = "undecodable";

/// Losses by reason: cumulative, or of one window when made by [`Lost::since`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// By the number of the reason.
    counts: [u64; KERNEL_REASONS],
    /// Records that could not be decoded.
    pub undecodable: u64,
}

impl Index<LossReason> for Lost {
    type Output = u64;

    fn index(&self, reason: LossReason) -> &u64 {
        &self.counts[reason as usize]
    }
}

impl IndexMut<LossReason> for Lost {
    fn index_mut(&mut self, reason: LossReason) -> &mut u64 {
        &mut self.counts[reason as usize]
    }
}

impl Lost {
    /// Losses of one reason.
    pub fn of(reason: LossReason, count: u64) -> Self {
        let mut lost = Self::default();
        lost[reason] = count;
        lost
    }

    /// Takes in a cumulative counter of the kernel side.
    pub fn set(&mut self, reason: LossReason, count: u64) {
        self[reason] = count;
    }

    /// Name and count of every reason, in a fixed order.
    pub fn by_reason(&self) -> [(&'static str, u64); REASONS] {
        std::array::from_fn(|at| match LossReason::ALL.get(at) {
            Some(reason) => (reason.name(), self[*reason]),
            None => (UNDECODABLE, self.undecodable),
        })
    }

    /// Samples that never became stacks.
    pub fn samples(&self) -> u64 {
        let reasons = [LossReason::RingFull, LossReason::ScratchMissing, LossReason::TimerLate];
        reasons.into_iter().map(|reason| self[reason]).fold(0, u64::saturating_add)
    }

    /// What was lost since `earlier`. A counter that fell (the probes were loaded anew) counts from zero.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        self.with(earlier, |now, then| if now >= then { now - then } else { now })
    }

    /// This and `other` together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        self.with(other, u64::saturating_add)
    }

    /// Sets the count of the reason of that name, if there is one.
    pub fn set_named(&mut self, reason: &str, count: u64) {
        if let Some(known) = LossReason::ALL.into_iter().find(|known| known.name() == reason) {
            self[known] = count;
        } else if reason == UNDECODABLE {
            self.undecodable = count;
        }
    }

    fn with(&self, other: &Self, join: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            counts: std::array::from_fn(|at| join(self.counts[at], other.counts[at])),
            undecodable: join(self.undecodable, other.undecodable),
        }
    }
}

impl Serialize for Lost {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.by_reason())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_each_reason_by_its_name() {
        let mut lost = Lost::of(LossReason::UnwindJit, 7);
        lost.undecodable = 2;
        let json = serde_json::to_value(lost).unwrap();
        let map = json.as_object().unwrap();
        assert_eq!(map.len(), REASONS);
        assert_eq!((&map["unwind_jit"], &map["undecodable"], &map["ring_full"]), (&7.into(), &2.into(), &0.into()));
    }

    #[test]
    fn every_reason_is_set_by_its_name_added_and_taken_off() {
        let mut all = Lost::default();
        for (n, (reason, _)) in (1..).zip(Lost::default().by_reason()) {
            all.set_named(reason, n);
        }
        assert_eq!(all.by_reason().map(|(_, count)| count), std::array::from_fn(|n| n as u64 + 1));
        for (n, reason) in (1..).zip(LossReason::ALL) {
            assert_eq!((all[reason], LossReason::ALL[reason as usize]), (n, reason), "{}", reason.name());
        }
        all.set_named("no such reason", 99);
        assert_eq!(all.plus(&all).since(&all), all);
    }
}
