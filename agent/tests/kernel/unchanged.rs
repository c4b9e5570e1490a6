//! A pipeline that was never changed, by what the kernel alone tells of it, against what the laboratory itself counts:
//! sink, pipeline and load are its processes, and the agent that watches the pipeline is a whole one.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tidegate::config::{Config, Switch};
use tidegate::run::live::{RunOptions, run};
use tidegate::serve::check::Preflight;

pub(crate) const CASES: &[(&str, fn())] = &[
    ("a_pipeline_that_was_never_changed_is_known_within_a_tenth_under_a_timer", under_a_timer),
    (
        "a_pipeline_that_was_never_changed_is_known_within_a_tenth_when_its_sink_sets_the_pace",
        when_the_sink_sets_the_pace,
    ),
    ("a_pipeline_that_was_never_changed_is_known_within_a_tenth_when_its_batches_fill", when_batches_fill),
];

/// Bytes of a record on the wire.
const RECORD: u32 = 512;
/// Bytes of the head of a flush: the laboratory counts those of its body.
const FLUSH_HEAD: f64 = 16.0;
/// Planted: 10 ms a flush and 40 µs a record.
const FIXED_MS: f64 = 10.0;
const PER_RECORD_US: f64 = 40.0;
/// A load that swings, as real ones do: a steady one hides what a byte costs. Then it is steady, to be counted.
const PHASES: &str = "2000x300ms,8000x300ms,4000x300ms,6000x400ms,3000x300ms,7000x300ms,2500x400ms,7500x300ms,5000x300ms,\
                      3500x400ms,6500x300ms,2000x300ms,8000x300ms,4500x400ms,5500x300ms,3000x300ms,7000x300ms,2500x400ms,\
                      7500x300ms,4000x300ms,6000x400ms,2000x300ms,8000x300ms,5000x4s";
/// When it has become steady, and how long it is counted then.
const STEADY: (Duration, Duration) = (Duration::from_millis(7_700), Duration::from_millis(2_800));

fn under_a_timer() {
    known("timer", &["--policy", "static:4MiB/20ms"]);
}

fn when_the_sink_sets_the_pace() {
    known("downstream", &["--policy", "greedy", "--batch-max", "4MiB"]);
}

fn when_batches_fill() {
    known("size", &["--policy", "static:80KiB/1s"]);
}

fn known(cause: &str, policy: &[&str]) {
    let Some(lab) = laboratory() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let mut sink = Part::start(&lab, &["sink", "--listen", "127.0.0.1:0", "--delay", "10ms", "--per-record", "40us"]);
    let to = sink.line()["listening"].as_str().expect("it listens").to_owned();
    let fixed = ["pipeline", "--listen", "127.0.0.1:0", "--sink", &to, "--stats-on-stdin"];
    let mut pipeline = Part::start(&lab, &[&fixed, policy].concat());
    let at = pipeline.line()["listening"].as_str().expect("it listens").to_owned();
    let agent = Agent::start(&directory);
    let pid = pipeline.child.id();
    agent.watch(pid);
    let _load = Part::start(&lab, &["load", "--connect", &at, "--phases", PHASES, "--json", "-"]);
    pause(STEADY.0);
    let before = pipeline.stats();
    pause(STEADY.1);
    let shown = agent.signals();
    let truth = Truth::between(&before, &pipeline.stats());
    let kernel = &shown["kernel"];
    crate::say(&format!("{cause}: {truth:?}\n{kernel}"));
    assert_eq!((kernel["alone"].as_bool(), kernel["cause"].as_str()), (Some(true), Some(cause)), "{kernel}");
    let near = |what: &str, truth: f64| {
        let seen = kernel[what].as_f64().unwrap_or_else(|| panic!("{what} is not known: {kernel}"));
        assert!((seen - truth).abs() <= 0.1 * truth, "{what}: {seen} is not within a tenth of {truth}");
    };
    near("rate", truth.rate);
    near("flushes_per_s", truth.flushes_per_s);
    near("flush_events", truth.flush_events);
    near("flush_bytes", truth.flush_bytes);
    near("flush_ms", truth.flush_ms);
    if cause == "size" {
        // All of one size: what of it is fixed nobody can tell, and nothing is invented.
        assert!(kernel["flush_fixed_ms"].is_null() && kernel["flush_per_kib_us"].is_null(), "{kernel}");
    } else {
        near("flush_fixed_ms", FIXED_MS);
        near("flush_per_kib_us", PER_RECORD_US * 1_024.0 / f64::from(RECORD));
    }
    let advice = agent.get("/v1/pipelines/shipper/decisions");
    let advised = advice.as_array().expect("a list").iter().any(|decision| decision["applied"] == "advised");
    assert!(advised, "no advice: {advice}");
    assert!(advice.as_array().expect("a list").iter().all(|d| d["applied"] != "applied"), "it was acted: {advice}");
}

/// What the laboratory counted between two readings; of the duration of a flush what was planted, because its own account
/// begins before the first write, with the batch's laying together, which the kernel cannot tell from other work.
#[derive(Debug)]
struct Truth {
    rate: f64,
    flushes_per_s: f64,
    flush_events: f64,
    flush_bytes: f64,
    flush_ms: f64,
}

impl Truth {
    fn between(before: &Value, after: &Value) -> Self {
        let number = |value: &Value, what: &str| value[what].as_f64().expect("a number");
        let rose = |what: &str| number(after, what) - number(before, what);
        let (seconds, flushes) = (rose("at_ns") / 1e9, rose("flushes"));
        Self {
            rate: rose("events_in") / seconds,
            flushes_per_s: flushes / seconds,
            flush_events: rose("events_out") / flushes,
            flush_bytes: rose("compressed_bytes") / flushes + FLUSH_HEAD,
            flush_ms: FIXED_MS + PER_RECORD_US / 1e3 * rose("events_out") / flushes,
        }
    }
}

/// The laboratory's binary, built beside this one; where there is one that was built for speed, that: in the other, laying
/// a batch together takes as long as a flush.
fn laboratory() -> Option<PathBuf> {
    let this = std::env::current_exe().expect("this binary");
    let beside = this.parent().and_then(Path::parent).expect("it lies in a folder of cargo's");
    let places = [beside.join("../release/tidegate-lab"), beside.join("tidegate-lab")];
    let found = places.into_iter().find(|lab| lab.exists());
    if found.is_none() {
        crate::say("pipelines that were never changed are skipped: no laboratory (`cargo build -p tidegate-lab`)");
    }
    found
}

/// A running part of the laboratory. It ends when it is dropped.
struct Part {
    child: Child,
    input: ChildStdin,
    lines: BufReader<ChildStdout>,
}

impl Part {
    fn start(lab: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(lab);
        let command = command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it was seen to be there");
        let (input, out) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        Self { child, input, lines: BufReader::new(out) }
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("it speaks");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }

    fn stats(&mut self) -> Value {
        self.input.write_all(b"\n").expect("it listens");
        self.line()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A whole agent on a thread of its own. It ends when it is dropped.
struct Agent {
    socket: PathBuf,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Agent {
    fn start(directory: &TempDir) -> Self {
        let mut config = Config { cpu: Switch::Off, ..Config::default() };
        config.move_socket(&directory.path().join("api.sock"));
        let socket = config.socket.clone();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let options = RunOptions { record: None, preflight: Preflight::new(Vec::new) };
            let ended = runtime.block_on(run(&config, options, async { stopped.await.unwrap_or(()) }));
            ended.expect("the agent runs");
        });
        for _ in 0..500 {
            if socket.exists() {
                break;
            }
            pause(Duration::from_millis(20));
        }
        Self { socket, stop: Some(stop), thread: Some(thread) }
    }

    fn watch(&self, pid: u32) {
        let knobs = serde_json::to_string(&tidegate_client::abi::Knobs::default()).expect("plain data");
        let body = format!(r#"{{"knobs": {knobs}, "watch": {{"pid": {pid}, "event_bytes": {RECORD}}}}}"#);
        let answer = self.ask("PUT", "/v1/pipelines/shipper", &body);
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }

    fn signals(&self) -> Value {
        self.get("/v1/pipelines/shipper/signals")
    }

    fn get(&self, path: &str) -> Value {
        let answer = self.ask("GET", path, "");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no body: {answer}"));
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{answer}: {error}"))
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> String {
        let mut stream = UnixStream::connect(&self.socket).expect("it listens");
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers in text");
        answer
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

fn pause(span: Duration) {
    #[expect(clippy::disallowed_methods, reason = "the laboratory needs time to be measured in")]
    std::thread::sleep(span);
}
