//! Latencies by slice in, quantiles by either weighting out. By event every record counts alike; by time every second of
//! the run does, so that a quiet second is not drowned by a busy one.

use std::collections::BTreeMap;

use anyhow::Result;
use hdrhistogram::{Counter, Histogram};
use serde::{Deserialize, Serialize};
use tidegate_client::Nanos;

use super::interval_log::IntervalLog;
use super::schedule::Schedule;

/// Three significant figures: 0.1 %.
const FIGURES: u8 = 3;

/// Latencies of one slice whose records are not all in yet.
struct Open {
    micros: Histogram<u32>,
    sum_ns: u128,
}

/// Latencies of one phase.
struct OfPhase {
    /// Every record counts one.
    by_event: Histogram<u64>,
    /// Every record counts the nanoseconds that its second holds for it.
    by_time: Histogram<u64>,
    sum_ns: u128,
    /// Sum of latencies, each times its weight by time.
    weighted_ns: f64,
}

/// Whether every slice is kept, for whoever pools runs: memory grows with their number then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    Phases,
    Slices,
}

/// Latencies of a run. What a phase or a finished slice came to is kept, never a record.
pub(crate) struct Latencies {
    phases: Vec<OfPhase>,
    open: BTreeMap<usize, Open>,
    seconds: Vec<Second>,
    keep: Keep,
    slices: Vec<SliceReport>,
    log: Option<IntervalLog>,
}

/// A slice in short, for a plot.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Second {
    /// Index of the slice.
    pub(crate) slice: usize,
    /// Of its records.
    pub(crate) latency: Summary,
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
    pub(crate) fn new(schedule: &Schedule, keep: Keep) -> Self {
        let phase = || OfPhase { by_event: empty(), by_time: empty(), sum_ns: 0, weighted_ns: 0.0 };
        let phases = schedule.phases().iter().map(|_| phase()).collect();
        Self { phases, open: BTreeMap::new(), seconds: Vec::new(), keep, slices: Vec::new(), log: None }
    }

    /// Also writes each finished slice to `log`.
    pub(crate) fn logged(self, log: Option<IntervalLog>) -> Self {
        Self { log, ..self }
    }

    /// Takes the latency of a record of `slice`. Slices end in any order, but not long after one another.
    pub(crate) fn record(&mut self, schedule: &Schedule, slice: usize, latency: Nanos) -> Result<()> {
        let open = self.open.entry(slice).or_insert_with(|| Open { micros: empty(), sum_ns: 0 });
        // The histogram grows with its values; only one of thousands of years would be more than it can hold.
        open.micros.record(latency.0 / 1_000).ok();
        open.sum_ns += u128::from(latency.0);
        if open.micros.len() == schedule.slices()[slice].records
            && let Some(open) = self.open.remove(&slice)
        {
            self.close(schedule, slice, &open)?;
        }
        Ok(())
    }

    /// Counts the slices in that will not be complete any more.
    pub(crate) fn finish(&mut self, schedule: &Schedule) -> Result<()> {
        while let Some((slice, open)) = self.open.pop_first() {
            self.close(schedule, slice, &open)?;
        }
        self.seconds.sort_unstable_by_key(|second| second.slice);
        self.slices.sort_unstable_by_key(|slice| (slice.phase, slice.second));
        self.log.take().map_or(Ok(()), IntervalLog::finish)
    }

    #[expect(clippy::cast_precision_loss, reason = "three figures are kept, a double has fifteen")]
    fn close(&mut self, schedule: &Schedule, index: usize, open: &Open) -> Result<()> {
        let slice = &schedule.slices()[index];
        let phase = &mut self.phases[slice.phase];
        let records = slice.records.max(1);
        // What the records up to each come to, so that rounding never changes what a whole slice weighs.
        let weight_of = |count: u64| {
            u64::try_from(u128::from(slice.span.0) * u128::from(count) / u128::from(records)).unwrap_or(u64::MAX)
        };
        let mut counted = 0;
        for value in open.micros.iter_recorded() {
            let (micros, count) = (value.value_iterated_to(), u64::from(value.count_at_value()));
            // Both histograms grow with their values.
            phase.by_event.record_n(micros, count).ok();
            phase.by_time.record_n(micros, weight_of(counted + count) - weight_of(counted)).ok();
            counted += count;
        }
        phase.sum_ns += open.sum_ns;
        phase.weighted_ns += open.sum_ns as f64 * slice.span.0 as f64 / records as f64;
        let points: Vec<(u64, f64)> = points(&open.micros);
        let latency = summarise(points, open.micros.len(), open.sum_ns as f64, open.micros.len() as f64);
        self.seconds.push(Second { slice: index, latency });
        if self.keep == Keep::Slices {
            let counts = open.micros.iter_recorded();
            self.slices.push(SliceReport {
                phase: slice.phase,
                second: index - schedule.first_slice(slice.phase),
                span_ns: slice.span.0,
                records: slice.records,
                sum_ns: u64::try_from(open.sum_ns).unwrap_or(u64::MAX),
                counts: counts.map(|v| (v.value_iterated_to(), v.count_at_value().into())).collect(),
            });
        }
        self.log.as_mut().map_or(Ok(()), |log| log.write(schedule, index, &open.micros))
    }

    /// Summary of the phases that `select` takes.
    #[expect(clippy::cast_precision_loss, reason = "three figures are kept, a double has fifteen")]
    pub(crate) fn summary(&self, weighting: Weighting, select: impl Fn(usize) -> bool) -> Summary {
        let (mut all, mut records, mut sum, mut weights) = (Vec::new(), 0, 0.0, 0.0);
        for (_, phase) in self.phases.iter().enumerate().filter(|(index, _)| select(*index)) {
            let (histogram, sum_of) = match weighting {
                Weighting::ByEvent => (&phase.by_event, phase.sum_ns as f64),
                Weighting::ByTime => (&phase.by_time, phase.weighted_ns),
            };
            records += phase.by_event.len();
            sum += sum_of;
            weights += histogram.len() as f64;
            all.extend(points(histogram));
        }
        summarise(all, records, sum, weights)
    }

    /// Every kept slice from phase `first` on.
    pub(crate) fn slices(&self, first: usize) -> Vec<SliceReport> {
        let measured = self.slices.iter().filter(|slice| slice.phase >= first);
        measured.map(|slice| SliceReport { phase: slice.phase - first, ..slice.clone() }).collect()
    }

    /// Every slice that had records, in short.
    pub(crate) fn seconds(&self) -> &[Second] {
        &self.seconds
    }

    /// All phases that `select` takes as one histogram of microseconds.
    pub(crate) fn merged(&self, select: impl Fn(usize) -> bool) -> Histogram<u64> {
        let mut all = empty();
        for (_, phase) in self.phases.iter().enumerate().filter(|(index, _)| select(*index)) {
            // Both grow with their values.
            all.add(&phase.by_event).ok();
        }
        all
    }
}

fn empty<C: Counter>() -> Histogram<C> {
    Histogram::new(FIGURES).expect("three figures are within the histogram's 0 to 5")
}

#[expect(clippy::cast_precision_loss, reason = "three figures are kept, a double has fifteen")]
fn points<C: Counter>(histogram: &Histogram<C>) -> Vec<(u64, f64)> {
    let values = histogram.iter_recorded();
    values.map(|v| (v.value_iterated_to(), v.count_at_value().as_u64() as f64)).collect()
}

/// From microseconds and their weights.
fn summarise(mut points: Vec<(u64, f64)>, records: u64, sum_ns: f64, weights: f64) -> Summary {
    if records == 0 {
        return Summary::default();
    }
    points.sort_unstable_by_key(|(value, _)| *value);
    #[expect(clippy::cast_precision_loss, reason = "latencies far below 2^52")]
    let quantile = |q: f64| {
        let mut below = 0.0;
        let reached = points.iter().find(|(_, weight)| {
            below += weight;
            // A hair below, so that rounding never skips the last point.
            below >= q * weights * (1.0 - 1e-12)
        });
        reached.or(points.last()).map_or(0.0, |(micros, _)| *micros as f64 / 1e3)
    };
    Summary {
        records,
        p50_ms: quantile(0.5),
        p99_ms: quantile(0.99),
        p999_ms: quantile(0.999),
        mean_ms: sum_ns / weights / 1e6,
        max_ms: quantile(1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::schedule::Phases;

    /// One second of 10 slow records, then one of 990 fast ones.
    fn slow_then_fast() -> (Schedule, Latencies) {
        let schedule = Schedule::new("10x1s,990x1s".parse::<Phases>().unwrap().0);
        let mut latencies = Latencies::new(&schedule, Keep::Slices);
        for due in schedule.walk() {
            let latency = Nanos::from_millis(if due.slice == 0 { 200 } else { 2 });
            latencies.record(&schedule, due.slice, latency).unwrap();
        }
        (schedule, latencies)
    }

    fn check(got: f64, want: f64) {
        assert!((got - want).abs() <= want * 0.002, "{got}, want {want}");
    }

    #[test]
    fn by_time_a_quiet_second_weighs_as_much_as_a_busy_one() {
        let (_, latencies) = slow_then_fast();
        let by_event = latencies.summary(Weighting::ByEvent, |_| true);
        let by_time = latencies.summary(Weighting::ByTime, |_| true);
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
        let mut latencies = Latencies::new(&schedule, Keep::Slices);
        for due in schedule.walk() {
            latencies.record(&schedule, due.slice, Nanos::from_millis(3)).unwrap();
        }
        let slices = latencies.slices(1);
        let places: Vec<_> = slices.iter().map(|s| (s.phase, s.second, s.records)).collect();
        assert_eq!(places, [(0, 0, 20), (0, 1, 20), (0, 2, 10), (1, 0, 10)]);
        assert_eq!((slices[2].span_ns, slices[2].sum_ns), (500_000_000, 30_000_000));
        assert_eq!(slices[2].counts.iter().map(|(_, n)| n).sum::<u64>(), 10);
    }

    #[test]
    fn within_one_phase_both_weightings_agree() {
        let (_, latencies) = slow_then_fast();
        let one = |w| latencies.summary(w, |phase| phase == 0);
        let (by_event, by_time) = (one(Weighting::ByEvent), one(Weighting::ByTime));
        check(by_event.p99_ms, by_time.p99_ms);
        check(by_event.mean_ms, by_time.mean_ms);
    }

    #[test]
    fn a_slice_that_is_never_complete_counts_all_the_same() {
        let schedule = Schedule::new("4x1s,4x1s".parse::<Phases>().unwrap().0);
        let mut latencies = Latencies::new(&schedule, Keep::Phases);
        for due in schedule.walk().skip(2) {
            latencies.record(&schedule, due.slice, Nanos::from_millis(5)).unwrap();
        }
        assert_eq!(latencies.summary(Weighting::ByEvent, |_| true).records, 4, "the first slice is still open");
        latencies.finish(&schedule).unwrap();
        assert_eq!(latencies.summary(Weighting::ByEvent, |_| true).records, 6);
        assert_eq!(
            latencies.seconds().iter().map(|s| (s.slice, s.latency.records)).collect::<Vec<_>>(),
            [(0, 2), (1, 4)]
        );
        assert!(latencies.slices(0).is_empty(), "nobody asked for them");
    }
}
