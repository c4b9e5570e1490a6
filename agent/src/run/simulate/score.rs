//! Scores: latencies in, quantiles by both weightings out.
//!
//! Event-weighted: every event alike, so the busy phases decide. Time-weighted: every second of the run alike, an event
//! weighing one over the events of its second, so that a quiet second counts as much as a busy one. Both are always
//! shown, because either alone can hide what the other shows.

use serde::Serialize;

use crate::aggregate::histogram;
use crate::source::sim::plant::Done;
use crate::units::Nanos;

const SUB_BITS: u32 = 4;
const BUCKETS: usize = 640;

/// Latencies of a run, by phase and by second.
#[derive(Clone, Debug, Default)]
pub struct Score {
    starts: Vec<Nanos>,
    phases: Vec<Spread>,
    seconds: Vec<Spread>,
}

/// Latencies of a span.
#[derive(Clone, Debug)]
struct Spread {
    counts: Vec<u32>,
    events: u64,
    sum_ns: u128,
}

impl Default for Spread {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], events: 0, sum_ns: 0 }
    }
}

/// Quantiles, ms. Absent when there was no event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// Median.
    pub p50_ms: Option<f64>,
    /// 99th percentile.
    pub p99_ms: Option<f64>,
    /// 99.9th percentile.
    pub p999_ms: Option<f64>,
    /// Mean, exact.
    pub mean_ms: Option<f64>,
}

impl Score {
    /// Nothing yet, of a run whose phases start at `starts`.
    pub fn of_phases(starts: Vec<Nanos>) -> Self {
        Self { phases: vec![Spread::default(); starts.len()], seconds: Vec::new(), starts }
    }

    /// Counts an event.
    pub fn count(&mut self, done: Done) {
        let phase = self.starts.partition_point(|start| *start <= done.arrived).saturating_sub(1);
        if let Some(spread) = self.phases.get_mut(phase) {
            spread.count(done.latency);
        }
        let origin = self.starts.first().copied().unwrap_or_default();
        let second = usize::try_from(done.arrived.since(origin).0 / Nanos::SECOND.0).unwrap_or(0);
        while self.seconds.len() <= second {
            self.seconds.push(Spread::default());
        }
        self.seconds[second].count(done.latency);
    }

    /// Adds another run of the same phases.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.phases.iter_mut().zip(&other.phases) {
            mine.merge(theirs);
        }
        self.seconds.extend(other.seconds.iter().cloned());
    }

    /// Events counted.
    pub fn events(&self) -> u64 {
        self.phases.iter().map(|phase| phase.events).sum()
    }

    /// Quantiles of one phase.
    pub fn phase(&self, nth: usize) -> Quantiles {
        self.phases.get(nth).map(|phase| quantiles([phase].into_iter(), Weight::Event)).unwrap_or_default()
    }

    /// Quantiles of the whole, every event alike.
    pub fn by_event(&self) -> Quantiles {
        quantiles(self.phases.iter(), Weight::Event)
    }

    /// Quantiles of the whole, every second alike.
    pub fn by_time(&self) -> Quantiles {
        quantiles(self.seconds.iter(), Weight::Second)
    }
}

impl Spread {
    fn count(&mut self, latency: Nanos) {
        self.counts[histogram::bucket(latency.0, SUB_BITS, BUCKETS)] += 1;
        self.events += 1;
        self.sum_ns += u128::from(latency.0);
    }

    fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine = mine.saturating_add(*theirs);
        }
        self.events += other.events;
        self.sum_ns += other.sum_ns;
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Weight {
    Event,
    Second,
}

#[expect(clippy::cast_precision_loss, reason = "a quantile needs no more than 52 bits")]
fn quantiles<'a>(spreads: impl Iterator<Item = &'a Spread>, weight: Weight) -> Quantiles {
    let mut weights = vec![0.0; BUCKETS];
    let (mut total, mut sum_ms) = (0.0, 0.0);
    for spread in spreads.filter(|spread| spread.events > 0) {
        let each = if weight == Weight::Event { 1.0 } else { 1.0 / spread.events as f64 };
        for (sum, count) in weights.iter_mut().zip(&spread.counts) {
            *sum += each * f64::from(*count);
        }
        total += each * spread.events as f64;
        sum_ms += each * spread.sum_ns as f64 / 1e6;
    }
    if total <= 0.0 {
        return Quantiles::default();
    }
    let at = |q: f64| quantile(&weights, q * total);
    Quantiles { p50_ms: at(0.5), p99_ms: at(0.99), p999_ms: at(0.999), mean_ms: Some(sum_ms / total) }
}

#[expect(clippy::cast_precision_loss, reason = "a quantile needs no more than 52 bits")]
fn quantile(weights: &[f64], rank: f64) -> Option<f64> {
    let last = weights.iter().rposition(|w| *w > 0.0)?;
    let mut below = 0.0;
    for (index, weight) in weights.iter().enumerate().filter(|(_, w)| **w > 0.0) {
        if below + weight >= rank || index == last {
            let (low, high) = histogram::bounds(index, SUB_BITS);
            let share = ((rank - below) / weight).clamp(0.0, 1.0);
            return Some((low as f64 + share * (high - low) as f64) / 1e6);
        }
        below += weight;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_second_weighs_as_much_as_a_busy_one_by_time_and_little_by_event() {
        let mut score = Score::of_phases(vec![Nanos(0), Nanos::SECOND]);
        for nth in 0..10_u64 {
            score.count(Done { arrived: Nanos(nth), latency: Nanos::from_millis(200) });
        }
        for nth in 0..100_000_u64 {
            score.count(Done { arrived: Nanos::SECOND + Nanos(nth), latency: Nanos::from_millis(20) });
        }
        let near = |value: Option<f64>, want: f64| value.is_some_and(|v| (v / want - 1.0).abs() < 0.07);
        assert!(near(score.by_event().p99_ms, 20.0), "{:?}", score.by_event());
        assert!(near(score.by_time().p99_ms, 200.0), "{:?}", score.by_time());
        assert!(near(score.by_time().mean_ms, 110.0) && near(score.by_event().mean_ms, 20.0));
        assert!(near(score.phase(0).p50_ms, 200.0) && near(score.phase(1).p50_ms, 20.0));
    }

    #[test]
    fn nothing_has_no_quantiles() {
        assert_eq!(Score::of_phases(vec![Nanos(0)]).by_time(), Quantiles::default());
    }
}
