//! Blocks whose figures are known by construction.

use super::*;
use crate::compare::plan::Contender;
use crate::load::LoadReport;
use tidegate_client::Nanos;

/// Two phases of two seconds, 100 and 1,000 records a second.
fn plan() -> Plan {
    let contender = |label: &str, policy| Contender { label: label.into(), policy, constants: Vec::new() };
    Plan {
        title: "test".into(),
        downstream: "tcp:2ms".parse().unwrap(),
        phases: "100x2s,1000x2s".parse().unwrap(),
        warmup: Nanos(0),
        record_bytes: 512,
        busy_cap: None,
        contenders: vec![
            contender("greedy", Policy::Greedy),
            contender("model", Policy::Model),
            contender("again", Policy::Model),
        ],
        blocks: 3,
        side_by_side: 1,
        seed: 1,
    }
}

/// Every record of `settled_ms`, but those of the first second of the second phase, which take three times as long;
/// ten flushes a second, each of 30 ms, and one panic flush a mark.
fn outcome(label: &str, policy: Policy, settled_ms: u64) -> Outcome {
    let slice = |phase: usize, second: usize, records: u64| {
        let ms = if (phase, second) == (1, 0) { 3 * settled_ms } else { settled_ms };
        let counts = vec![(ms * 1_000, records)];
        SliceReport { phase, second, span_ns: 1_000_000_000, records, sum_ns: ms * 1_000_000 * records, counts }
    };
    let slices = vec![slice(0, 0, 100), slice(0, 1, 100), slice(1, 0, 1_000), slice(1, 1, 1_000)];
    let mark = |(i, ms): (u64, u64)| Stats {
        at_ns: ms * 1_000_000,
        cpu_ns: ms * 10_000,
        flushes: ms / 100,
        flush_ns: ms / 100 * 30_000_000,
        by_panic: i,
        ..Stats::default()
    };
    Outcome {
        label: label.into(),
        policy,
        name: label.into(),
        pid: 1,
        load: LoadReport { slices, ..LoadReport::default() },
        missing: 0,
        marks: (0..).zip([0, 200, 1_000, 2_000, 2_200, 3_000, 4_000]).map(mark).collect(),
        last: Stats::default(),
        received: None,
    }
}

fn digested() -> Digest {
    let block = |ms| {
        vec![
            outcome("greedy", Policy::Greedy, ms),
            outcome("model", Policy::Model, 2 * ms),
            outcome("again", Policy::Model, 2 * ms),
        ]
    };
    let quiet = Quiet { run: 3, dropped: 0, foreign: vec![0.0; 3], foreign_max: 0.05, noisy: false, cores: 0.1 };
    digest(&plan(), Blocks { kept: vec![block(10), block(12), block(11)], quiet })
}

#[test]
fn a_row_holds_the_pooled_latencies_and_costs_of_its_part() {
    let digest = digested();
    let settled = digest.row("greedy", "1000/s", Part::Settled, Weighting::Event).unwrap();
    assert_eq!((settled.records, settled.tail_records, settled.panics), (3_000, 30, 3));
    assert!((settled.p99_ms - 12.0).abs() < 0.1 && (settled.mean_ms - 11.0).abs() < 0.01, "{settled:?}");
    assert!((settled.flushes_per_1000 - 10.0).abs() < 1e-6 && (settled.busy - 0.3).abs() < 1e-9, "{settled:?}");
    assert!((settled.cpu_ms_per_1000 - 10.0).abs() < 1e-6, "{settled:?}");
    let first = digest.row("greedy", "1000/s", Part::FirstSecond, Weighting::Event).unwrap();
    assert!((first.p99_ms - 36.0).abs() < 0.1, "{first:?}");
    assert_eq!(first.panics, 3, "one a block after the grace, the one within it is forgiven");
    assert!(digest.row("greedy", "100/s", Part::FirstSecond, Weighting::Event).is_none(), "nothing changed there");
}

#[test]
fn by_time_the_quiet_seconds_weigh_as_much_as_the_busy_ones() {
    let digest = digested();
    let whole = |weighting| digest.row("greedy", ALL, Part::Whole, weighting).unwrap();
    // 10 flushes for 100 records, then for 1,000.
    assert!((whole(Weighting::Event).flushes_per_1000 - 40_000.0 / 2_200.0).abs() < 1e-6);
    assert!((whole(Weighting::Time).flushes_per_1000 - 55.0).abs() < 1e-6);
    assert!((whole(Weighting::Time).mean_ms - 16.5).abs() < 0.01, "{:?}", whole(Weighting::Time));
}

#[test]
fn ratios_are_those_of_the_blocks_and_twins_are_the_resolution() {
    let digest = digested();
    let place = ("1000/s", Part::Settled, Weighting::Event);
    let ratio = digest.ratio(("model", "greedy"), place, Figure::P99).unwrap();
    assert!((ratio.median - 2.0).abs() < 0.01 && ratio.blocks == 3, "{ratio:?}");
    let flushes = digest.ratio(("model", "greedy"), place, Figure::Flushes).unwrap();
    assert!((flushes.median - 1.0).abs() < 1e-9, "{flushes:?}");
    assert!(digest.aa.iter().all(|c| (&*c.policy, &*c.against) == ("again", "model")), "{:?}", digest.aa);
    assert!(digest.aa.iter().all(|c| (c.ratio.median - 1.0).abs() < 1e-9) && !digest.aa.is_empty());
}
