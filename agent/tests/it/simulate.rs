//! The policies against simulated hosts: scenarios with the ranges in which the controller must land, and random plants.
#![expect(clippy::unwrap_used, reason = "a helper that panics fails its test")]

use std::path::PathBuf;

use tidegate::cli::simulate::{Output, SimulateArgs, print};
use tidegate::run::simulate::scenario::Scenario;
use tidegate::run::simulate::{self, Contender, Trace, compare, random};
use tidegate::units::Nanos;

#[test]
fn every_scenario_lands_where_it_must() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    assert!(found.len() >= 20);
    let mut wrong = Vec::new();
    for path in found {
        let scenario = Scenario::read(&path).unwrap();
        let contender = Contender::expected_of(&scenario).unwrap();
        let report = compare(&scenario, &[contender], 1, 1);
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        wrong.extend(report.violations.into_iter().map(|what| format!("{file}: {what}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_demo_is_won_by_the_wanted_margins() {
    let report = simulate::simulate(&Scenario::demo(), 7, 1);
    assert!(report.violations.is_empty(), "{:#?}", report.violations);
    let of = |contender| report.policies.iter().find(|p| p.policy == contender).unwrap();
    let (fixed, greedy, regime) = (of(Contender::Fixed), of(Contender::Greedy), of(Contender::Regime));
    let model = of(Contender::Model);
    for (tuned, fixed) in [(model.by_time, fixed.by_time), (model.by_event, fixed.by_event)] {
        assert!(tuned.p99_ms.unwrap() <= 0.15 * fixed.p99_ms.unwrap(), "{tuned:?} {fixed:?}");
        assert!(tuned.p999_ms.unwrap() <= 0.08 * fixed.p999_ms.unwrap(), "{tuned:?} {fixed:?}");
        assert!(tuned.mean_ms.unwrap() < fixed.mean_ms.unwrap());
    }
    assert!(model.by_time.p99_ms.unwrap() < regime.by_time.p99_ms.unwrap(), "{model:?} {regime:?}");
    assert!(model.flushes_per_1000 < 0.7 * greedy.flushes_per_1000, "{model:?} {greedy:?}");
    let price = f64::midpoint(1.0 / 0.6, 1.0) * 1.05;
    assert!(model.by_time.p99_ms.unwrap() <= price * greedy.by_time.p99_ms.unwrap(), "{model:?} {greedy:?}");
    let mut drained = report.policies.iter().filter(|p| p.policy != Contender::Default);
    assert!(drained.all(|p| p.events == fixed.events && p.lost == 0), "the same arrivals for all");
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
    let args = SimulateArgs { scenario: Some(file), seed: 1, runs: 2, random: None, output: Output::Json };
    let error = print(&args, &mut out).unwrap_err().to_string();
    assert!(error.contains("phase[0].p99_ms"), "{error}");
    let report: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(report["policies"][5]["policy"], "model");
    assert!(report["policies"][5]["by_time"]["p99_ms"].as_f64().unwrap() > 1.0);
}

/// A steady load for a while; when the settings changed and to what interval, without the first three seconds.
fn steady(contender: Contender, rate: u32, seconds: u32, seed: u64) -> Vec<(Nanos, u64)> {
    let text = simulate::scenario::DEMO;
    let head = &text[..text.find("[[phase]]").unwrap()];
    let scenario = format!("{head}\n[[phase]]\nrate = {rate}\nseconds = {seconds}\n");
    let Trace { settings, .. } = simulate::run(&Scenario::parse("steady", &scenario).unwrap(), contender, seed);
    let end = Nanos::from_secs(2 + u64::from(seconds));
    let late = settings.iter().filter(|(at, _)| *at > Nanos::from_secs(5) && *at < end);
    late.map(|(at, s)| (*at, s.interval.0)).collect()
}

#[test]
fn a_steady_load_sees_at_most_one_reversal_a_minute() {
    for contender in [Contender::Regime, Contender::Model] {
        let loads = [(30, 600), (300, 600), (950, 300), (1_050, 300), (5_000, 120), (45_000, 15), (50_000, 15)];
        for (rate, seconds) in loads {
            let changes = steady(contender, rate, seconds, 3);
            let turns: Vec<Nanos> =
                changes.windows(3).filter(|w| (w[1].1 > w[0].1) != (w[2].1 > w[1].1)).map(|w| w[2].0).collect();
            assert!(
                turns.windows(2).all(|t| t[1].since(t[0]) >= Nanos::from_secs(60)),
                "{contender:?} at {rate}/s: {changes:?}"
            );
        }
    }
}

#[test]
fn an_hour_against_itself_gives_at_most_one_false_action() {
    // Ten pipelines, six minutes each, nothing changes: beside the slow trim, which says that it tries, nobody should act.
    let mut false_actions = 0;
    for seed in 0..10 {
        let text = simulate::scenario::DEMO;
        let head = &text[..text.find("[[phase]]").unwrap()];
        let scenario = format!("{head}\n[[phase]]\nrate = 400\nseconds = 362\n");
        let trace = simulate::run(&Scenario::parse("itself", &scenario).unwrap(), Contender::Model, seed);
        let window = Nanos::from_secs(4)..Nanos::from_secs(364);
        let acted = trace.decisions.iter().filter(|d| {
            let changed = d.from_flush_interval_us != d.flush_interval_us || d.from_batch_bytes != d.batch_bytes;
            changed && d.effect.is_none() && d.reason != "probe" && window.contains(&Nanos(d.time_ns))
        });
        false_actions += acted.clone().count();
        for d in acted {
            println!("seed {seed}: {} s {} {}", d.time_ns / 1_000_000_000, d.reason, d.explanation);
        }
    }
    assert!(false_actions <= 1, "{false_actions} false actions in an hour");
}

#[test]
fn a_thousand_random_plants_stay_in_bounds_finite_and_rising_and_do_not_swing() {
    let mut tally = random::Tally::default();
    for seed in 0..1_000 {
        tally.merge(random::run(seed));
    }
    assert!(tally.violations.is_empty(), "{:#?}", tally.violations);
    assert!(tally.published > 1_000 && tally.decisions > tally.published, "the runs do something: {tally:?}");
}
