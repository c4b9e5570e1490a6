//! Random plants: seeds in, what went wrong with the controller out. Bounds, loads, sinks, lies and requests are all drawn
//! by lot; nothing that comes of them may leave the pipeline's bounds, fall back a generation, or swing for ever.

use serde::Serialize;
use tidegate_client::abi::{
    Caps, DecisionJson, Goal, KnobRange, Knobs, Mode, Objective, OverrideRequest, Policy, Registration, SignalsJson,
};
use tidegate_client::rule::L0;

use crate::control::Bounds;
use crate::event::{Input, RawBatch};
use crate::run::core::{Core, CoreConfig, TickOutcome};
use crate::source::Pulled;
use crate::source::sim::lie::Lie;
use crate::source::sim::plant::{Arrivals, Phase, Plant, Running, Trouble};
use crate::source::sim::random::Random;
use crate::source::sim::{SimSource, Simulated};
use crate::units::{BatchSize, Bytes, FlushInterval, Generation, Nanos, PipelineName, Settings, Uid};

const START: Nanos = Nanos::SECOND;
/// Two steps upwards at the step limit: a swing beyond is more than a correction.
const SWING: f64 = 1.25 * 1.25;
/// Swings to and fro within one phase that make a cycle.
const CYCLE: u32 = 3;
/// What a phase is given to settle in.
const SETTLED_AFTER: Nanos = Nanos::SECOND;

/// What came of random runs.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tally {
    /// Runs.
    pub runs: u64,
    /// Settings published.
    pub published: u64,
    /// Decisions worth keeping.
    pub decisions: u64,
    /// Virtual time.
    pub ticks: u64,
    /// What went wrong, with its seed; the first few.
    pub violations: Vec<String>,
}

/// Violations that are kept in words.
const KEPT: usize = 20;

impl Tally {
    /// Adds another.
    pub fn merge(&mut self, other: Self) {
        let Self { runs, published, decisions, ticks, violations } = other;
        self.runs += runs;
        self.published += published;
        self.decisions += decisions;
        self.ticks += ticks;
        self.violations.extend(violations);
        self.violations.truncate(KEPT);
    }

    fn wrong(&mut self, seed: u64, what: &str) {
        if self.violations.len() < KEPT {
            self.violations.push(format!("seed {seed}: {what}"));
        }
    }
}

/// Runs the random plant of this seed.
pub fn run(seed: u64) -> Tally {
    let mut random = Random::new(seed);
    let name = PipelineName::try_from("random".to_owned()).expect("a good name");
    let registration = registration(&mut random);
    let bounds = Bounds::new(&registration.knobs);
    let phases = phases(&mut random);
    let end = Running::end(&phases, START);
    let batch_max = tidegate_client::units::Bytes(registration.knobs.batch_bytes.max);
    let plant = Plant {
        phases: phases.clone(),
        arrivals: if random.unit() < 0.5 { Arrivals::Poisson } else { Arrivals::Even },
        event: Bytes(whole(&mut random, 8.0, 20_000.0)),
        per_event: Nanos(whole(&mut random, 1.0, 20_000.0)),
        noise: if random.unit() < 0.5 { 0.0 } else { random.unit() },
        queue: Bytes(whole(&mut random, 1e5, 1e8)),
        rule: Box::new(L0::by_settings(batch_max)),
        defaults: bounds.defaults(),
    };
    let lie: Option<Lie> = (random.unit() < 0.3).then(|| lie(&mut random));
    let mut sim = SimSource::new(START, end);
    sim.add(Simulated { name: name.clone(), registration, plant, lie, seed, from: START });
    for input in inputs(&mut random, &name) {
        let at = START + Nanos(whole(&mut random, 1.0, 1e10));
        sim.request(at, input);
    }
    if random.unit() < 0.2 {
        sim.request(START, Input::CpuBudget { cores: random.between(0.01, 2.0) });
    }
    let mut core = Core::new(CoreConfig::default(), START);
    let mut watch = Watch {
        seed,
        bounds,
        generation: Generation(0),
        tally: Tally::default(),
        applied: Vec::new(),
        honest: lie.is_none(),
    };
    let mut batch = RawBatch::new();
    while sim.step(&mut batch) == Pulled::Batch {
        core.feed(&batch, |outcome| {
            watch.check(&outcome);
            for publish in outcome.publish {
                sim.apply(&publish.name, publish.generation, publish.settings);
            }
        });
        batch.clear();
        sim.drain(&name, |_| {});
    }
    if core.lost().undecodable > 0 {
        watch.tally.wrong(seed, "records of the simulation could not be decoded");
    }
    watch.end(&phases)
}

/// Looks at every outcome of one run.
struct Watch {
    seed: u64,
    bounds: Bounds,
    generation: Generation,
    tally: Tally,
    applied: Vec<(Nanos, Settings)>,
    honest: bool,
}

impl Watch {
    fn check(&mut self, outcome: &TickOutcome) {
        self.tally.ticks += 1;
        for publish in &outcome.publish {
            self.tally.published += 1;
            if !self.bounds.hold(publish.settings) {
                self.tally.wrong(self.seed, &format!("{publish:?} out of {:?}", self.bounds));
            }
            if publish.generation <= self.generation {
                self.tally.wrong(self.seed, &format!("{publish:?} after {:?}", self.generation));
            }
            self.generation = publish.generation;
            self.applied.push((outcome.now, publish.settings));
        }
        for decision in &outcome.decisions {
            self.tally.decisions += 1;
            if let Some(what) = self.faulty(decision) {
                self.tally.wrong(self.seed, &what);
            }
        }
    }

    fn faulty(&self, decision: &DecisionJson) -> Option<String> {
        let settings =
            Settings { batch: BatchSize(decision.batch_bytes), interval: FlushInterval(decision.flush_interval_us) };
        let words = &decision.explanation;
        if !self.bounds.hold(settings) {
            return Some(format!("decision out of bounds: {decision:?}"));
        }
        if !(10..400).contains(&words.len()) || words.contains("NaN") || words.contains("inf") {
            return Some(format!("explanation {words:?}"));
        }
        finite(&decision.signals).err()
    }

    /// Looks for swings that do not end while the load stays.
    fn end(mut self, phases: &[Phase]) -> Tally {
        let mut begin = START;
        for phase in phases {
            let end = begin + phase.length;
            let settled = self.applied.iter().filter(|(at, _)| *at >= begin + SETTLED_AFTER && *at < end);
            let intervals: Vec<f64> = settled.map(|(_, s)| Nanos::from(s.interval).as_millis_f64()).collect();
            let swings = swings(&intervals);
            // Who lies about the load is followed where he leads: only the bounds hold then.
            if self.honest && phase.trouble == Trouble::None && swings >= CYCLE {
                let what = format!("{swings} swings at {:.0} events/s: {intervals:?} ms", phase.rate);
                self.tally.wrong(self.seed, &what);
            }
            begin = end;
        }
        self.tally.runs = 1;
        self.tally
    }
}

/// Turns to and fro by more than two steps each.
fn swings(intervals: &[f64]) -> u32 {
    let (mut count, mut anchor, mut up) = (0, None::<f64>, None::<bool>);
    for &interval in intervals {
        let Some(from) = anchor else {
            anchor = Some(interval);
            continue;
        };
        if interval > SWING * from || from > SWING * interval {
            let now_up = interval > from;
            count += u32::from(up.is_some_and(|before| before != now_up));
            (anchor, up) = (Some(interval), Some(now_up));
        }
    }
    count
}

fn finite(signals: &SignalsJson) -> Result<(), String> {
    let SignalsJson { rate, newest_rate, event_bytes, residency_ms, flush_bytes, flush_ms, flushes_per_s, .. } =
        signals;
    let SignalsJson { flush_gap_ms, busy_share, flush_errors_per_s, flush_fixed_ms, flush_per_kib_us, .. } = signals;
    let SignalsJson { stalled_share, syscalls_per_event, cpu_us_per_event, switches_per_flush, p99_ms, .. } = signals;
    let numbers = [
        rate,
        newest_rate,
        event_bytes,
        residency_ms,
        flush_bytes,
        flush_ms,
        flushes_per_s,
        flush_gap_ms,
        busy_share,
        flush_errors_per_s,
        flush_fixed_ms,
        flush_per_kib_us,
        stalled_share,
        syscalls_per_event,
        cpu_us_per_event,
        switches_per_flush,
        p99_ms,
    ];
    let good = numbers.into_iter().flatten().all(|n| n.is_finite() && *n >= 0.0)
        && rate.is_none_or(|rate| rate <= 1e9)
        && busy_share.is_none_or(|share| share <= 1.0);
    if good { Ok(()) } else { Err(format!("signals {signals:?}")) }
}

fn registration(random: &mut Random) -> Registration {
    let mut range = |low: f64, high: f64| {
        let mut three = [0; 3].map(|_| whole(random, low, high));
        three.sort_unstable();
        KnobRange { min: three[0], default: three[1], max: three[2] }
    };
    let knobs = Knobs { batch_bytes: range(1.0, 1e7), flush_interval_us: range(1.0, 1e7) };
    let mut some = |low: f64, high: f64| (random.unit() < 0.3).then(|| random.between(low, high));
    let caps = Caps {
        flusher_busy: some(0.05, 0.95),
        cpu_cores: some(0.01, 2.0),
        flushes_per_s: some(1.0, 1_000.0),
        queue_bytes: None,
    };
    let goal = [Goal::Latency, Goal::Balanced, Goal::Efficiency][pick(random, 3)];
    Registration {
        objective: Objective { p99_ms: (random.unit() < 0.3).then(|| whole(random, 1.0, 1_000.0)), goal, caps },
        mode: [Mode::On, Mode::On, Mode::On, Mode::Canary, Mode::Observe, Mode::Manual][pick(random, 6)],
        policy: [Policy::Model, Policy::Model, Policy::Regime, Policy::Greedy, Policy::Static][pick(random, 5)],
        report: Some("/simulated".into()),
        ..Registration::new(knobs)
    }
}

fn phases(random: &mut Random) -> Vec<Phase> {
    (0..=pick(random, 4))
        .map(|_| Phase {
            #[expect(clippy::cast_precision_loss, reason = "a rate of a few digits")]
            rate: whole(random, 1.0, 20_000.0) as f64,
            length: Nanos(whole(random, 2e8, 4e9)),
            flush: Nanos(whole(random, 1e3, 3e7)),
            trouble: match random.unit() {
                u if u < 0.05 => Trouble::Failing,
                u if u < 0.1 => Trouble::Silent,
                u if u < 0.2 => Trouble::Lying(lie(random)),
                _ => Trouble::None,
            },
        })
        .collect()
}

fn lie(random: &mut Random) -> Lie {
    Lie::ALL[pick(random, Lie::ALL.len())]
}

fn inputs(random: &mut Random, name: &PipelineName) -> Vec<Input> {
    let (name, uid) = (name.clone(), Uid(0));
    let request = OverrideRequest {
        batch_bytes: (random.unit() < 0.5).then(|| random.bits()),
        flush_interval_us: (random.unit() < 0.5).then(|| random.bits()),
        ttl_s: (random.unit() < 0.5).then_some(random.bits() % 5),
    };
    let mode = [Mode::Observe, Mode::Canary, Mode::On, Mode::Manual][pick(random, 4)];
    let some = [
        Input::Override { name: name.clone(), uid, request },
        Input::Free { name: name.clone() },
        Input::RollBack { name: name.clone(), uid },
        Input::SetMode { name, uid, mode },
        Input::Pause,
        Input::Resume,
    ];
    some.into_iter().filter(|_| random.unit() < 0.2).collect()
}

fn pick(random: &mut Random, of: usize) -> usize {
    usize::try_from(random.bits() % of.max(1) as u64).unwrap_or(0)
}

/// A whole number, its logarithm evenly spread.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounds are positive and small")]
fn whole(random: &mut Random, low: f64, high: f64) -> u64 {
    (low * (high / low).powf(random.unit())) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swings_are_told_from_a_march_and_from_small_steps() {
        assert_eq!(swings(&[1.0, 1.25, 1.6, 2.0, 2.5, 3.1]), 0);
        assert_eq!(swings(&[1.0, 1.25, 1.0, 1.25, 1.0, 1.25]), 0);
        assert_eq!(swings(&[1.0, 2.0, 1.0, 2.0, 1.0]), 3);
    }
}
