//! Event rate: counts of ticks in; rolling rate, newest rate and detected steps out.
//!
//! A plain rolling mean of 5 s is wrong for 5 s after every step, and that is where the tail of the latency comes from.
//! So the newest 1, 2, 4, 8 or 16 ticks are held against the rest of the window by a likelihood-ratio test of two
//! Poisson counts, divided by the load's own burstiness; when they differ by 30 % beyond chance, the window is cut there
//! and forgets what was before. At 300 events/s a tick holds 30 ± 5 of them: that is no step, 60 for two ticks is.

use std::collections::VecDeque;

use crate::signal::exact::ln;
use crate::units::{EventsPerSec, Nanos};

/// Length of the rolling window.
pub const WINDOW: Nanos = Nanos::from_secs(5);
/// How much the rates before and after must differ to be a step.
pub const STEP_RATIO: f64 = 1.3;

/// Test statistic above which a difference is no chance: about one false step in seven hours of steady load.
const BEYOND_CHANCE: f64 = 24.0;
/// Trailing ticks that are held against the rest.
const TRAILING: [usize; 5] = [1, 2, 4, 8, 16];
/// Events that make a rate: right within a fifth.
const ENOUGH: u64 = 25;
/// The newest rate looks back this far for them.
const NEWEST_SPAN: Nanos = Nanos::SECOND;
/// Pairs of ticks from which the burstiness is told.
const PAIRS: usize = 32;
/// Ticks after a step until the one that holds it can be spared.
const MIXED_UNTIL: usize = 2;
/// Ticks, and events a tick, from which evenness is told.
const EVEN_FROM_TICKS: usize = 6;
const EVEN_FROM_EVENTS: f64 = 5.0;
/// Ticks from which any evenness is told, and what is told before.
const SURE_FROM_TICKS: usize = 10;
const CLEARLY_EVEN: f64 = 0.04;
/// Median of the square of a standard normal variable.
const CHI_SQUARE_MEDIAN: f64 = 0.455;

/// A detected step of the rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Rate before.
    pub from: EventsPerSec,
    /// Rate after.
    pub to: EventsPerSec,
}

impl Step {
    /// Whether its two rates are far enough apart to be called a step.
    fn is_wide(self) -> bool {
        self.to.0 >= STEP_RATIO * self.from.0 || self.from.0 >= STEP_RATIO * self.to.0
    }
}

/// Follows the event rate of a pipeline.
#[derive(Debug, Default)]
pub struct RateTracker {
    ticks: VecDeque<Count>,
    pairs: VecDeque<f64>,
    /// The first tick holds the step itself, and so perhaps events of both rates.
    begins_with_step: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    span: Nanos,
    events: u64,
}

impl RateTracker {
    /// Takes in the events of one tick and tells whether they reveal a step.
    pub fn observe(&mut self, span: Nanos, events: u64) -> Option<Step> {
        let newest = Count { span: Nanos(span.0.max(1)), events };
        if let Some(before) = self.ticks.back() {
            self.pairs.push_back(pair(*before, newest));
            if self.pairs.len() > PAIRS {
                self.pairs.pop_front();
            }
        }
        self.ticks.push_back(newest);
        if self.begins_with_step && self.ticks.len() > MIXED_UNTIL {
            self.begins_with_step = false;
            let (first, rest) = (self.ticks[0], sum(self.ticks.range(1..)));
            if (Step { from: first.rate(), to: rest.rate() }).is_wide() {
                self.ticks.pop_front();
            }
        }
        let mut span: u64 = self.ticks.iter().fold(0, |sum, t| sum.saturating_add(t.span.0));
        while span > WINDOW.0 && self.ticks.len() > 1 {
            span = self.ticks.pop_front().map_or(span, |old| span.saturating_sub(old.span.0));
        }
        let burstiness = self.burstiness();
        let (len, all) = (self.ticks.len(), sum(self.ticks.iter()));
        let (at, step) = TRAILING.into_iter().filter(|trailing| *trailing < len).find_map(|trailing| {
            let after = sum(self.ticks.range(len - trailing..));
            let before = Count { span: all.span.since(after.span), events: all.events.saturating_sub(after.events) };
            let step = Step { from: before.rate(), to: after.rate() };
            (step.is_wide() && beyond_chance(before, after, burstiness)).then_some((len - trailing, step))
        })?;
        self.ticks.drain(..at);
        self.begins_with_step = true;
        Some(step)
    }

    /// Rate over the rolling window, or since the last step.
    pub fn rolling(&self) -> Option<EventsPerSec> {
        (!self.ticks.is_empty()).then(|| sum(self.ticks.iter()).rate())
    }

    /// Rate of the newest ticks that hold enough events.
    pub fn newest(&self) -> Option<EventsPerSec> {
        let mut newest = Count::default();
        for tick in self.ticks.iter().rev() {
            newest = sum([&newest, tick].into_iter());
            if newest.events >= ENOUGH || newest.span >= NEWEST_SPAN {
                break;
            }
        }
        (newest.span.0 > 0).then(|| newest.rate())
    }

    /// Variance over mean of the counts of ticks of one length since the last step: 1 for events that come by chance, near 0
    /// for events that come evenly. Unknown where a tick holds too few events to tell, before six ticks, and before ten
    /// unless it is near 0: of six counts by chance one set in a thousand is as even as that.
    #[expect(clippy::cast_precision_loss, reason = "a ratio needs no more than 52 bits")]
    pub fn dispersion(&self) -> Option<f64> {
        let newest = self.ticks.back()?.span;
        let alike = |t: &&Count| t.span.0.abs_diff(newest.0) <= newest.0 / 50;
        let counts = || self.ticks.iter().filter(alike).map(|t| t.rate().0 * newest.as_secs_f64());
        let ticks = counts().count();
        if ticks < EVEN_FROM_TICKS {
            return None;
        }
        let len = ticks as f64;
        let mean = counts().sum::<f64>() / len;
        let variance = counts().map(|n| (n - mean) * (n - mean)).sum::<f64>() / (len - 1.0);
        let dispersion = variance / mean.max(f64::MIN_POSITIVE);
        let is_told = ticks >= SURE_FROM_TICKS || dispersion < CLEARLY_EVEN;
        (mean >= EVEN_FROM_EVENTS && is_told).then_some(dispersion)
    }

    /// Variance of the counts over that of a Poisson load, at least 1. The median of pairs, because steps are few.
    fn burstiness(&self) -> f64 {
        let mut pairs: Vec<f64> = self.pairs.iter().copied().collect();
        pairs.sort_unstable_by(f64::total_cmp);
        pairs.get(pairs.len() / 2).filter(|_| pairs.len() >= 5).map_or(1.0, |m| (m / CHI_SQUARE_MEDIAN).max(1.0))
    }
}

impl Count {
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
    fn rate(self) -> EventsPerSec {
        EventsPerSec(self.events as f64 / self.span.as_secs_f64().max(1e-9))
    }
}

fn sum<'a>(counts: impl Iterator<Item = &'a Count>) -> Count {
    counts
        .fold(Count::default(), |sum, c| Count { span: sum.span + c.span, events: sum.events.saturating_add(c.events) })
}

/// Squared difference of two neighbouring counts in units of its own variance: 1 on average under a Poisson load.
#[expect(clippy::cast_precision_loss, reason = "a variance needs no more than 52 bits")]
fn pair(before: Count, after: Count) -> f64 {
    let (a, b) = (before.events as f64, after.events as f64);
    let (s, t) = (before.span.as_secs_f64(), after.span.as_secs_f64());
    let expected = (a + b) / (s + t);
    let difference = a / s - b / t;
    if expected > 0.0 { difference * difference / (expected / s + expected / t) } else { 0.0 }
}

/// Likelihood ratio of "two rates" against "one rate".
#[expect(clippy::cast_precision_loss, reason = "a statistic needs no more than 52 bits")]
fn beyond_chance(before: Count, after: Count, burstiness: f64) -> bool {
    let (s, t) = (before.span.as_secs_f64(), after.span.as_secs_f64());
    let (a, b) = (before.events as f64, after.events as f64);
    let expected = (a + b) / (s + t).max(1e-9);
    let term = |count: f64, expected: f64| {
        if count > 0.0 && expected > 0.0 { count * ln(count / expected) } else { 0.0 }
    };
    2.0 * (term(a, expected * s) + term(b, expected * t)) / burstiness > BEYOND_CHANCE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::sim::random::Random;

    fn run(tracker: &mut RateTracker, random: &mut Random, rate: f64, ticks: usize) -> Vec<(usize, Step)> {
        (0..ticks).filter_map(|i| Some((i, tracker.observe(Nanos::TICK, random.poisson(rate / 10.0))?))).collect()
    }

    #[test]
    fn noise_of_a_steady_load_is_no_step() {
        let loads = [(3.0, 36_000), (30.0, 36_000), (300.0, 36_000), (5_000.0, 2_000), (55_000.0, 200)];
        for (seed, (rate, ticks)) in loads.into_iter().enumerate() {
            let mut tracker = RateTracker::default();
            let steps = run(&mut tracker, &mut Random::new(seed as u64), rate, ticks);
            assert!(steps.len() <= 1, "{rate}/s, {ticks} ticks: {steps:?}");
        }
    }

    #[test]
    fn a_step_shows_within_two_ticks_in_both_directions() {
        let rates = [300.0, 5_000.0, 55_000.0, 300.0, 20_000.0, 55_000.0, 300.0];
        for seed in 0..20 {
            let mut random = Random::new(seed);
            let mut tracker = RateTracker::default();
            run(&mut tracker, &mut random, rates[0], 80);
            for rate in &rates[1..] {
                let steps = run(&mut tracker, &mut random, *rate, 2);
                assert!(!steps.is_empty(), "no step seen to {rate}, seed {seed}");
                let newest = tracker.newest().unwrap().0;
                assert!((newest / rate - 1.0).abs() < 0.5, "{newest} for {rate}");
                run(&mut tracker, &mut random, *rate, 78);
                assert!((tracker.rolling().unwrap().0 / rate - 1.0).abs() < 0.1);
            }
        }
    }

    #[test]
    fn a_load_that_comes_in_lumps_is_no_row_of_steps() {
        let mut random = Random::new(7);
        let mut tracker = RateTracker::default();
        let lumps = |random: &mut Random| 128 * random.poisson(4.0);
        let steps = (0..6_000).filter_map(|_| tracker.observe(Nanos::TICK, lumps(&mut random))).count();
        assert!(steps < 12, "{steps} steps in ten minutes");
    }

    #[test]
    fn a_halt_is_seen_in_one_tick() {
        let mut tracker = RateTracker::default();
        run(&mut tracker, &mut Random::new(1), 300.0, 50);
        assert!(tracker.observe(Nanos::TICK, 0).is_some());
        assert_eq!(tracker.rolling(), Some(EventsPerSec(0.0)));
    }

    #[test]
    fn even_arrivals_are_told_from_chance() {
        let (mut even, mut chance) = (RateTracker::default(), RateTracker::default());
        let mut random = Random::new(3);
        for _ in 0..30 {
            even.observe(Nanos::TICK, 30);
            chance.observe(Nanos::TICK, random.poisson(30.0));
        }
        assert!(even.dispersion().unwrap() < 0.1 && chance.dispersion().unwrap() > 0.4);
    }

    #[test]
    fn the_tick_that_holds_the_step_is_spared_once_there_are_two_after_it() {
        let mut tracker = RateTracker::default();
        let ticks = [[500; 40].as_slice(), &[62], &[30; 7]].concat();
        let seen: Vec<f64> = ticks
            .into_iter()
            .filter_map(|events| {
                tracker.observe(Nanos::TICK, events);
                Some(tracker.rolling()?.0.round())
            })
            .collect();
        assert_eq!(seen[40..], [620.0, 460.0, 300.0, 300.0, 300.0, 300.0, 300.0, 300.0]);
        assert!(tracker.dispersion().unwrap() < 0.1, "seven ticks after the step");
    }

    #[test]
    fn no_tick_means_no_rate() {
        assert_eq!(RateTracker::default().rolling(), None);
        assert_eq!(RateTracker::default().newest(), None);
    }
}
