//! How long a wait must be to be sampled for sure: rises while samples come too fast, falls back while they are few.
//!
//! Sums stay right whatever it is, because each sample says what it stands for; only the grain of the picture changes.

use crate::units::Nanos;

/// Longest period: what is sampled may stand for seconds, not for minutes.
const LONGEST: u64 = 8 * Nanos::SECOND.0;
/// It rises at most so many times over in one step: one burst says little.
const STEEPEST: u64 = 8;

/// How many times the shortest period it begins with: four quiet ticks later it is there.
const HEAD_START: u64 = 16;

/// A period that follows the rate of samples.
#[derive(Debug)]
pub(super) struct Pace {
    shortest: u64,
    period: u64,
    /// Samples a second above which the period rises.
    most: u64,
}

impl Pace {
    /// Starts well above `shortest`, so that a busy host makes no burst, and never goes below it.
    pub(super) fn new(shortest: u64, most: u64) -> Self {
        let shortest = shortest.clamp(1, LONGEST);
        Self { shortest, period: shortest.saturating_mul(HEAD_START).min(LONGEST), most }
    }

    /// Never goes below `shortest` from now on.
    pub(super) fn keep_above(&mut self, shortest: u64) {
        self.shortest = shortest.clamp(1, LONGEST);
        self.period = self.period.max(self.shortest);
    }

    /// The period, ns or whatever it counts.
    pub(super) fn period(&self) -> u64 {
        self.period
    }

    /// So many samples came within `span`: returns whether the period changed.
    pub(super) fn observe(&mut self, samples: u64, span: Nanos) -> bool {
        // A pause tells no more than a second does.
        let most = (self.most * span.0.min(Nanos::SECOND.0) / Nanos::SECOND.0).max(1);
        let before = self.period;
        if samples > most {
            let times = samples.div_ceil(most).min(STEEPEST);
            self.period = self.period.saturating_mul(times).min(LONGEST);
        } else if samples < most / 4 {
            self.period = (self.period / 2).max(self.shortest);
        }
        self.period != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_settles_where_samples_come_at_a_bounded_rate_and_returns_when_they_stop() {
        let (base, most) = (10_000_000, 150);
        for tick in [Nanos::TICK, Nanos(5 * Nanos::TICK.0)] {
            let mut pace = Pace::new(base, most);
            // 400 threads that wait all the time.
            let samples = |period: u64| 400 * tick.0 / period;
            for _ in 0..40 {
                pace.observe(samples(pace.period()), tick);
            }
            let rate = samples(pace.period()) * Nanos::SECOND.0 / tick.0;
            assert!((most / 5..=most).contains(&rate), "{rate} samples a second");
            for _ in 0..40 {
                pace.observe(0, tick);
            }
            assert_eq!(pace.period(), base);
        }
    }
}
