//! The slow trim (L2): what a steady pipeline's tail and cost came to in; small factors on interval and batch size out.
//!
//! Paired perturbation: blocks of a minute at the present factor (A) and 15 % beside it (B), in the orders ABBA and
//! BAAB by lot, so that a drift of the load cancels within each four. A step is taken only when the mean difference of the
//! pairs is six standard errors from zero: a tail of 1 % needs thousands of flushes to move by a tenth, and a trim that
//! believes its spikes would wander. Where neither side is found better it rests for an hour, then twice as long.

use tidegate_client::abi::Goal;

use crate::control::trial::Sample;
use crate::signal::exact::ln;
use crate::units::Nanos;

/// Length of a block.
pub const BLOCK: Nanos = Nanos::from_secs(60);
/// First rest after both sides were found no better, and the longest.
pub const REST: Nanos = Nanos::from_secs(3_600);
/// See [`REST`].
pub const LONGEST_REST: Nanos = Nanos::from_secs(8 * 3_600);
/// The perturbation, and a step.
pub const STEP: f64 = 1.15;
/// Furthest that a factor goes, and its inverse.
pub const FURTHEST: f64 = 2.0;

/// What a block leaves out at its begin: events that waited under the other arm.
const TRANSIENT: Nanos = Nanos::from_secs(2);
/// Ticks that a block needs.
const FEWEST: u32 = 100;
/// Groups of four blocks before anything is believed, and after which nothing is expected any more.
const FEWEST_GROUPS: usize = 4;
const MOST_GROUPS: usize = 12;
/// Standard errors that make a difference.
const BEYOND_NOISE: f64 = 6.0;
/// Weight of the cost per event beside the tail, by what the pipeline leans to.
const COST_WEIGHT: [(Goal, f64); 3] = [(Goal::Latency, 0.1), (Goal::Balanced, 0.5), (Goal::Efficiency, 2.0)];
/// Weight of what exceeds a cap, as a share of the cap.
const PENALTY: f64 = 10.0;

/// Which knob a trim turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knob {
    /// The flush interval.
    Interval,
    /// The batch size.
    Batch,
}

/// Factors on what the policy proposes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Factors {
    /// On the flush interval.
    pub interval: f64,
    /// On the batch size.
    pub batch: f64,
}

impl Default for Factors {
    fn default() -> Self {
        Self { interval: 1.0, batch: 1.0 }
    }
}

impl Factors {
    fn of(&mut self, knob: Knob) -> &mut f64 {
        match knob {
            Knob::Interval => &mut self.interval,
            Knob::Batch => &mut self.batch,
        }
    }
}

/// What the pipeline wants, as far as the trim weighs it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wants {
    /// Which way to lean.
    pub goal: Goal,
    /// Wanted p99, ms.
    pub p99_ms: Option<f64>,
    /// Cap on the busy share.
    pub busy_cap: f64,
}

/// What a tick brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The factors are what they were.
    None,
    /// The other arm begins, to see what it does.
    Probe,
    /// A step was taken.
    Step,
}

/// The trim of one pipeline.
#[derive(Clone, Debug)]
pub struct Trim {
    base: Factors,
    knob: Knob,
    /// What the present B multiplies with: above or below one.
    beside: f64,
    block: Option<Block>,
    /// Order of the four blocks under way.
    order: [Arm; 4],
    sums: [f64; 4],
    differences: Vec<f64>,
    lot: u64,
    /// Sides in a row that were no better.
    fruitless: u32,
    rest: Nanos,
    rests_until: Nanos,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arm {
    A,
    B,
}

#[derive(Clone, Copy, Debug)]
struct Block {
    nth: usize,
    since: Nanos,
    sum: f64,
    ticks: u32,
}

const ABBA: [Arm; 4] = [Arm::A, Arm::B, Arm::B, Arm::A];
const BAAB: [Arm; 4] = [Arm::B, Arm::A, Arm::A, Arm::B];

impl Default for Trim {
    fn default() -> Self {
        Self {
            base: Factors::default(),
            knob: Knob::Interval,
            beside: STEP,
            block: None,
            order: ABBA,
            sums: [0.0; 4],
            differences: Vec::new(),
            lot: 0x9e37_79b9_7f4a_7c15,
            fruitless: 0,
            rest: REST,
            rests_until: Nanos(0),
        }
    }
}

impl Trim {
    /// Factors in force: the base, with the perturbation of the arm under way.
    pub fn factors(&self) -> Factors {
        let mut factors = self.base;
        if self.block.is_some_and(|block| self.order[block.nth] == Arm::B) {
            *factors.of(self.knob) *= self.beside;
        }
        factors
    }

    /// The load is not steady: what was gathered compares nothing. The base stays, it was earned.
    pub fn interrupt(&mut self) {
        self.block = None;
        self.differences.clear();
    }

    /// Everything is as at the start.
    pub fn reset(&mut self) {
        *self = Self { lot: self.lot, ..Self::default() };
    }

    /// Takes in a tick at a steady load, `knob` being the one that limits.
    pub fn observe(&mut self, now: Nanos, sample: Option<Sample>, wants: &Wants, knob: Knob) -> Turn {
        if knob != self.knob {
            self.interrupt();
            (self.knob, self.beside) = (knob, STEP);
        }
        if now < self.rests_until {
            return Turn::None;
        }
        let before = self.factors();
        let mut stepped = false;
        match &mut self.block {
            None => self.begin(now, 0),
            Some(block) => {
                if let Some(sample) = sample.filter(|_| now.since(block.since) >= TRANSIENT) {
                    block.sum += score(&sample, wants);
                    block.ticks += 1;
                }
                if now.since(block.since) >= BLOCK {
                    stepped = self.end_block(now);
                }
            }
        }
        match (stepped, before == self.factors()) {
            (true, _) => Turn::Step,
            (false, false) => Turn::Probe,
            (false, true) => Turn::None,
        }
    }

    fn begin(&mut self, now: Nanos, nth: usize) {
        if nth == 0 {
            self.lot ^= self.lot << 13;
            self.lot ^= self.lot >> 7;
            self.lot ^= self.lot << 17;
            self.order = if self.lot & 1 == 0 { ABBA } else { BAAB };
        }
        self.block = Some(Block { nth, since: now, sum: 0.0, ticks: 0 });
    }

    /// Whether the base took a step.
    fn end_block(&mut self, now: Nanos) -> bool {
        let Some(Block { nth, sum, ticks, .. }) = self.block else { return false };
        if ticks < FEWEST {
            self.interrupt(); // Too little happens here to tell a tail.
            return false;
        }
        self.sums[nth] = sum / f64::from(ticks);
        if nth + 1 < self.order.len() {
            self.begin(now, nth + 1);
            return false;
        }
        let sign = |arm: Arm| if arm == Arm::B { 0.5 } else { -0.5 };
        self.differences.push(self.order.iter().zip(self.sums).map(|(arm, sum)| sign(*arm) * sum).sum());
        let verdict = self.verdict();
        if let Some(better) = verdict {
            let factor = self.base.of(self.knob);
            let wanted = if better { *factor * self.beside } else { *factor };
            *factor = wanted.clamp(1.0 / FURTHEST, FURTHEST);
        }
        let given_up = verdict.is_none() && self.differences.len() >= MOST_GROUPS;
        match verdict {
            Some(true) => (self.fruitless, self.rest) = (0, REST),
            Some(false) => self.other_side(),
            None if given_up => self.other_side(),
            None => {}
        }
        if verdict.is_some() || given_up {
            self.differences.clear();
        }
        if self.fruitless >= 2 {
            self.fruitless = 0;
            self.block = None;
            self.rests_until = now + self.rest;
            self.rest = (self.rest + self.rest).min(LONGEST_REST);
        } else {
            self.begin(now, 0);
        }
        verdict == Some(true)
    }

    /// This side is no better.
    fn other_side(&mut self) {
        self.beside = 1.0 / self.beside;
        self.fruitless += 1;
    }

    /// Whether B is better (`true`), worse, or not to be told apart.
    #[expect(clippy::cast_precision_loss, reason = "a few groups")]
    fn verdict(&self) -> Option<bool> {
        let n = self.differences.len();
        if n < FEWEST_GROUPS {
            return None;
        }
        let mean = self.differences.iter().sum::<f64>() / n as f64;
        let squares: f64 = self.differences.iter().map(|d| (d - mean) * (d - mean)).sum();
        let error = (squares / (n as f64 * (n as f64 - 1.0))).sqrt();
        (mean.abs() > BEYOND_NOISE * error.max(1e-6)).then_some(mean < 0.0)
    }
}

/// What is to become small: tail and cost as logarithms, so that one per cent of either weighs alike everywhere.
fn score(sample: &Sample, wants: &Wants) -> f64 {
    let weight = COST_WEIGHT.iter().find(|(goal, _)| *goal == wants.goal).map_or(0.5, |(_, weight)| *weight);
    let over = |value: f64, cap: f64| PENALTY * (value / cap.max(1e-6) - 1.0).max(0.0);
    let p99_over = wants.p99_ms.map_or(0.0, |wanted| PENALTY * (sample.ln_p99 - ln(wanted)).max(0.0));
    sample.ln_p99
        + weight * sample.cpu_us.filter(|us| *us > 0.0).map_or(0.0, ln)
        + sample.busy.map_or(0.0, |busy| over(busy, wants.busy_cap))
        + p99_over
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::lots::Lots;

    const WANTS: Wants = Wants { goal: Goal::Latency, p99_ms: None, busy_cap: 0.6 };

    /// Hours of virtual time in which the tail follows the factor by this power, with this noise from tick to tick.
    fn run(hours: u64, power: f64, noise: f64, seed: u64) -> (Trim, u32, u32) {
        let (mut trim, mut random) = (Trim::default(), Lots::new(seed));
        let (mut steps, mut probes, mut slow) = (0, 0, 0.0);
        for tick in 0..hours * 36_000 {
            // Noise that lasts for seconds, as that of a shared machine does.
            slow = 0.99 * slow + 0.01 * (random.unit() - 0.5);
            let ln_p99 = 3.0 + power * ln(trim.factors().interval) + noise * (random.unit() - 0.5) + 2.0 * noise * slow;
            let sample = Sample { ln_p99, ..Sample::default() };
            match trim.observe(Nanos((tick + 1) * Nanos::TICK.0), Some(sample), &WANTS, Knob::Interval) {
                Turn::Step => steps += 1,
                Turn::Probe => probes += 1,
                Turn::None => {}
            }
        }
        (trim, steps, probes)
    }

    #[test]
    fn a_tail_that_falls_with_the_interval_is_followed_down_to_the_bound() {
        let (trim, steps, _) = run(12, 0.8, 0.2, 1);
        assert!(steps >= 4, "{steps} steps");
        assert!((trim.base.interval - 1.0 / FURTHEST).abs() < 0.08, "{:?}", trim.base);
    }

    #[test]
    fn a_tail_that_does_not_follow_gives_no_step_in_fifty_hours() {
        let steps: u32 = (0..10).map(|seed| run(5, 0.0, 0.3, seed).1).sum();
        assert!(steps <= 1, "{steps} steps, one an hour is allowed");
    }

    #[test]
    fn a_probe_reverses_at_most_once_a_minute() {
        let (_, _, probes) = run(1, 0.0, 0.3, 3);
        assert!(probes <= 60, "{probes} changes in 60 minutes, half of them back");
    }

    #[test]
    fn an_interruption_ends_the_perturbation_and_keeps_what_was_earned() {
        let (mut trim, ..) = run(6, 0.8, 0.2, 1);
        let base = trim.base;
        trim.interrupt();
        assert_eq!(trim.factors(), base);
    }
}
