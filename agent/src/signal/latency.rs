//! Latency: the report's log2 histogram of each tick in, a quantile of the newest ones out.
//!
//! Newest ticks until 200 events were seen, 5 s at most; unknown below 20 events, because a 99th percentile of ten is
//! their maximum. Interpolated inside a bucket of a whole octave: right within a factor of 1.5, good for telling
//! milliseconds from seconds and no more.

use std::collections::VecDeque;

use tidegate_client::abi::REPORT_HISTOGRAM_WORDS;

use crate::aggregate::histogram;

const ENOUGH: u64 = 200;
const FEWEST: u64 = 20;
const TICKS: usize = 50;

/// Follows the latency of a pipeline.
#[derive(Debug, Default)]
pub struct LatencyTracker {
    ticks: VecDeque<[u64; REPORT_HISTOGRAM_WORDS]>,
}

impl LatencyTracker {
    /// Takes in the events of one tick by latency.
    pub fn push(&mut self, histogram: &[u64; REPORT_HISTOGRAM_WORDS]) {
        self.ticks.push_back(*histogram);
        while self.ticks.len() > TICKS {
            self.ticks.pop_front();
        }
    }

    /// The latency below which the share `q` lies, ms.
    #[expect(clippy::cast_precision_loss, reason = "a quantile needs no more than 52 bits")]
    pub fn quantile_ms(&self, q: f64) -> Option<f64> {
        // One place up: the octave that starts at 2^i is bucket i + 1 of a histogram without sub-buckets.
        let mut sum = [0_u64; REPORT_HISTOGRAM_WORDS + 1];
        let mut seen = 0_u64;
        for tick in self.ticks.iter().rev() {
            for (total, count) in sum.iter_mut().skip(1).zip(tick) {
                *total = total.saturating_add(*count);
                seen = seen.saturating_add(*count);
            }
            if seen >= ENOUGH {
                break;
            }
        }
        (seen >= FEWEST).then(|| histogram::quantile(&sum, 0, q)).flatten().map(|ns| ns as f64 / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_at(octave: usize, count: u64) -> [u64; REPORT_HISTOGRAM_WORDS] {
        let mut histogram = [0; REPORT_HISTOGRAM_WORDS];
        histogram[octave] = count;
        histogram
    }

    #[test]
    fn a_quantile_lies_in_the_octave_of_its_events() {
        let mut latency = LatencyTracker::default();
        latency.push(&all_at(24, 1_000));
        let p99 = latency.quantile_ms(0.99).unwrap();
        assert!((16.7..=33.6).contains(&p99), "2^24 ns is 16.8 ms, got {p99}");
    }

    #[test]
    fn few_events_have_no_quantile() {
        let mut latency = LatencyTracker::default();
        latency.push(&all_at(20, 19));
        assert_eq!(latency.quantile_ms(0.99), None);
        latency.push(&all_at(20, 1));
        assert!(latency.quantile_ms(0.99).is_some());
    }

    #[test]
    fn a_recovery_shows_at_once() {
        let mut latency = LatencyTracker::default();
        latency.push(&all_at(30, 1_000));
        latency.push(&all_at(20, 1_000));
        assert!(latency.quantile_ms(0.99).unwrap() < 3.0);
    }
}
