//! A replay decides as the live agent did, byte for byte, and a damaged recording tells what it still held.
#![expect(clippy::unwrap_used, reason = "a helper that panics fails its test")]

use std::path::PathBuf;

use agent_common::{COMM_BYTES, RecordKind, SampleKind, StackSample, Wire};
use tidegate::event::RawBatch;
use tidegate::run::core::{Core, CoreConfig};
use tidegate::run::replay::{Replayed, decision_lines, replay, replay_file};
use tidegate::run::simulate::scenario::Scenario;
use tidegate::source::recording::{Host, Reader, Tail, Writer};
use tidegate::source::replay::ReplaySource;
use tidegate::source::sim::lie::Lie;
use tidegate::source::sim::plant::{Arrivals, Phase, Plant, Trouble};
use tidegate::source::sim::{SimSource, Simulated};
use tidegate::source::{EventSource, Pulled};
use tidegate::units::{Bytes, Nanos, PipelineName};
use tidegate_client::rule::L0;

/// A live run of three seconds with a step in it, and its recording.
fn live_and_recorded(lie: Option<Lie>) -> (String, Vec<u8>) {
    let demo = Scenario::demo();
    let name = PipelineName::try_from("recorded".to_owned()).unwrap();
    let phase =
        |rate| Phase { rate, length: Nanos::from_millis(1_500), flush: Nanos::from_millis(10), trouble: Trouble::None };
    let plant = Plant {
        phases: vec![phase(300.0), phase(20_000.0)],
        arrivals: Arrivals::Poisson,
        event: Bytes(512),
        per_event: Nanos(0),
        noise: 0.0,
        queue: Bytes(64 << 20),
        rule: Box::new(L0::by_settings(tidegate_client::units::Bytes(1 << 20))),
        defaults: tidegate::control::Bounds::new(&demo.registration.knobs).defaults(),
    };
    let start = Nanos::SECOND;
    let mut sim = SimSource::new(start, Nanos::from_secs(4));
    sim.add(Simulated { name, registration: demo.registration, plant, lie, seed: 5, from: Nanos(0) });
    let mut core = Core::new(CoreConfig::default(), start);
    let mut writer = Writer::to(Vec::new(), "test", &Host::new("6.1.0-test", start)).unwrap();
    let mut decisions = Vec::new();
    let mut batch = RawBatch::new();
    for tick in 0.. {
        for nth in 0..tick % 4 {
            sample(&mut batch, Nanos(start.0 + tick * Nanos::TICK.0), tick % 3 + nth);
        }
        if sim.step(&mut batch) == Pulled::End {
            break;
        }
        writer.append(&batch).unwrap();
        core.feed(&batch, |outcome| {
            for publish in outcome.publish {
                sim.apply(&publish.name, publish.generation, publish.settings);
            }
            decisions.extend(outcome.decisions);
        });
        batch.clear();
    }
    (decision_lines(&decisions), writer.finish(Nanos::from_secs(4), b"{\"frames\":{}}").unwrap())
}

fn sample(batch: &mut RawBatch, time: Nanos, address: u64) {
    let head = StackSample {
        pid: 42,
        tid: 42,
        comm: [b'x'; COMM_BYTES],
        kind: SampleKind::Cpu as u16,
        weight: 10_309_278,
        kernel_len: 8,
        user_len: 16,
        ..StackSample::ZERO
    };
    let frames: Vec<u8> = [address, 7, 8].iter().flat_map(|a: &u64| a.to_ne_bytes()).collect();
    batch.push(RecordKind::Stack, time, &[head.as_bytes(), &frames]);
}

fn replayed(recording: &[u8]) -> Replayed {
    replay(ReplaySource::new(Reader::from(recording, "test").unwrap())).unwrap()
}

fn stacks(replayed: &Replayed) -> Vec<(Vec<u64>, u64)> {
    let counts = replayed.stacks.counts.iter();
    let mut all: Vec<(Vec<u64>, u64)> =
        counts.map(|(key, tally)| ([&key.kernel[..], &key.user].concat(), tally.samples)).collect();
    all.sort();
    all
}

#[test]
fn a_replay_decides_as_the_live_run_did_byte_for_byte() {
    for lie in std::iter::once(None).chain(Lie::ALL.map(Some)) {
        let (live, recording) = live_and_recorded(lie);
        let (once, twice) = (replayed(&recording), replayed(&recording));
        assert!(live.lines().count() >= 2, "{live}");
        assert_eq!(once.decision_lines(), live, "{lie:?}");
        assert_eq!(twice.decision_lines(), live);
        assert_eq!(stacks(&once), stacks(&twice));
        assert_eq!((once.tail, once.ticks), (Tail::Whole, 30));
        assert_eq!(once.names.as_deref(), Some(&b"{\"frames\":{}}"[..]));
        assert_eq!(once.lost.undecodable, 0);
    }
}

#[test]
fn every_sample_of_a_recording_is_in_its_stacks() {
    let (_, recording) = live_and_recorded(None);
    let replayed = replayed(&recording);
    assert_eq!(replayed.stacks.total(), (0..30).map(|tick| tick % 4).sum::<u64>());
    assert_eq!(replayed.stacks.overflow, 0);
}

#[test]
fn the_source_brings_the_same_bytes_tick_by_tick() {
    let (_, recording) = live_and_recorded(None);
    let mut source = ReplaySource::new(Reader::from(&recording[..], "test").unwrap());
    let mut batch = RawBatch::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async { while source.pull(Nanos(0), &mut batch).await.unwrap() == Pulled::Batch {} });
    assert!(recording.ends_with(batch.bytes()));
}

#[test]
fn a_recorder_that_was_killed_leaves_what_it_had_written() {
    let (live, recording) = live_and_recorded(None);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.events");
    std::fs::write(&path, &recording[..recording.len() * 3 / 4 + 3]).unwrap();
    let cut = replay_file(&path).unwrap();
    assert!(matches!(cut.tail, Tail::Cut(_)), "{:?}", cut.tail);
    assert_eq!(cut.lost.undecodable, 1, "what was cut is counted");
    assert!(live.starts_with(&cut.decision_lines()) && cut.ticks >= 20);
    let missing = replay_file(&folder.path().join("none.events")).unwrap_err().to_string();
    assert!(missing.contains("none.events"), "{missing}");
}

/// The recording lies in the repository: what it decides may change only on purpose.
/// `TIDEGATE_BLESS=1` writes both files anew.
#[test]
fn the_recording_in_the_repository_decides_as_it_always_did() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let (events, lines) = (folder.join("step.events"), folder.join("step.decisions.jsonl"));
    if std::env::var_os("TIDEGATE_BLESS").is_some() {
        let (live, recording) = live_and_recorded(None);
        std::fs::write(&events, recording).unwrap();
        std::fs::write(&lines, live).unwrap();
    }
    let replayed = replay_file(&events).unwrap();
    assert_eq!(replayed.decision_lines(), std::fs::read_to_string(&lines).unwrap());
}
