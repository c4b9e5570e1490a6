//! Digests whose verdicts are known by construction.

use super::*;
use crate::compare::blocks::Quiet;
use crate::compare::digest::{Comparison, Digest, Ran, Row};
use crate::compare::highest::Highest;
use crate::pipeline::policy::Policy;
use crate::stats::Interval;
use crate::tuning::Machine;

const PHASE: &str = "300/s";

fn row(policy: &str, phase: &str, part: Part, p99_ms: f64, records: u64) -> Row {
    Row {
        policy: policy.into(),
        phase: phase.into(),
        part,
        weighting: Weighting::Event,
        records,
        tail_records: records / 100,
        p50_ms: 1.0,
        p99_ms,
        p99_interval_ms: None,
        p999_ms: p99_ms,
        mean_ms: 1.0,
        flushes_per_1000: 1.0,
        cpu_ms_per_1000: 1.0,
        busy: 0.5,
        panics: 0,
    }
}

fn comparison(against: &str, phase: &str, part: Part, figure: Figure, median: f64, spread: f64) -> Comparison {
    let interval = Some(Interval { low: median - spread, high: median + spread });
    Comparison {
        policy: OURS.into(),
        against: against.into(),
        phase: phase.into(),
        part,
        weighting: Weighting::Event,
        figure,
        ratio: Ratio { median, interval, pooled: median, blocks: 8 },
    }
}

fn done(stage: Stage, rows: Vec<Row>, comparisons: Vec<Comparison>) -> Done {
    let ran = ["greedy", "oracle", OURS].map(|label| Ran {
        label: label.into(),
        policy: Policy::Greedy,
        constants: Vec::new(),
    });
    let quiet = Quiet { run: 8, dropped: 0, foreign: vec![0.0], foreign_max: 0.05, noisy: false, cores: 0.1 };
    let digest = Digest {
        title: "test".into(),
        sink: "tcp".into(),
        phases: String::new(),
        record_bytes: 512,
        busy_cap: None,
        warmup_s: 0.0,
        lanes_at_once: 1,
        seed: 1,
        quiet,
        groups: vec![PHASE.into()],
        ran: ran.into(),
        rows,
        comparisons,
        aa: Vec::new(),
        settling: Vec::new(),
        pipelines: Vec::new(),
    };
    Done { stage, digest, found: None }
}

#[test]
fn the_oracle_is_judged_by_the_lower_bound_and_only_with_enough_of_a_tail() {
    let judged = |median, spread, records| {
        let rows = vec![row(OURS, PHASE, Part::Settled, 9.0, records)];
        let ratio = comparison("oracle", PHASE, Part::Settled, Figure::P99, median, spread);
        against_oracle(&done(Stage::Tcp, rows, vec![ratio]))[0].holds
    };
    assert_eq!(judged(1.2, 0.1, 10_000), Holds::Yes, "1.1 lies within");
    assert_eq!(judged(1.2, 0.01, 10_000), Holds::No);
    assert_eq!(judged(1.0, 0.1, 9_999), Holds::Unknown, "99 records beyond the p99 are too few to say yes");
    assert_eq!(judged(2.0, 0.1, 9_999), Holds::No, "but not too few to say no");
}

#[test]
fn fewer_flushes_than_greedys_have_their_price_and_no_more() {
    let judged = |flushes, p99| {
        let rows = vec![row(OURS, ALL, Part::Whole, 9.0, 10_000)];
        let of = |figure, value| comparison("greedy", ALL, Part::Whole, figure, value, 0.0);
        let ratios = vec![of(Figure::Flushes, flushes), of(Figure::P99, p99)];
        against_greedy(&done(Stage::Tcp, rows, ratios))[0].holds
    };
    // At U = 0.5 the price is (2 + 1) / 2, and 5 %.
    assert_eq!(judged(0.7, 1.57), Holds::Yes);
    assert_eq!(judged(0.7, 1.58), Holds::No);
    assert_eq!(judged(0.71, 1.0), Holds::No);
}

#[test]
fn where_greedy_keeps_the_cap_by_itself_it_is_said_that_nothing_is_to_be_saved() {
    let said = |flushes, greedys_busy| {
        let rows = [(OURS, 0.2), ("greedy", greedys_busy)];
        let rows = rows.map(|(policy, busy)| Row { busy, ..row(policy, ALL, Part::Whole, 9.0, 10_000) });
        let of = |figure, value| comparison("greedy", ALL, Part::Whole, figure, value, 0.0);
        let ratios = vec![of(Figure::Flushes, flushes), of(Figure::P99, 1.0)];
        against_greedy(&done(Stage::Tcp, rows.into(), ratios))[0].remark.contains("nothing asks for fewer flushes")
    };
    assert!(said(0.9, 0.3));
    assert!(!said(0.9, 0.9), "there was something to save");
    assert!(!said(0.5, 0.3), "it is no excuse where none is needed");
}

#[test]
fn greedy_dominates_only_where_both_are_sure() {
    let judged = |p99, cpu| {
        let of = |figure, value| comparison("greedy", PHASE, Part::Settled, figure, value, 0.05);
        let ratios = vec![of(Figure::P99, p99), of(Figure::Cpu, cpu)];
        let all = against_greedy(&done(Stage::Tcp, Vec::new(), ratios));
        all.last().expect("it is judged").holds
    };
    assert_eq!(judged(1.2, 1.2), Holds::No);
    assert_eq!(judged(1.2, 1.04), Holds::Yes, "the interval of the CPU holds 1");
    assert_eq!(judged(1.2, 0.5), Holds::Yes);
}

#[test]
fn a_transition_that_takes_more_than_twice_the_settled_tail_is_missed() {
    let judged = |first_ms| {
        let rows =
            vec![row(OURS, PHASE, Part::FirstSecond, first_ms, 1_000), row(OURS, PHASE, Part::Settled, 10.0, 1_000)];
        transitions(&done(Stage::Tcp, rows, Vec::new()))[1].holds
    };
    assert_eq!((judged(20.0), judged(20.1)), (Holds::Yes, Holds::No));
}

#[test]
fn the_highest_rate_is_held_against_both_others_and_what_was_not_measured_is_not_claimed() {
    let highest =
        |policy: &str, rate| Highest { policy: policy.into(), rate, p99_ms: 40.0, at_end: false, tried: Vec::new() };
    let proof = |highest| Proof {
        quick: false,
        machine: Machine { kernel: String::new(), cpu: String::new(), cpus: 2 },
        verdicts: Vec::new(),
        no_help: Vec::new(),
        studies: Vec::new(),
        highest,
    };
    let holds = |all: Vec<Verdict>| all.into_iter().map(|v| v.holds).collect::<Vec<_>>();
    let three = vec![highest("default", 10_000), highest(OURS, 13_000), highest("oracle", 14_000)];
    assert_eq!(holds(all(&proof(three))), [Holds::Yes, Holds::No]);
    assert_eq!(holds(all(&proof(vec![highest(OURS, 13_000)]))), [Holds::Unknown, Holds::Unknown]);
}

#[test]
fn where_the_best_constant_does_as_well_it_is_said() {
    let ratio = |median| comparison("best", PHASE, Part::Settled, Figure::P99, median, 0.05);
    let said = |median| {
        let mut proof = Proof {
            quick: false,
            machine: Machine { kernel: String::new(), cpu: String::new(), cpus: 2 },
            verdicts: Vec::new(),
            no_help: Vec::new(),
            studies: Vec::new(),
            highest: Vec::new(),
        };
        proof.studies.push(done(Stage::Tcp, Vec::new(), vec![ratio(median)]));
        no_help(&proof)
    };
    assert!(said(1.0)[0].contains("the best single constant is not told apart from it"));
    assert!(said(1.1)[0].contains("the best single constant does better"));
    assert!(said(0.8).is_empty());
}
