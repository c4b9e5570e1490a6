//! The C header and the Python module beside the Rust client: the same pages byte for byte, and the same verdicts.
//! What they do with a running agent is tested with the agent.

#[path = "sdk/kit.rs"]
mod kit;

use std::fs;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use tidegate_client::abi::{PAGE_BYTES, ReportWord};
use tidegate_client::page::PageWriter;
use tidegate_client::report::Flushed;
use tidegate_client::rule::{Cause, L0, Queue, Rule, Settings, Sink, Verdict, Waiting};
use tidegate_client::{Bytes, Nanos, ReportPage, clock};

use kit::Sdk;

/// Where the programs lie, under the manifest of this crate.
const FOLDER: &str = "tests/sdk";

const ALL: [Sdk; 3] = [Sdk::C, Sdk::CThreads, Sdk::Python];
const OWN: [u64; 2] = [262_144, 250_000];

#[test]
fn settings_of_a_page_are_read_under_their_lease_and_within_bounds() {
    for sdk in ALL {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("page");
        let mut writer = PageWriter::open(&path, &OWN).unwrap();
        let Some(mut probe) = sdk.start(&["settings", path.to_str().unwrap()]) else { continue };
        let own = "262144 250000 0 own";
        assert_eq!(probe.ask(""), own, "{sdk:?}: there never was a lease");
        let now = clock::boottime();
        writer.publish(3, &[8192, 5_000], (now + Nanos::from_millis(60_000)).0).unwrap();
        assert_eq!(probe.ask(""), "8192 5000 3 live", "{sdk:?}");
        writer.publish(4, &[1, u64::MAX], (now + Nanos::from_millis(60_000)).0).unwrap();
        assert_eq!(probe.ask(""), "4096 250000 4 live", "{sdk:?}: beyond the pipeline's own bounds");
        // Past its lease for less than the hold of half a second, as far as a busy machine lets it be seen.
        let lapsed = clock::boottime().0 - 1;
        writer.publish(5, &[16_384, 6_000], lapsed).unwrap();
        let seen = probe.ask("");
        if clock::boottime().0 < lapsed + 500_000_000 {
            assert_eq!(seen, "16384 6000 5 held", "{sdk:?}");
        }
        writer.renew(clock::boottime().0 - 600_000_000);
        assert_eq!(probe.ask(""), own, "{sdk:?}: lease and hold have run out");
        assert_eq!(probe.end(), "");
    }
}

#[test]
fn a_reader_beside_a_writer_in_haste_sees_nothing_torn() {
    for sdk in ALL {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("page");
        let mut writer = PageWriter::open(&path, &OWN).unwrap();
        let Some(mut probe) = sdk.start(&["hammer", path.to_str().unwrap()]) else { continue };
        assert_eq!(probe.hear(), "reading");
        let begin = clock::monotonic();
        let mut generation = 0;
        while clock::monotonic() - begin < Nanos::from_millis(500) {
            generation = generation % 100_000 + 1;
            writer.publish(generation, &[4096 + generation, 1000 + generation], u64::MAX).unwrap();
        }
        assert_eq!(probe.end(), "torn 0", "{sdk:?}");
    }
}

#[test]
fn a_report_is_the_same_file_byte_for_byte_and_goes_with_its_owner() {
    let dir = tempfile::tempdir().unwrap();
    let ours = ReportPage::create(dir.path(), "rust").unwrap();
    ours.add(ReportWord::EventsIn, 7);
    ours.add(ReportWord::BytesIn, 3584);
    ours.set(ReportWord::QueueCapacity, 65_536);
    ours.flushed(&Flushed { cause: Cause::Backlog, events: 3, bytes: Bytes(1536), took: Nanos(10_000) });
    ours.flushed(&Flushed { cause: Cause::Waiting, events: 1, bytes: Bytes(512), took: Nanos(5_999) });
    ours.latency(Nanos(1_025), 4);
    ours.latency(Nanos(20_000_000), 2);
    ours.latency(Nanos(u64::MAX), 1);
    ours.set(ReportWord::Generation, 9);
    ours.set(ReportWord::BatchBytes, 8192);
    ours.set(ReportWord::FlushIntervalUs, 5_000);
    let want = fs::read(ours.path()).unwrap();
    for sdk in ALL {
        let Some(mut probe) = sdk.start(&["report", dir.path().to_str().unwrap(), "ingest"]) else { continue };
        let path = probe.hear();
        assert_eq!(path, dir.path().join("ingest.report").to_str().unwrap());
        let mut got = fs::read(&path).unwrap();
        let at = 16 + 8 * ReportWord::UpdatedNs as usize;
        let updated = u64::from_ne_bytes(got[at..at + 8].try_into().unwrap());
        assert!(updated > 0 && updated <= clock::boottime().0, "{sdk:?}");
        got[at..at + 8].fill(0);
        assert_eq!(got.len(), PAGE_BYTES);
        let differs: Vec<usize> =
            (0..PAGE_BYTES / 8).filter(|w| got[8 * w..8 * w + 8] != want[8 * w..8 * w + 8]).collect();
        assert_eq!(differs, [0; 0], "{sdk:?}: words of the page that differ");
        assert_eq!(probe.end(), "");
        assert!(!fs::exists(&path).unwrap(), "{sdk:?}: the file stays behind");
    }
}

#[derive(Clone, Copy, Debug)]
enum Edge {
    Batch,
    Panic,
}

fn any_case() -> impl Strategy<Value = (Settings, Queue, Sink, Nanos, L0)> {
    let sink = prop_oneof![Just(Sink::Busy), Just(Sink::Freed), Just(Sink::Idle)];
    // Now and then just at a limit.
    let edge = prop_oneof![6 => Just(None), 1 => Just(Some(Edge::Batch)), 1 => Just(Some(Edge::Panic))];
    let queue = (0_u64..1 << 20, 1_u64..1 << 20, 0_u64..1 << 40, 1_u64..5_000, 0_u64..1 << 24, 1_u64..1 << 34);
    let settings = (1_u64..1 << 20, 0_u64..1 << 21);
    let rule = (1_u64..1 << 20, prop_oneof![Just(None), (0.1_f64..4.0).prop_map(Some)]);
    (settings, queue, sink, 0_u64..1 << 31, rule, edge).prop_map(|(settings, queue, sink, after, rule, edge)| {
        let (bytes, capacity, oldest, events, spread, cost) = queue;
        let bytes = match edge {
            None => bytes,
            Some(Edge::Batch) => settings.0.min(rule.0),
            Some(Edge::Panic) => capacity - capacity / 5,
        };
        let arrivals_ns = u128::from(oldest) + u128::from(oldest + spread) * u128::from(events - 1);
        let waiting = Some(Waiting { events, arrivals_ns, flush_cost: Nanos(cost) });
        let oldest = (bytes > 0).then_some(Nanos(oldest));
        let now = Nanos((1 << 40) + (1 << 24) + after);
        (
            Settings { batch: Bytes(settings.0), interval: Nanos::from_micros(settings.1) },
            Queue { bytes: Bytes(bytes), oldest, capacity: Bytes(capacity), waiting },
            sink,
            now,
            L0 { batch_max: Bytes(rule.0), kappa: rule.1 },
        )
    })
}

#[test]
fn all_sdks_come_to_the_same_verdicts() {
    let mut runner = TestRunner::new(Config::default());
    let cases: Vec<_> = (0..3_000).map(|_| any_case().new_tree(&mut runner).unwrap().current()).collect();
    for sdk in [Sdk::C, Sdk::Python] {
        let Some(mut probe) = sdk.start(&["decide"]) else { continue };
        for (settings, queue, sink, now, rule) in &cases {
            let Waiting { events, arrivals_ns, flush_cost } = queue.waiting.unwrap();
            let events = if queue.oldest.is_some() { events } else { 0 };
            let waited = if events == 0 { 0 } else { u128::from(events) * u128::from(now.0) - arrivals_ns };
            let number = [Sink::Busy, Sink::Freed, Sink::Idle].iter().position(|s| s == sink).unwrap();
            probe.say(&format!(
                "{} {} {} {} {} {events} {waited} {} {number} {} {} {:?}",
                settings.batch.0,
                settings.interval.as_micros(),
                queue.bytes.0,
                queue.capacity.0,
                queue.oldest.unwrap_or_default().0,
                flush_cost.0,
                now.0,
                rule.batch_max.0,
                rule.kappa.unwrap_or(0.0),
            ));
        }
        let said = probe.end();
        assert_eq!(said.lines().count(), cases.len(), "{sdk:?}");
        for ((settings, queue, sink, now, rule), said) in cases.iter().zip(said.lines()) {
            let order = [Cause::Age, Cause::Size, Cause::Backlog, Cause::Panic, Cause::Waiting];
            let want = match rule.decide(settings, queue, *sink, *now) {
                Verdict::Flush { cause, take } => {
                    format!("{} {} 0", 1 + order.iter().position(|c| *c == cause).unwrap(), take.0)
                }
                Verdict::Wait { until } => format!("0 0 {}", until.map_or(u64::MAX, |until| until.0)),
            };
            assert_eq!(said, want, "{sdk:?}: {settings:?} {queue:?} {sink:?} {now:?} {rule:?}");
        }
    }
}

#[test]
fn a_batcher_in_python_loses_nothing_and_flushes_for_the_same_causes() {
    let Some(probe) = Sdk::Python.start(&["batcher"]) else { return };
    assert_eq!(probe.end(), "size waiting closed");
}

#[test]
fn the_examples_pass_every_line_on_without_an_agent() {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let c = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("example-c");
    let built = Command::new("gcc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O2", "-pthread"])
        .arg(folder.join("c/example.c"))
        .arg("-o")
        .arg(&c)
        .status();
    let python = Sdk::Python.program().map(|_| {
        let mut command = Command::new("python3");
        command.arg("-B").arg(folder.join("python/example.py"));
        command
    });
    let text = (1..50_000).map(|n| n.to_string() + "\n").collect::<String>();
    for mut example in built.ok().map(|_| Command::new(&c)).into_iter().chain(python) {
        example.env("TIDEGATE_SOCKET", "/nonexistent/tidegate.sock").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = example.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let sent = text.clone();
        let sender = std::thread::spawn(move || input.write_all(sent.as_bytes()));
        let output = child.wait_with_output().unwrap();
        sender.join().unwrap().unwrap();
        assert!(output.status.success() && output.stdout == text.as_bytes(), "{example:?}");
    }
}
