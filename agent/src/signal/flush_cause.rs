//! Why flushes begin, told from outside: sizes, intervals and gaps of the newest flushes in; a cause out. Never says which
//! where the evidence fits several.
//!
//! What is held constant betrays the rule: under a timer the intervals are alike and the sizes follow the load, under a
//! size limit it is the other way round. Where a flush begins as soon as the one before has ended, neither limits.

use std::collections::VecDeque;

use agent_common::{FLOW_BUCKETS, FlowFlushes};

use crate::aggregate::histogram;

/// Why flushes begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushCause {
    /// A flush interval has passed.
    Timer,
    /// A batch is full.
    Size,
    /// The flush before has ended: the sink sets the pace.
    Downstream,
    /// Sizes and intervals vary alike, or not at all: the rule cannot be told from outside.
    Unclear,
}

impl FlushCause {
    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Timer => "timer",
            Self::Size => "size",
            Self::Downstream => "downstream",
            Self::Unclear => "unclear",
        }
    }
}

/// Flushes that are looked back over, and from which on something is said. Many: while a load is steady its chance moves
/// sizes and intervals alike, and only where it has moved itself can the two be told apart.
const ENOUGH: u64 = 500;
const FEWEST: u64 = 12;
/// Ticks looked back over.
const TICKS: usize = 100;
/// A gap below this share of a flush's duration is no wait.
const NO_GAP: f64 = 0.25;
/// Share of the flushes that must have none.
const MOST: f64 = 0.6;
/// What is held constant varies at most so much, as a standard deviation over the mean.
const CONSTANT: f64 = 0.35;
/// One that varies less than this share of what the other does is held.
const HELD: f64 = 0.6;
/// Less than this is no variation: a load without any chance in it tells nothing.
const SOME: f64 = 0.005;

/// Follows the flushes of a sink.
#[derive(Debug, Default)]
pub struct CauseTracker {
    ticks: VecDeque<Sums>,
}

#[derive(Clone, Copy, Debug)]
struct Sums {
    sizes: Moments,
    intervals: Moments,
    flushes: f64,
    duration_ns: f64,
    gaps: [u64; FLOW_BUCKETS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Moments {
    n: f64,
    sum: f64,
    squares: f64,
}

impl Moments {
    fn add(&mut self, other: &Self) {
        self.n += other.n;
        self.sum += other.sum;
        self.squares += other.squares;
    }

    /// Standard deviation over the mean.
    fn variation(&self) -> f64 {
        if self.sum <= 0.0 { 0.0 } else { (self.n * self.squares / (self.sum * self.sum) - 1.0).max(0.0).sqrt() }
    }
}

impl CauseTracker {
    /// Takes in the flushes of a tick.
    #[expect(clippy::cast_precision_loss, reason = "a variation needs no more than 52 bits")]
    pub fn observe(&mut self, flushes: &FlowFlushes) {
        if flushes.flushes == 0 {
            return;
        }
        let moments =
            |n: u64, sum: u64, squares: u64| Moments { n: n as f64, sum: sum as f64, squares: squares as f64 };
        self.ticks.push_back(Sums {
            // As they came in, where that is known: packed, big batches differ less than they did.
            sizes: if flushes.arrived > 0 {
                moments(flushes.intervals, flushes.arrived, flushes.arrived_squared)
            } else {
                moments(flushes.flushes, flushes.bytes, flushes.bytes_squared)
            },
            intervals: moments(flushes.intervals, flushes.interval_us, flushes.interval_us_squared),
            flushes: flushes.flushes as f64,
            duration_ns: flushes.duration_ns as f64,
            gaps: flushes.gaps.map(u64::from),
        });
        while self.ticks.len() > TICKS {
            self.ticks.pop_front();
        }
    }

    /// The cause; unknown before there are a dozen flushes.
    #[expect(clippy::cast_precision_loss, reason = "counts of some sixty")]
    pub fn value(&self) -> Option<FlushCause> {
        let (mut sizes, mut intervals) = (Moments::default(), Moments::default());
        let (mut duration_ns, mut flushes, mut gaps) = (0.0, 0.0, [0_u64; FLOW_BUCKETS]);
        for tick in self.ticks.iter().rev() {
            sizes.add(&tick.sizes);
            intervals.add(&tick.intervals);
            duration_ns += tick.duration_ns;
            flushes += tick.flushes;
            for (sum, count) in gaps.iter_mut().zip(tick.gaps) {
                *sum = sum.saturating_add(count);
            }
            if flushes >= ENOUGH as f64 {
                break;
            }
        }
        if intervals.n < FEWEST as f64 {
            return None;
        }
        let mean_duration_us = duration_ns / flushes / 1e3;
        // The quantile that just fits into "most have no gap".
        let gap_us = histogram::quantile(&gaps, 0, MOST)? as f64;
        if gap_us <= NO_GAP * mean_duration_us {
            return Some(FlushCause::Downstream);
        }
        let (of_sizes, of_intervals) = (sizes.variation(), intervals.variation());
        Some(if of_intervals <= CONSTANT && of_sizes >= SOME && of_intervals <= HELD * of_sizes {
            FlushCause::Timer
        } else if of_sizes <= CONSTANT && of_intervals >= SOME && of_sizes <= HELD * of_intervals {
            FlushCause::Size
        } else {
            FlushCause::Unclear
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tick of flushes: (bytes, µs since the one before began, µs that it took).
    fn tick(flushes: impl IntoIterator<Item = (u64, u64, u64)>) -> FlowFlushes {
        let mut sums = FlowFlushes::ZERO;
        for (bytes, interval, took) in flushes {
            let gap = interval.saturating_sub(took);
            sums.flushes += 1;
            sums.bytes += bytes;
            sums.bytes_squared += bytes * bytes;
            sums.duration_ns += took * 1_000;
            sums.intervals += 1;
            sums.interval_us += interval;
            sums.interval_us_squared += interval * interval;
            sums.gaps[usize::try_from((u64::BITS - gap.leading_zeros()).min(31)).unwrap()] += 1;
        }
        sums
    }

    fn cause(flushes: impl Fn(u64) -> (u64, u64, u64)) -> Option<FlushCause> {
        let mut tracker = CauseTracker::default();
        for t in 0..20 {
            tracker.observe(&tick((0..5).map(|i| flushes(t * 5 + i))));
        }
        tracker.value()
    }

    #[test]
    fn what_is_held_constant_betrays_the_rule() {
        let wobble = |i: u64, by: u64| i * 7_919 % 1_000 * by / 1_000;
        assert_eq!(cause(|i| (40_000 + wobble(i, 20_000), 20_000 + wobble(i, 300), 3_000)), Some(FlushCause::Timer));
        assert_eq!(cause(|i| (65_536 + wobble(i, 700), 20_000 + wobble(i, 9_000), 3_000)), Some(FlushCause::Size));
        assert_eq!(cause(|i| (40_000 + wobble(i, 20_000), 10_300, 10_000)), Some(FlushCause::Downstream));
    }

    #[test]
    fn what_fits_several_causes_is_said_to_be_unclear() {
        assert_eq!(cause(|_| (40_000, 20_000, 3_000)), Some(FlushCause::Unclear), "a load without any chance in it");
        let wild = |i: u64| (1 + i * 7_919 % 50_000, 4_000 + i * 104_729 % 90_000, 3_000);
        assert_eq!(cause(wild), Some(FlushCause::Unclear));
    }

    #[test]
    fn too_few_flushes_have_no_cause() {
        let mut tracker = CauseTracker::default();
        assert_eq!(tracker.value(), None);
        tracker.observe(&tick([(1, 1_000, 10); 11]));
        assert_eq!(tracker.value(), None);
        tracker.observe(&FlowFlushes::ZERO);
        tracker.observe(&tick([(1, 1_000, 10)]));
        assert!(tracker.value().is_some());
    }
}
