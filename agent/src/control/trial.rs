//! Changes on trial: what was seen before and after a change in; its measured effect, and whether it is taken back, out.
//!
//! Latency before and after is held against each other as logarithms of the p99 of single ticks, because a tail doubles
//! rather than adds. Harm needs three things: worse by 30 % beyond what was predicted, beyond the noise of both sides, and
//! at a load that did not change meanwhile. What was taken back is left alone for a minute, then twice as long each time.

use std::collections::VecDeque;

use crate::control::policy::Predicted;
use crate::signal::Signals;
use crate::signal::exact::ln;
use crate::units::{Nanos, Settings};

/// A change is judged by what is seen until then.
pub const JUDGED_AFTER: Nanos = Nanos::from_secs(3);
/// A change that does harm is worse than this factor.
pub const HARM: f64 = 1.3;
/// On trial a change that was not predicted to do so may not come out worse than this factor of the prediction.
pub const FAR_FROM_PREDICTION: f64 = 2.0;
/// First time for which nothing is tried after a roll-back; each one that follows within it doubles it.
pub const QUARANTINE: Nanos = Nanos::from_secs(60);
/// Longest such time.
pub const LONGEST_QUARANTINE: Nanos = Nanos::from_secs(960);

/// What the change did not cause yet: events that arrived before it are still on their way.
const TRANSIENT: Nanos = Nanos::from_millis(500);
/// Ticks that a side needs.
const FEWEST_BEFORE: usize = 10;
const FEWEST_AFTER: usize = 20;
/// Ticks kept of the time before.
const KEPT: usize = 50;
/// Neighbouring ticks tell nearly the same: so many count as one.
const TICKS_ALIKE: f64 = 5.0;
/// Standard errors that make a difference.
const BEYOND_NOISE: f64 = 4.0;

/// What is held against each other.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// Logarithm of the p99 in ms.
    pub ln_p99: f64,
    /// Busy share of the flusher.
    pub busy: Option<f64>,
    /// CPU time per event, microseconds.
    pub cpu_us: Option<f64>,
    /// Flushes a second.
    pub flushes: Option<f64>,
}

impl Sample {
    /// What these signals say; nothing without a p99.
    pub fn of(signals: &Signals) -> Option<Self> {
        let p99 = signals.p99_ms.filter(|ms| *ms > 0.0)?;
        Some(Self {
            ln_p99: ln(p99),
            busy: signals.flushes.busy.map(|share| share.0),
            cpu_us: signals.cost.cpu_us_per_event,
            flushes: signals.flushes.per_s,
        })
    }
}

/// One number before and after.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BeforeAfter {
    /// Before the change.
    pub before: Option<f64>,
    /// After it.
    pub after: Option<f64>,
}

/// The measured effect of a change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effect {
    /// How long after the change, ms.
    pub after_ms: u64,
    /// Geometric mean of the p99 of the ticks, as a logarithm of ms.
    pub ln_p99: BeforeAfter,
    /// Busy share.
    pub busy: BeforeAfter,
    /// CPU time per event, microseconds.
    pub cpu_us: BeforeAfter,
    /// Flushes a second.
    pub flushes: BeforeAfter,
    /// Whether both sides saw the same load.
    pub load: SameLoad,
}

/// Whether both sides of a change saw the same load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameLoad {
    /// Rate and cost of a flush stayed what they were.
    Yes,
    /// One of them stepped: the sides tell what was, and nothing of the change.
    No,
}

/// How strictly a change is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// By what was before, at the same load.
    Usual,
    /// Also by its prediction, whatever the load did.
    Canary,
}

/// A change that has been seen long enough.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finding {
    /// What it did.
    pub effect: Effect,
    /// Settings to go back to, when it did harm.
    pub back_to: Option<Settings>,
}

/// Follows the newest change.
#[derive(Clone, Debug, Default)]
pub struct Trial {
    recent: VecDeque<Sample>,
    test: Option<Test>,
    quarantined: Option<Nanos>,
    quarantine: Option<Nanos>,
}

#[derive(Clone, Debug)]
struct Test {
    since: Nanos,
    from: Settings,
    before: VecDeque<Sample>,
    predicted: Option<Predicted>,
    strictness: Strictness,
    load: SameLoad,
}

impl Trial {
    /// A change was applied: from these settings, with this prediction.
    pub fn begin(
        &mut self,
        now: Nanos,
        from: Settings,
        predicted: Option<Predicted>,
        strictness: Strictness,
        load: SameLoad,
    ) {
        let before = std::mem::take(&mut self.recent);
        self.test = Some(Test { since: now, from, before, predicted, strictness, load });
    }

    /// Nothing of what was before can be compared with what comes.
    pub fn forget(&mut self) {
        (self.recent, self.test) = (VecDeque::new(), None);
    }

    /// Whether a change is being judged.
    pub fn is_running(&self) -> bool {
        self.test.is_some()
    }

    /// The newest tick that tells something of the settings in force.
    pub fn newest(&self) -> Option<Sample> {
        self.recent.back().copied()
    }

    /// Until when nothing is tried.
    pub fn quarantined(&self, now: Nanos) -> Option<Nanos> {
        self.quarantined.filter(|until| now < *until)
    }

    /// A roll-back, by its own finding or by a human's word: nothing is tried for a while.
    pub fn quarantine(&mut self, now: Nanos) {
        let again = self.quarantined.zip(self.quarantine).filter(|(until, length)| now.since(*until) < *length);
        let length = again.map_or(QUARANTINE, |(_, length)| (length + length).min(LONGEST_QUARANTINE));
        (self.quarantined, self.quarantine) = (Some(now + length), Some(length));
        self.forget();
    }

    /// Takes in a tick. `stepped` says that rate or cost of a flush did.
    pub fn observe(&mut self, now: Nanos, sample: Option<Sample>, stepped: bool) -> Option<Finding> {
        if stepped {
            self.recent.clear();
            if let Some(test) = &mut self.test {
                test.load = SameLoad::No;
            }
        }
        let settled = self.test.as_ref().is_none_or(|test| now.since(test.since) >= TRANSIENT);
        if let Some(sample) = sample.filter(|_| settled) {
            self.recent.push_back(sample);
            if self.recent.len() > KEPT {
                self.recent.pop_front();
            }
        }
        let due = self.test.as_ref().is_some_and(|test| now.since(test.since) >= JUDGED_AFTER);
        let test = self.test.take_if(|_| due)?;
        if self.recent.is_empty() {
            return None; // Nothing happened that could tell.
        }
        Some(Finding { effect: self.effect(&test, now), back_to: self.does_harm(&test).then_some(test.from) })
    }

    fn effect(&self, test: &Test, now: Nanos) -> Effect {
        let both = |pick: &dyn Fn(&Sample) -> Option<f64>| BeforeAfter {
            before: mean(test.before.iter().filter_map(pick)),
            after: mean(self.recent.iter().filter_map(pick)),
        };
        Effect {
            after_ms: now.since(test.since).0 / 1_000_000,
            ln_p99: both(&|s| Some(s.ln_p99)),
            busy: both(&|s| s.busy),
            cpu_us: both(&|s| s.cpu_us),
            flushes: both(&|s| s.flushes),
            load: test.load,
        }
    }

    fn does_harm(&self, test: &Test) -> bool {
        if self.recent.len() < FEWEST_AFTER {
            return false;
        }
        let after = Side::of(&self.recent);
        let predicted = test.predicted.map(|p| ln(p.p99_ms.max(1e-3)));
        if test.strictness == Strictness::Canary
            && let Some(predicted) = predicted
            && after.mean - predicted > ln(FAR_FROM_PREDICTION)
        {
            return true;
        }
        if test.load == SameLoad::No || test.before.len() < FEWEST_BEFORE {
            return false;
        }
        let before = Side::of(&test.before);
        let worse = after.mean - before.mean;
        let foreseen = predicted.map_or(0.0, |ln_p99| (ln_p99 - before.mean).max(0.0));
        worse > ln(HARM) + foreseen && worse > BEYOND_NOISE * (before.error + after.error).sqrt()
    }
}

/// One side of a change.
struct Side {
    mean: f64,
    /// Square of the standard error.
    error: f64,
}

impl Side {
    #[expect(clippy::cast_precision_loss, reason = "a few dozen ticks")]
    fn of(samples: &VecDeque<Sample>) -> Self {
        let n = samples.len().max(1) as f64;
        let mean = samples.iter().map(|s| s.ln_p99).sum::<f64>() / n;
        let variance = samples.iter().map(|s| (s.ln_p99 - mean) * (s.ln_p99 - mean)).sum::<f64>() / n;
        Self { mean, error: variance * TICKS_ALIKE / n }
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (count, sum) = values.fold((0_u32, 0.0), |(count, sum), value| (count + 1, sum + value));
    (count > 0).then(|| sum / f64::from(count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::lots::Lots;
    use crate::units::{BatchSize, FlushInterval};

    const FROM: Settings = Settings { batch: BatchSize(65_536), interval: FlushInterval(5_000) };

    struct Bench {
        trial: Trial,
        random: Lots,
        now: Nanos,
    }

    impl Bench {
        fn new(seed: u64) -> Self {
            Self { trial: Trial::default(), random: Lots::new(seed), now: Nanos::SECOND }
        }

        /// A tick at this p99, ten per cent to and fro.
        fn tick(&mut self, p99_ms: f64, stepped: bool) -> Option<Finding> {
            self.now = self.now + Nanos::TICK;
            let sample = Sample { ln_p99: ln(p99_ms * (0.9 + 0.2 * self.random.unit())), ..Sample::default() };
            self.trial.observe(self.now, Some(sample), stepped)
        }

        /// A change that takes the p99 from one to another.
        fn change(&mut self, before: f64, after: f64, predicted: Option<f64>, strictness: Strictness) -> Finding {
            for _ in 0..30 {
                assert_eq!(self.tick(before, false), None);
            }
            let predicted = predicted.map(|p99_ms| Predicted { p99_ms, busy: 0.5 });
            self.trial.begin(self.now, FROM, predicted, strictness, SameLoad::Yes);
            (0..40).find_map(|_| self.tick(after, false)).expect("it is judged within 4 s")
        }
    }

    #[test]
    fn a_change_that_does_harm_is_taken_back_and_its_effect_told() {
        let Finding { effect, back_to } = Bench::new(1).change(20.0, 30.0, None, Strictness::Usual);
        assert_eq!(back_to, Some(FROM));
        let worse = effect.ln_p99.after.unwrap() - effect.ln_p99.before.unwrap();
        assert!((worse - ln(1.5)).abs() < 0.05, "{effect:?}");
        assert_eq!(effect.load, SameLoad::Yes);
    }

    #[test]
    fn what_was_foreseen_is_no_harm() {
        let foreseen = Bench::new(2).change(20.0, 30.0, Some(29.0), Strictness::Usual);
        assert_eq!(foreseen.back_to, None, "saving flushes has a price that was known");
        assert!(Bench::new(2).change(20.0, 60.0, Some(29.0), Strictness::Usual).back_to.is_some());
    }

    #[test]
    fn a_load_that_stepped_meanwhile_judges_nothing() {
        let mut bench = Bench::new(3);
        for _ in 0..30 {
            bench.tick(20.0, false);
        }
        bench.trial.begin(bench.now, FROM, None, Strictness::Usual, SameLoad::Yes);
        bench.tick(90.0, true);
        let finding = (0..40).find_map(|_| bench.tick(90.0, false)).unwrap();
        assert_eq!((finding.back_to, finding.effect.load), (None, SameLoad::No));
    }

    #[test]
    fn a_canary_is_held_against_its_prediction_whatever_the_load_did() {
        let mut bench = Bench::new(4);
        let predicted = Some(Predicted { p99_ms: 20.0, busy: 0.5 });
        bench.trial.begin(bench.now, FROM, predicted, Strictness::Canary, SameLoad::No);
        assert_eq!((0..40).find_map(|_| bench.tick(90.0, false)).unwrap().back_to, Some(FROM));
    }

    #[test]
    fn of_changes_that_change_nothing_none_is_taken_back() {
        let harmful =
            (0..2_000).filter(|seed| Bench::new(*seed).change(20.0, 20.0, None, Strictness::Usual).back_to.is_some());
        assert_eq!(harmful.count(), 0);
    }

    #[test]
    fn each_roll_back_soon_after_another_is_left_alone_twice_as_long() {
        let mut trial = Trial::default();
        let mut now = Nanos::SECOND;
        for length in [60, 120, 240, 480, 960, 960] {
            trial.quarantine(now);
            assert_eq!(trial.quarantined(now), Some(now + Nanos::from_secs(length)));
            now = now + Nanos::from_secs(length + 1);
            assert_eq!(trial.quarantined(now), None);
        }
        trial.quarantine(now + Nanos::from_secs(5_000));
        assert!(trial.quarantined(now + Nanos::from_secs(5_061)).is_none(), "a quiet hour is forgiven");
    }
}
