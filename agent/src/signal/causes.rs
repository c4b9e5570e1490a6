//! Causes of flushes: counts by cause of each tick in, shares of the newest ones out.
//!
//! Shares of at least twenty flushes, over 5 s at most: a knob may only be turned where it is what begins the flushes,
//! and three flushes tell nothing of that.

use std::collections::VecDeque;

use crate::units::Ratio;

/// Flushes that make a share.
const ENOUGH: u64 = 20;
/// Ticks looked back over.
const TICKS: usize = 50;

/// Shares of the newest flushes by why they began; they add up to one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CauseShares {
    /// The oldest event was old enough: the interval decides.
    pub age: Ratio,
    /// The batch was full: the batch size decides.
    pub size: Ratio,
    /// The sink had become idle and more than a batch waited: the sink decides.
    pub backlog: Ratio,
    /// The queue was nearly full.
    pub panic: Ratio,
    /// The waiting of all events together had come to the cost of a flush.
    pub waiting: Ratio,
}

/// Follows the causes.
#[derive(Debug, Default)]
pub struct CauseTracker {
    ticks: VecDeque<[u64; 5]>,
}

impl CauseTracker {
    /// Takes in the flushes of one tick: by age, size, backlog, panic, waiting.
    pub fn push(&mut self, counts: [u64; 5]) {
        self.ticks.push_back(counts);
        while self.ticks.len() > TICKS {
            self.ticks.pop_front();
        }
    }

    /// The shares; unknown before the first flush.
    #[expect(clippy::cast_precision_loss, reason = "a share needs no more than 52 bits")]
    pub fn value(&self) -> Option<CauseShares> {
        let mut sums = [0_u64; 5];
        let mut all = 0_u64;
        for tick in self.ticks.iter().rev() {
            for (sum, count) in sums.iter_mut().zip(tick) {
                *sum = sum.saturating_add(*count);
                all = all.saturating_add(*count);
            }
            if all >= ENOUGH {
                break;
            }
        }
        let [age, size, backlog, panic, waiting] = sums.map(|sum| Ratio(sum as f64 / all.max(1) as f64));
        (all > 0).then_some(CauseShares { age, size, backlog, panic, waiting })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_newest_flushes() {
        let mut causes = CauseTracker::default();
        assert_eq!(causes.value(), None, "unknown is not zero");
        causes.push([100, 0, 0, 0, 0]);
        causes.push([0, 15, 5, 0, 0]);
        let shares = causes.value().unwrap();
        assert_eq!((shares.age, shares.size, shares.backlog), (Ratio(0.0), Ratio(0.75), Ratio(0.25)));
    }

    #[test]
    fn few_flushes_look_further_back() {
        let mut causes = CauseTracker::default();
        causes.push([3, 0, 0, 0, 0]);
        causes.push([0, 0, 0, 1, 0]);
        assert_eq!(causes.value().unwrap().panic, Ratio(0.25));
    }
}
