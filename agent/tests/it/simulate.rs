//! The policies against simulated hosts: scenarios with the ranges in which the controller must land, and random plants.
#![expect(clippy::unwrap_used, reason = "a helper that panics fails its test")]

use std::path::PathBuf;

use tidegate::cli::simulate::{Output, SimulateArgs, print};
use tidegate::control::Bounds;
use tidegate::event::{Input, RawBatch};
use tidegate::run::core::{Core, CoreConfig, TickOutcome};
use tidegate::run::simulate::scenario::Scenario;
use tidegate::run::simulate::{self, Contender, Trace, compare};
use tidegate::source::Pulled;
use tidegate::source::sim::lie::Lie;
use tidegate::source::sim::plant::{Arrivals, Phase, Plant};
use tidegate::source::sim::random::Random;
use tidegate::source::sim::{SimSource, Simulated};
use tidegate::units::{BatchSize, Bytes, FlushInterval, Generation, Nanos, PipelineName, Settings, Uid};
use tidegate_client::abi::{
    KnobRange, Knobs, LeaseTerms, Mode, Objective, OverrideRequest, Policy, Registration, SignalsJson,
};
use tidegate_client::rule::L0;

#[test]
fn every_scenario_lands_where_it_must() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    assert!(found.len() >= 5);
    for path in found {
        let report = compare(&Scenario::read(&path).unwrap(), &[Contender::Regime], 1, 1);
        assert!(report.violations.is_empty(), "{}: {:#?}", path.display(), report.violations);
    }
}

#[test]
fn the_demo_is_won_by_the_wanted_margins() {
    let report = simulate::simulate(&Scenario::demo(), 7, 1);
    assert!(report.violations.is_empty(), "{:#?}", report.violations);
    let [fixed, greedy, batcher, regime] = &report.policies[..] else { panic!("four policies") };
    assert_eq!((fixed.policy, regime.policy), (Contender::Fixed, Contender::Regime));
    for (tuned, fixed) in [(regime.by_time, fixed.by_time), (regime.by_event, fixed.by_event)] {
        assert!(tuned.p99_ms.unwrap() <= 0.15 * fixed.p99_ms.unwrap(), "{tuned:?} {fixed:?}");
        assert!(tuned.p999_ms.unwrap() <= 0.08 * fixed.p999_ms.unwrap(), "{tuned:?} {fixed:?}");
        assert!(tuned.mean_ms.unwrap() < fixed.mean_ms.unwrap());
    }
    assert!(regime.by_time.p99_ms.unwrap() < batcher.by_time.p99_ms.unwrap(), "the agent adds something");
    assert!(regime.flushes_per_1000 < 0.75 * greedy.flushes_per_1000, "it flushes less often than greedy");
    assert!(report.policies.iter().all(|p| p.events == fixed.events && p.lost == 0), "the same arrivals for all");
}

#[test]
fn the_command_prints_a_table_and_fails_when_an_expectation_does() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hard.toml");
    let hard = "name = \"hard\"\n[pipeline]\nevent_bytes = 512\nqueue_bytes = 1048576\n\
        batch_bytes = { min = 4096, default = 4096, max = 8192 }\n\
        flush_interval_us = { min = 1000, default = 1000, max = 9000 }\n\
        [sink]\nflush_ms = 10\n[[phase]]\nrate = 100\nseconds = 2\nexpect = { within_ms = 500, p99_ms = 1 }\n";
    std::fs::write(&file, hard).unwrap();
    let mut out = Vec::new();
    let args = SimulateArgs { scenario: Some(file), seed: 1, runs: 2, output: Output::Json };
    let error = print(&args, &mut out).unwrap_err().to_string();
    assert!(error.contains("phase[0].p99_ms"), "{error}");
    let report: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(report["policies"][3]["policy"], "regime");
    assert!(report["policies"][3]["by_time"]["p99_ms"].as_f64().unwrap() > 1.0);
}

#[test]
fn a_steady_load_sees_at_most_one_reversal_a_minute() {
    for (rate, seconds) in [(30, 600), (300, 600), (950, 300), (1_050, 300), (5_000, 120), (45_000, 15), (50_000, 15)] {
        let text = simulate::scenario::DEMO;
        let head = &text[..text.find("[[phase]]").unwrap()];
        let scenario = format!("{head}\n[[phase]]\nrate = {rate}\nseconds = {seconds}\n");
        let Trace { settings, .. } =
            simulate::run(&Scenario::parse("steady", &scenario).unwrap(), Contender::Regime, 3);
        let intervals: Vec<(Nanos, u64)> = settings.iter().map(|(at, s)| (*at, s.interval.0)).collect();
        let turns: Vec<Nanos> = intervals
            .windows(3)
            .filter(|w| (w[1].1 > w[0].1) != (w[2].1 > w[1].1) && w[0].0 > Nanos::from_secs(3))
            .map(|w| w[2].0)
            .collect();
        assert!(turns.windows(2).all(|t| t[1].since(t[0]) >= Nanos::from_secs(60)), "{rate}/s: {intervals:?}");
        assert!(settings.len() <= 6, "{rate}/s: {settings:?}");
    }
}

#[test]
fn a_thousand_random_plants_stay_in_bounds_finite_and_rising() {
    let (mut published, mut decided) = (0, 0);
    for seed in 0..1_000 {
        let counts = random_run(seed);
        published += counts.0;
        decided += counts.1;
    }
    assert!(published > 1_000 && decided > published, "the runs do something: {published} {decided}");
}

/// Runs a random plant and checks every outcome; returns how much was published and decided.
fn random_run(seed: u64) -> (u64, u64) {
    let mut random = Random::new(seed);
    let name = PipelineName::try_from("random".to_owned()).unwrap();
    let registration = random_registration(&mut random);
    let bounds = Bounds::new(&registration.knobs);
    let phases = random_phases(&mut random);
    let end = phases.iter().fold(Nanos::SECOND, |sum, phase| sum + phase.length);
    let batch_max = tidegate_client::units::Bytes(registration.knobs.batch_bytes.max);
    let plant = Plant {
        phases,
        arrivals: if random.unit() < 0.5 { Arrivals::Poisson } else { Arrivals::Even },
        event: Bytes(whole(&mut random, 8.0, 20_000.0)),
        per_event: Nanos(whole(&mut random, 1.0, 20_000.0)),
        queue: Bytes(whole(&mut random, 1e5, 1e8)),
        rule: Box::new(L0::by_settings(batch_max)),
        defaults: bounds.defaults(),
    };
    let lie = (random.unit() < 0.5).then(|| Lie::ALL[usize::try_from(random.bits() % 6).unwrap()]);
    let mut sim = SimSource::new(Nanos::SECOND, end);
    sim.add(Simulated { name: name.clone(), registration, plant, lie, seed });
    for input in random_inputs(&mut random, &name) {
        let at = Nanos::SECOND + Nanos(whole(&mut random, 1.0, 1e10));
        sim.request(at, input);
    }
    let mut core = Core::new(CoreConfig::default(), Nanos::SECOND);
    let (mut published, mut decided, mut generation) = (0, 0, Generation(0));
    let mut batch = RawBatch::new();
    while sim.step(&mut batch) == Pulled::Batch {
        core.feed(&batch, |outcome| {
            check(seed, &bounds, &outcome, &mut generation);
            for publish in outcome.publish {
                sim.apply(&publish.name, publish.generation, publish.settings);
                published += 1;
            }
            decided += outcome.decisions.len() as u64;
        });
        batch.clear();
        sim.drain(&name, |_| {});
    }
    assert_eq!(core.lost().undecodable, 0, "seed {seed}");
    (published, decided)
}

fn check(seed: u64, bounds: &Bounds, outcome: &TickOutcome, generation: &mut Generation) {
    for publish in &outcome.publish {
        assert!(bounds.hold(publish.settings), "seed {seed}: {publish:?} out of {bounds:?}");
        assert!(publish.generation > *generation, "seed {seed}: {publish:?} after {generation:?}");
        *generation = publish.generation;
    }
    for decision in &outcome.decisions {
        let settings =
            Settings { batch: BatchSize(decision.batch_bytes), interval: FlushInterval(decision.flush_interval_us) };
        assert!(bounds.hold(settings), "seed {seed}: {decision:?}");
        assert!(decision.explanation.len() > 10 && decision.explanation.len() < 400, "{}", decision.explanation);
        assert!(!decision.explanation.contains("NaN") && !decision.explanation.contains("inf"), "{decision:?}");
        check_signals(seed, &decision.signals);
    }
}

fn check_signals(seed: u64, signals: &SignalsJson) {
    let numbers = [
        signals.rate,
        signals.newest_rate,
        signals.event_bytes,
        signals.residency_ms,
        signals.flush_bytes,
        signals.flush_ms,
        signals.flushes_per_s,
        signals.syscalls_per_event,
        signals.cpu_us_per_event,
        signals.switches_per_flush,
        signals.p99_ms,
    ];
    assert!(numbers.iter().flatten().all(|n| n.is_finite() && *n >= 0.0), "seed {seed}: {signals:?}");
    assert!(signals.rate.is_none_or(|rate| rate <= 1e9), "seed {seed}: {signals:?}");
}

fn random_registration(random: &mut Random) -> Registration {
    let mut range = |low: f64, high: f64| {
        let mut three = [0; 3].map(|_| whole(random, low, high));
        three.sort_unstable();
        KnobRange { min: three[0], default: three[1], max: three[2] }
    };
    let knobs = Knobs { batch_bytes: range(1.0, 1e7), flush_interval_us: range(1.0, 1e7) };
    Registration {
        knobs,
        objective: Objective {
            p99_ms: (random.unit() < 0.3).then(|| whole(random, 1.0, 1_000.0)),
            ..Objective::default()
        },
        mode: if random.unit() < 0.8 { Mode::On } else { Mode::Observe },
        policy: Policy::ALL[usize::try_from(random.bits() % 4).unwrap_or(0)],
        report: Some("/simulated".into()),
        lease: LeaseTerms::default(),
        watch: None,
    }
}

fn random_phases(random: &mut Random) -> Vec<Phase> {
    let count = 1 + random.bits() % 4;
    (0..count)
        .map(|_| Phase {
            #[expect(clippy::cast_precision_loss, reason = "a rate of a few digits")]
            rate: whole(random, 1.0, 20_000.0) as f64,
            length: Nanos(whole(random, 2e8, 4e9)),
            flush: Nanos(whole(random, 1e3, 3e7)),
        })
        .collect()
}

fn random_inputs(random: &mut Random, name: &PipelineName) -> Vec<Input> {
    let name = name.clone();
    let request = OverrideRequest {
        batch_bytes: (random.unit() < 0.5).then(|| random.bits()),
        flush_interval_us: (random.unit() < 0.5).then(|| random.bits()),
        ttl_s: (random.unit() < 0.5).then_some(random.bits() % 5),
    };
    let some = [
        Input::Override { name: name.clone(), uid: Uid(0), request },
        Input::Free { name },
        Input::Pause,
        Input::Resume,
    ];
    some.into_iter().filter(|_| random.unit() < 0.2).collect()
}

/// A whole number, its logarithm evenly spread.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounds are positive and small")]
fn whole(random: &mut Random, low: f64, high: f64) -> u64 {
    (low * (high / low).powf(random.unit())) as u64
}
