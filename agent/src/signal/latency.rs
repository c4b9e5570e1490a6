//! Latency: the report's histogram of each tick in, a quantile of the newest ones out.
//!
//! Newest ticks until 200 events were seen, 5 s at most; unknown below 20 events, because a 99th percentile of ten is
//! their maximum. Interpolated inside a bucket of an eighth of an octave: right within 5 % where events are many.

use std::collections::VecDeque;

use tidegate_client::abi::{REPORT_HISTOGRAM_SUB_BITS, REPORT_HISTOGRAM_UNIT_BITS, REPORT_HISTOGRAM_WORDS};

use crate::aggregate::histogram;

const ENOUGH: u64 = 200;
const FEWEST: u64 = 20;
const TICKS: u64 = 50;

/// Follows the latency of a pipeline.
///
/// Kept is the newest row of ticks that holds enough events, with its sum: what lies before it is never asked for again,
/// because further events only shorten the row. Ticks without events are passed over by their number.
#[derive(Debug)]
pub struct LatencyTracker {
    tick: u64,
    busy: VecDeque<Busy>,
    sum: [u64; REPORT_HISTOGRAM_WORDS],
    seen: u64,
}

/// A tick in which events were acknowledged.
#[derive(Debug)]
struct Busy {
    tick: u64,
    seen: u64,
    histogram: Box<[u64; REPORT_HISTOGRAM_WORDS]>,
}

impl Default for LatencyTracker {
    fn default() -> Self {
        Self { tick: 0, busy: VecDeque::new(), sum: [0; REPORT_HISTOGRAM_WORDS], seen: 0 }
    }
}

impl LatencyTracker {
    /// Takes in the events of one tick by latency.
    pub fn push(&mut self, histogram: &[u64; REPORT_HISTOGRAM_WORDS]) {
        self.tick += 1;
        let seen = histogram.iter().fold(0_u64, |sum, count| sum.saturating_add(*count));
        if seen > 0 {
            // A report claims at most a billion events a second: fifty ticks of them are far from the end of a word.
            for (sum, count) in self.sum.iter_mut().zip(histogram) {
                *sum += count;
            }
            self.seen += seen;
            self.busy.push_back(Busy { tick: self.tick, seen, histogram: Box::new(*histogram) });
        }
        let (tick, all) = (self.tick, &mut self.seen);
        while let Some(oldest) = self.busy.pop_front_if(|o| o.tick + TICKS <= tick || *all - o.seen >= ENOUGH) {
            for (sum, count) in self.sum.iter_mut().zip(oldest.histogram.iter()) {
                *sum -= count;
            }
            *all -= oldest.seen;
        }
    }

    /// The latency below which the share `q` lies, ms.
    pub fn quantile_ms(&self, q: f64) -> Option<f64> {
        (self.seen >= FEWEST).then(|| quantile_ms(&self.sum, q)).flatten()
    }
}

/// The latency below which the share `q` of these events lies, ms.
#[expect(clippy::cast_precision_loss, reason = "a quantile needs no more than 52 bits")]
pub fn quantile_ms(histogram: &[u64; REPORT_HISTOGRAM_WORDS], q: f64) -> Option<f64> {
    let units = histogram::quantile(histogram, REPORT_HISTOGRAM_SUB_BITS, q)?;
    // A unit has been cut to whole ones: the middle of it is the fairest guess.
    Some((units as f64 + 0.5) * f64::from(1_u32 << REPORT_HISTOGRAM_UNIT_BITS) / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_client::Nanos;
    use tidegate_client::report::bucket;

    fn all_at(ms: u64, count: u64) -> [u64; REPORT_HISTOGRAM_WORDS] {
        let mut histogram = [0; REPORT_HISTOGRAM_WORDS];
        histogram[bucket(Nanos::from_millis(ms))] = count;
        histogram
    }

    #[test]
    fn a_quantile_lies_within_an_eighth_of_an_octave() {
        for ms in [1, 7, 20, 333, 5_000] {
            let mut latency = LatencyTracker::default();
            latency.push(&all_at(ms, 1_000));
            let p50 = latency.quantile_ms(0.5).unwrap();
            #[expect(clippy::cast_precision_loss, reason = "a few digits")]
            let want = ms as f64;
            assert!((p50 / want - 1.0).abs() < 0.07, "{p50} for {want} ms");
        }
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
        latency.push(&all_at(1_000, 1_000));
        latency.push(&all_at(1, 1_000));
        assert!(latency.quantile_ms(0.99).unwrap() < 3.0);
    }
}
