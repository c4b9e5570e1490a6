//! Latencies by slice in, quantiles by either weighting out. By event every record counts alike; by time every second of
//! the run does, so that a quiet second is not drowned by a busy one.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tidegate_client::Nanos;

use super::schedule::{Schedule, Slice};

/// Three significant figures: 0.1 %.
const FIGURES: u8 = 3;

/// Latencies of one slice.
#[derive(Clone)]
struct SliceLatency {
    micros: Histogram<u32>,
    sum_ns: u128,
}

/// Latencies of a run.
pub(crate) struct Latencies {
    slices: Vec<SliceLatency>,
}

/// A summary of latencies, milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// Records behind it.
    pub(crate) records: u64,
    /// Median.
    pub(crate) p50_ms: f64,
    /// 99th percentile.
    pub(crate) p99_ms: f64,
    /// 99.9th percentile.
    pub(crate) p999_ms: f64,
    /// Mean, from exact sums.
    pub(crate) mean_ms: f64,
    /// Largest.
    pub(crate) max_ms: f64,
}

/// Latencies of one slice, so that runs can be pooled.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SliceReport {
    /// Which phase, the first measured one being 0.
    pub(crate) phase: usize,
    /// Which second of its phase.
    pub(crate) second: usize,
    /// Its length, ns.
    pub(crate) span_ns: u64,
    /// Records due in it.
    pub(crate) records: u64,
    /// Exact sum of latencies, ns.
    pub(crate) sum_ns: u64,
    /// Latency in microseconds and how many records had it, ascending.
    pub(crate) counts: Vec<(u64, u64)>,
}

/// What counts alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weighting {
    /// Every record.
    ByEvent,
    /// Every second.
    ByTime,
}

impl Latencies {
    pub(crate) fn new(schedule: &Schedule) -> Self {
        let empty = SliceLatency {
            micros: Histogram::new(FIGURES).expect("three figures are within the histogram's 0 to 5"),
            sum_ns: 0,
        };
        Self { slices: vec![empty; schedule.slices().len()] }
    }

    pub(crate) fn record(&mut self, slice: usize, latency: Nanos) {
        let slice = &mut self.slices[slice];
        // The histogram grows with its values; only one of thousands of years would be more than it can hold.
        slice.micros.record(latency.0 / 1_000).ok();
        slice.sum_ns += u128::from(latency.0);
    }

    /// Summary of the slices that `select` takes.
    #[expect(clippy::cast_precision_loss, reason = "three figures are kept, a double has fifteen")]
    pub(crate) fn summary(
        &self,
        schedule: &Schedule,
        weighting: Weighting,
        select: impl Fn(&Slice) -> bool,
    ) -> Summary {
        let mut points: Vec<(u64, f64)> = Vec::new();
        let (mut records, mut mean_sum, mut weight_sum) = (0, 0.0, 0.0);
        for (slice, latency) in schedule.slices().iter().zip(&self.slices).filter(|(s, _)| select(s)) {
            let count = latency.micros.len();
            if count == 0 {
                continue;
            }
            let weight = match weighting {
                Weighting::ByEvent => 1.0,
                Weighting::ByTime => slice.span.0 as f64 / 1e9 / slice.records as f64,
            };
            records += count;
            weight_sum += weight * count as f64;
            mean_sum += weight * latency.sum_ns as f64;
            let values = latency.micros.iter_recorded();
            points.extend(values.map(|v| (v.value_iterated_to(), weight * f64::from(v.count_at_value()))));
        }
        if records == 0 {
            return Summary::default();
        }
        points.sort_unstable_by_key(|(value, _)| *value);
        let quantile = |q: f64| {
            let mut below = 0.0;
            let reached = points.iter().find(|(_, weight)| {
                below += weight;
                // A hair below, so that rounding never skips the last point.
                below >= q * weight_sum * (1.0 - 1e-12)
            });
            reached.or(points.last()).map_or(0.0, |(micros, _)| *micros as f64 / 1e3)
        };
        Summary {
            records,
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
            p999_ms: quantile(0.999),
            mean_ms: mean_sum / weight_sum / 1e6,
            max_ms: quantile(1.0),
        }
    }

    /// Every slice from phase `first` on.
    pub(crate) fn slices(&self, schedule: &Schedule, first: usize) -> Vec<SliceReport> {
        let mut second = 0;
        let mut phase = first;
        let measured = schedule.slices().iter().zip(&self.slices).filter(|(slice, _)| slice.phase >= first);
        let report = |(slice, latency): (&Slice, &SliceLatency)| {
            second = if slice.phase == phase { second } else { 0 };
            phase = slice.phase;
            second += 1;
            SliceReport {
                phase: slice.phase - first,
                second: second - 1,
                span_ns: slice.span.0,
                records: slice.records,
                sum_ns: u64::try_from(latency.sum_ns).unwrap_or(u64::MAX),
                counts: latency
                    .micros
                    .iter_recorded()
                    .map(|v| (v.value_iterated_to(), v.count_at_value().into()))
                    .collect(),
            }
        };
        measured.map(report).collect()
    }

    /// All slices that `select` takes as one histogram of microseconds.
    pub(crate) fn merged(&self, schedule: &Schedule, select: impl Fn(&Slice) -> bool) -> Histogram<u64> {
        let mut all = Histogram::new(FIGURES).expect("three figures are within the histogram's 0 to 5");
        for (_, latency) in schedule.slices().iter().zip(&self.slices).filter(|(s, _)| select(s)) {
            for value in latency.micros.iter_recorded() {
                all.record_n(value.value_iterated_to(), value.count_at_value().into()).ok();
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::schedule::Phases;

    /// One second of 10 slow records, then one of 990 fast ones.
    fn slow_then_fast() -> (Schedule, Latencies) {
        let schedule = Schedule::new("10x1s,990x1s".parse::<Phases>().unwrap().0);
        let mut latencies = Latencies::new(&schedule);
        for due in schedule.walk() {
            latencies.record(due.slice, Nanos::from_millis(if due.slice == 0 { 200 } else { 2 }));
        }
        (schedule, latencies)
    }

    fn check(got: f64, want: f64) {
        assert!((got - want).abs() <= want * 0.002, "{got}, want {want}");
    }

    #[test]
    fn by_time_a_quiet_second_weighs_as_much_as_a_busy_one() {
        let (schedule, latencies) = slow_then_fast();
        let by_event = latencies.summary(&schedule, Weighting::ByEvent, |_| true);
        let by_time = latencies.summary(&schedule, Weighting::ByTime, |_| true);
        check(by_event.p99_ms, 2.0);
        check(by_event.p999_ms, 200.0);
        check(by_event.mean_ms, 3.98);
        check(by_time.p50_ms, 2.0);
        check(by_time.p99_ms, 200.0);
        check(by_time.mean_ms, 101.0);
        assert_eq!((by_event.records, by_time.records), (1_000, 1_000));
    }

    #[test]
    fn slices_number_the_seconds_of_each_phase_and_leave_the_warm_up_out() {
        let schedule = Schedule::new("10x1s,20x2500ms,10x1s".parse::<Phases>().unwrap().0);
        let mut latencies = Latencies::new(&schedule);
        for due in schedule.walk() {
            latencies.record(due.slice, Nanos::from_millis(3));
        }
        let slices = latencies.slices(&schedule, 1);
        let places: Vec<_> = slices.iter().map(|s| (s.phase, s.second, s.records)).collect();
        assert_eq!(places, [(0, 0, 20), (0, 1, 20), (0, 2, 10), (1, 0, 10)]);
        assert_eq!((slices[2].span_ns, slices[2].sum_ns), (500_000_000, 30_000_000));
        assert_eq!(slices[2].counts.iter().map(|(_, n)| n).sum::<u64>(), 10);
    }

    #[test]
    fn within_one_phase_both_weightings_agree() {
        let (schedule, latencies) = slow_then_fast();
        let one = |w| latencies.summary(&schedule, w, |s| s.phase == 0);
        let (by_event, by_time) = (one(Weighting::ByEvent), one(Weighting::ByTime));
        check(by_event.p99_ms, by_time.p99_ms);
        check(by_event.mean_ms, by_time.mean_ms);
    }
}
