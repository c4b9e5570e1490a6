//! Sink, pipeline and load as real processes: everything that is sent is acknowledged, and arrives once and in order.

#![expect(clippy::unwrap_used, reason = "a helper of a test reports what it could not do by panicking")]

mod kit;

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use kit::Part;

fn load(args: &[&str]) -> (bool, Value, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate-lab"))
        .args(["load", "--json", "-"])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.success(), report, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Two seconds of load through a pipeline of `policy`; `listen` and `sink_listen` say over what.
fn check(policy: &str, listen: &str, sink_listen: &str) {
    let mut sink = Part::start(&["sink", "--listen", sink_listen, "--delay", "5ms", "--verify"]);
    let sink_address = sink.address();
    let mut pipeline = Part::start(&[
        "pipeline",
        "--listen",
        listen,
        "--sink",
        &sink_address,
        "--policy",
        policy,
        "--interval",
        "50ms",
    ]);
    let address = pipeline.address();
    let (ok, report, errors) = load(&["--connect", &address, "--phases", "500x500ms,8000x1s,200x500ms"]);
    assert!(ok, "{errors}");
    assert_eq!((&report["scheduled"], &report["missing"]), (&8350.into(), &0.into()), "{report}");
    let worst = report["by_event"]["max_ms"].as_f64().unwrap();
    assert!(worst >= 5.0, "{worst} ms is less than the sink's own delay");

    let stats = pipeline.stop();
    assert_eq!((&stats["events_in"], &stats["events_out"]), (&8350.into(), &8350.into()), "{stats}");
    let received = sink.stop();
    assert_eq!(received["records"], 8350);
    assert_eq!((&received["sequence_gaps"], &received["sequence_repeats"]), (&0.into(), &0.into()), "{received}");
}

fn unix(dir: &Path, name: &str) -> String {
    format!("unix:{}", dir.join(name).display())
}

#[test]
fn fixed_loses_nothing_over_tcp() {
    check("fixed", "127.0.0.1:0", "127.0.0.1:0");
}

#[test]
fn l0_loses_nothing_over_tcp() {
    check("l0", "127.0.0.1:0", "127.0.0.1:0");
}

#[test]
fn fixed_loses_nothing_over_unix_sockets_and_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    check("fixed", &unix(dir.path(), "in"), &unix(dir.path(), "out"));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn l0_loses_nothing_over_unix_sockets_and_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    check("l0", &unix(dir.path(), "in"), &unix(dir.path(), "out"));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_full_queue_holds_the_sender_up_and_drops_nothing() {
    let mut sink = Part::start(&["sink", "--listen", "127.0.0.1:0", "--delay", "20ms", "--verify"]);
    let sink_address = sink.address();
    let small = ["--policy", "l0", "--queue", "32KiB", "--batch", "8KiB", "--batch-max", "16KiB"];
    let mut args = vec!["pipeline", "--listen", "127.0.0.1:0", "--sink", &sink_address];
    args.extend(small);
    let mut pipeline = Part::start(&args);
    let address = pipeline.address();
    // Twice what the sink can take at 16 KiB each 20 ms.
    let (ok, report, errors) = load(&["--connect", &address, "--phases", "3200x1s"]);
    assert!(ok, "{errors}");
    assert_eq!(report["missing"], 0);
    assert!(report["by_event"]["max_ms"].as_f64().unwrap() > 300.0, "the wait counts from the schedule: {report}");
    let stats = pipeline.stop();
    assert!(stats["by_panic"].as_u64().unwrap() > 0, "{stats}");
    assert_eq!(sink.stop()["sequence_gaps"], 0);
}

#[test]
fn the_flush_cost_changes_under_a_steady_rate_and_grows_with_the_records() {
    let steps = ["--delay-steps", "1ms@0s,40ms@1s", "--per-record", "5ms"];
    let mut args = vec!["sink", "--listen", "127.0.0.1:0"];
    args.extend(steps);
    let mut sink = Part::start(&args);
    let sink_address = sink.address();
    let mut pipeline =
        Part::start(&["pipeline", "--listen", "127.0.0.1:0", "--sink", &sink_address, "--policy", "greedy"]);
    let address = pipeline.address();
    let (ok, report, errors) = load(&["--connect", &address, "--phases", "20x1s,20x1s"]);
    assert!(ok, "{errors}");
    let best = |phase: usize| report["phases"][phase]["p50_ms"].as_f64().unwrap();
    assert!((6.0..40.0).contains(&best(0)) && best(1) >= 45.0, "{report}");
    let flushes = pipeline.stop()["flushes"].as_u64().unwrap();
    let received = sink.stop();
    let planted = received["planted_ns"].as_u64().unwrap();
    let least = 40 * 5_000_000 + flushes * 1_000_000;
    assert!(planted >= least + 19 * 39_000_000 / 2 && planted <= least + flushes * 39_000_000, "{received}");
    assert!(received["first_flush_ns"].as_u64().unwrap() > 0);
}

#[test]
fn traffic_of_any_law_and_size_arrives_whole_and_leaves_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(at("trace"), "0 5\n200ms 10\n450ms,5\n").unwrap();
    let mut sink = Part::start(&["sink", "--listen", "127.0.0.1:0", "--delay", "1ms", "--verify"]);
    let sink_address = sink.address();
    let mut pipeline =
        Part::start(&["pipeline", "--listen", "127.0.0.1:0", "--sink", &sink_address, "--policy", "greedy"]);
    let address = pipeline.address();
    let traffic = format!("poisson@2000x1s,flash@200x1s:peak=4000,trace@{}", at("trace"));
    let (hlog, plot, hdr) = (at("run.hlog"), at("run.svg"), at("run.hdr"));
    let mut args = vec!["--connect", &address, "--traffic", &traffic, "--record-bytes", "lognormal@300:max=64KiB"];
    args.extend(["--warmup", "300ms", "--hlog", &hlog, "--plot", &plot, "--hdr", &hdr, "--seed", "9"]);
    let (ok, report, errors) = load(&args);
    assert!(ok, "{errors}");
    assert_eq!(report["missing"], 0, "{report}");
    let phase = |index: usize| report["phases"][index]["scheduled"].as_u64().unwrap();
    assert!((1_800..2_200).contains(&phase(0)) && phase(1) > 500 && phase(2) == 20, "{report}");
    assert!(report["phases"][1]["traffic"].as_str().unwrap().starts_with("flash@200"), "{report}");
    let mean = report["record_bytes"].as_u64().unwrap();
    assert!((250..350).contains(&mean), "{mean} bytes a record, 300 were asked for");
    assert_eq!(pipeline.stop()["events_out"], report["scheduled"]);
    assert_eq!(sink.stop()["sequence_gaps"], 0);
    let log = std::fs::read_to_string(hlog).unwrap();
    assert_eq!(log.lines().filter(|line| line.starts_with("Tag=phase")).count(), 3, "{log}");
    assert!(std::fs::read_to_string(plot).unwrap().contains("99.9 %"));
    assert!(std::fs::metadata(hdr).unwrap().len() > 100);
}

#[test]
fn a_sink_that_dies_and_comes_back_gets_every_record() {
    let dir = tempfile::tempdir().unwrap();
    let at = unix(dir.path(), "out");
    let sink_args = ["sink", "--listen", &at, "--delay", "5ms"];
    let mut first = Part::start(&sink_args);
    first.address();
    let mut pipeline =
        Part::start(&["pipeline", "--listen", "127.0.0.1:0", "--sink", &at, "--policy", "l0", "--interval", "20ms"]);
    let address = pipeline.address();
    let (ok, report, errors) = std::thread::scope(|scope| {
        let load = scope.spawn(|| load(&["--connect", &address, "--phases", "2000x2s"]));
        // The sink dies once it has taken something: its first flush is under way when the pipeline has connected and
        // the load runs, and it is killed in any case long before the load ends.
        drop(first);
        let mut second = Part::start(&sink_args);
        second.address();
        let result = load.join().unwrap();
        second.stop();
        result
    });
    assert!(ok, "{errors}");
    assert_eq!(report["missing"], 0);
    let stats = pipeline.stop();
    assert_eq!(stats["events_out"], 4000);
    assert!(stats["sink_errors"].as_u64().unwrap() > 0, "{stats}");
}

#[test]
fn a_file_is_a_sink_too() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("out");
    let target = format!("file:{}", file.display());
    let mut pipeline = Part::start(&["pipeline", "--listen", "127.0.0.1:0", "--sink", &target, "--policy", "greedy"]);
    let address = pipeline.address();
    let (ok, report, errors) = load(&["--connect", &address, "--phases", "1000x500ms"]);
    assert!(ok, "{errors}");
    assert_eq!(report["missing"], 0);
    let stats = pipeline.stop();
    let on_disk = std::fs::metadata(&file).unwrap().len();
    assert_eq!(on_disk, stats["compressed_bytes"].as_u64().unwrap() + 16 * stats["flushes"].as_u64().unwrap());
}

#[test]
fn a_comparison_prints_its_table_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("report.json");
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate-lab"))
        .args(["compare", "--policies", "fixed,greedy", "--phases", "300x1s,3000x1s", "--warmup", "200ms"])
        .args([std::ffi::OsStr::new("--dir"), dir.path().as_os_str(), "--json".as_ref(), json.as_os_str()])
        .output()
        .unwrap();
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(table.contains("all, by seconds") && table.contains("greedy"), "{table}");
    let report: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(report["pipelines"][0]["label"], "fixed");
    assert!(report["pipelines"][0]["pid"].as_u64().unwrap() > 0);
    assert_eq!(report["pipelines"][1]["received"]["sequence_gaps"], 0);
    let rows = report["rows"].as_array().unwrap();
    let whole = |policy: &str, weighting: &str| {
        let wanted = [("policy", policy), ("phase", "all"), ("part", "whole"), ("weighting", weighting)];
        let row = rows.iter().find(|r| wanted.iter().all(|(key, value)| r[*key] == *value)).unwrap();
        assert_eq!(row["records"], 3300, "{row}");
        row["p99_ms"].as_f64().unwrap()
    };
    assert!(whole("fixed", "time") > whole("greedy", "time"), "250 ms of waiting show in the tail");
    assert!(whole("greedy", "event") >= 10.0, "no record is acknowledged before the sink's own delay");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "only the report stays");
}

#[test]
fn one_policy_under_two_names_is_the_resolution_of_a_comparison() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("report.json");
    let compare = |policies: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-lab"));
        command.args(["compare", "--policies", policies, "--phases", "500x2s,2000x2s", "--warmup", "200ms"]);
        command.args(["--sink", "tcp:2ms", "--blocks", "2", "--dir"]).arg(dir.path()).arg("--json").arg(&json);
        command.output().unwrap()
    };
    let output = compare("static:64KiB/8ms,again=static:64KiB/8ms");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let quiet = &report["quiet"];
    assert!(quiet["run"].as_u64().unwrap() >= 2 && quiet["foreign"].as_array().unwrap().len() >= 2, "{quiet}");
    let pair = |c: &&Value| c["phase"] == "2000/s" && c["part"] == "settled" && c["weighting"] == "event";
    let aa = report["aa"].as_array().unwrap().iter().find(pair).unwrap();
    assert_eq!((&aa["policy"], &aa["against"]), (&"again".into(), &"static:64KiB/8ms".into()));
    assert!((0.2..5.0).contains(&aa["median"].as_f64().unwrap()), "{aa}");

    let twice = compare("greedy,greedy");
    let error = String::from_utf8_lossy(&twice.stderr).into_owned();
    assert!(!twice.status.success() && error.contains("again=greedy"), "{error}");
}

#[test]
fn tuned_without_an_agent_is_refused_with_a_remedy() {
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate-lab"))
        .args(["compare", "--socket", "/nonexistent/api.sock"])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(error.contains("/nonexistent/api.sock") && error.contains("--policies fixed,greedy,l0"), "{error}");
}

#[test]
fn the_helpers_of_the_kernel_tests_do_exactly_what_they_say() {
    let run = |args: &[&str]| {
        let mut part = Part::start(args);
        let (ready, done) = (part.line(), part.line());
        let mut rest = String::new();
        part.lines.read_to_string(&mut rest).unwrap();
        assert!(part.child.wait().unwrap().success());
        assert_eq!((&ready["pid"], rest.as_str()), (&part.child.id().into(), ""));
        done
    };
    let done = run(&["syscall-load", "--calls", "1001", "--threads", "2", "--go"]);
    assert_eq!((&done["calls"], &done["threads"]), (&1001.into(), &2.into()));
    let mix = run(&["syscall-load", "--mix", "--calls", "10", "--go"]);
    assert_eq!((&mix["reads"], &mix["read_errors"], &mix["read_bytes"]), (&30.into(), &10.into(), &1000.into()));
    assert_eq!((&mix["writes"], &mix["write_errors"], &mix["write_bytes"]), (&20.into(), &10.into(), &1000.into()));

    for kind in ["tcp", "unix"] {
        let done = run(&["socket-load", "--kind", kind, "--pattern", "burst4", "--seconds", "1"]);
        assert_eq!(done["messages"], done["reads"].as_u64().unwrap() * 4, "{done}");
        let mean = done["wait"]["mean_ms"].as_f64().unwrap();
        assert!((13.0..20.0).contains(&mean), "mean wait {mean} ms, planted 14 ms");
    }
}
