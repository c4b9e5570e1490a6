//! The agent is killed in the middle of load: the pipeline loses nothing, keeps its settings for as long as lease and
//! hold say, steps back to its own, and is taken up again by the next agent.

#![expect(clippy::unwrap_used, reason = "a helper of a test reports what it could not do by panicking")]

mod kit;

use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Signal, set_parent_process_death_signal};
use serde_json::Value;
use tidegate::config::{Config, Switch};
use tidegate::run::live::{RunOptions, asked_to_stop, run};
use tidegate::serve::check::Preflight;
use tidegate_client::page::{PageReader, Snapshot};
use tidegate_client::{Nanos, clock};

use kit::Part;

const AGENT_SOCKET: &str = "TIDEGATE_TEST_AGENT_SOCKET";
const AGENT_TEST: &str = "an_agent_serves_until_it_is_killed";

const NAME: &str = "ingest";
const TTL_MS: u64 = 1_000;
const HOLD_MS: u64 = 2_000;
/// The pipeline's own batch size and flush interval: what `tidegate-lab pipeline` is without flags.
const OWN: [u64; 2] = [256 << 10, 250_000];
/// A steady rate beyond the death of the agent, then another, which gives its successor something to decide.
const PHASES: &str = "5000x8s,300x4s";
const RECORDS: u64 = 5_000 * 8 + 300 * 4;
/// The agent dies after so many: then its lease has been renewed several times.
const WELL_UNDER_WAY: u64 = 6_000;

/// Nothing that is waited for takes longer on a busy machine.
const DEADLINE: Nanos = Nanos::from_millis(20_000);
/// How late a step of the pipeline may be seen here: its own wait is exact, two busy processors are not.
const LATE: Nanos = Nanos::from_millis(1_000);
const POLL: Duration = Duration::from_millis(10);

/// Is the agent, when it is started as a child of the test below; in a plain test run it has no socket and is done at
/// once.
#[test]
fn an_agent_serves_until_it_is_killed() {
    let Some(socket) = std::env::var_os(AGENT_SOCKET) else { return };
    set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let mut config = Config { cpu: Switch::Off, ..Config::default() };
    config.move_socket(Path::new(&socket));
    let options = RunOptions { record: None, preflight: Preflight::new(Vec::new) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run(&config, options, asked_to_stop())).unwrap();
}

/// An agent as a process of its own.
struct Agent(Child);

impl Agent {
    fn start(socket: &Path) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", AGENT_TEST, "--test-threads=1", "--nocapture"])
            .env(AGENT_SOCKET, socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// As `kill -9` does it; returns when the process is gone.
    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // One that was killed by the test needs no killing.
        self.0.kill().and_then(|()| self.0.wait()).ok();
    }
}

/// What the pipeline said it runs by, and between which instants of the boot-time clock it said so.
#[derive(Debug)]
struct Seen {
    asked: Nanos,
    answered: Nanos,
    generation: u64,
    settings: [u64; 2],
    state: String,
    events_in: u64,
}

impl Seen {
    fn is_own(&self) -> bool {
        (self.generation, self.settings) == (0, OWN)
    }

    fn is_of(&self, page: &Snapshot) -> bool {
        (self.generation, &self.settings[..]) == (page.generation, &page.values[..2])
    }
}

fn ask(pipeline: &mut Part) -> Seen {
    let asked = clock::boottime();
    pipeline.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    let stats = pipeline.line();
    let number = |key: &str| stats[key].as_u64().unwrap();
    Seen {
        asked,
        answered: clock::boottime(),
        generation: number("generation"),
        settings: [number("batch_bytes"), number("flush_interval_us")],
        state: stats["tuning"]["state"].as_str().unwrap().to_owned(),
        events_in: number("events_in"),
    }
}

/// Asks the pipeline until `done` says so.
#[expect(clippy::disallowed_methods, reason = "a real process is waited for, between looks at it")]
fn ask_until(pipeline: &mut Part, what: &str, mut done: impl FnMut(&Seen) -> bool) -> Seen {
    let begin = clock::boottime();
    loop {
        let seen = ask(pipeline);
        if done(&seen) {
            return seen;
        }
        assert!(seen.answered - begin < DEADLINE, "waited in vain until {what}: {seen:?}");
        std::thread::sleep(POLL);
    }
}

fn is_running(part: &mut Part) -> bool {
    part.child.try_wait().unwrap().is_none()
}

/// A pipeline under an agent at `socket`, and what it is between.
struct Stage {
    sink: Part,
    pipeline: Part,
    load: Part,
}

fn stage(dir: &Path, socket: &Path) -> Stage {
    let mut sink = Part::start(&["sink", "--listen", "127.0.0.1:0", "--delay", "5ms", "--verify"]);
    let (sink_address, ttl, hold) = (sink.address(), TTL_MS.to_string(), HOLD_MS.to_string());
    let (socket, report_dir) = (socket.to_str().unwrap(), dir.to_str().unwrap());
    let args = ["pipeline", "--listen", "127.0.0.1:0", "--sink", &sink_address, "--policy", "tuned", "--name", NAME];
    let under = ["--socket", socket, "--report-dir", report_dir, "--lease-ttl-ms", &ttl, "--lease-hold-ms", &hold];
    let mut pipeline = Part::start(&[&args[..], &under, &["--stats-on-stdin"]].concat());
    let address = pipeline.address();
    let load = Part::start(&["load", "--json", "-", "--connect", &address, "--phases", PHASES]);
    Stage { sink, pipeline, load }
}

/// The only settings page below `pages`.
fn page_of(pages: &Path) -> PathBuf {
    let user = std::fs::read_dir(pages).unwrap().map(|e| e.unwrap().path()).find(|p| p.is_dir()).unwrap();
    user.join(NAME)
}

/// After the agent's death: settings stand until lease and hold are over, then the pipeline's own come.
fn check_fail_static(pipeline: &mut Part, left: &Snapshot) -> Seen {
    let hold_end = Nanos(left.expires_boottime_ns) + Nanos::from_millis(HOLD_MS);
    let mut held = 0;
    let own = ask_until(pipeline, "the hold is over", |seen| {
        held += u64::from(seen.state == "held" && seen.is_of(left));
        assert!(seen.is_of(left) || seen.is_own(), "neither the agent's {left:?} nor its own: {seen:?}");
        assert!(seen.is_of(left) || seen.answered >= hold_end, "let go before {hold_end:?}: {seen:?}");
        seen.is_own()
    });
    assert!(held > 0, "the hold was never seen");
    assert!(own.asked <= hold_end + LATE, "still held at {:?}, hold was over at {hold_end:?}", own.asked);
    own
}

#[test]
fn a_pipeline_outlives_its_agent_without_loss_and_is_taken_up_by_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("api.sock");
    let agent = Agent::start(&socket);
    let Stage { sink, mut pipeline, mut load } = stage(dir.path(), &socket);

    let tuned = ask_until(&mut pipeline, "the agent's settings are in use", |seen| {
        let by_the_agent = seen.state == "connected" && seen.generation > 0 && seen.settings != OWN;
        by_the_agent && seen.events_in > WELL_UNDER_WAY
    });
    agent.kill();
    assert!(is_running(&mut load), "killed in the middle of load: {tuned:?}");

    // Nobody writes any more: what the page says is what was left behind, also if it changed after the look above.
    let page = page_of(&dir.path().join("pages"));
    let (inode, left) = (std::fs::metadata(&page).unwrap().ino(), PageReader::open(&page).unwrap().read().unwrap());
    assert!(left.generation >= tuned.generation && left.values[..2] != OWN, "{left:?} after {tuned:?}");
    let own = check_fail_static(&mut pipeline, &left);
    assert!(is_running(&mut load) && own.events_in > tuned.events_in, "records came in all the time: {own:?}");

    let heir = Agent::start(&socket);
    ask_until(&mut pipeline, "the next agent takes it up", |seen| seen.state == "connected");
    // The first answer may fall between the settings of before and the state of after.
    let taken_up = ask(&mut pipeline);
    assert!(
        taken_up.is_of(&left) || taken_up.generation > left.generation,
        "{taken_up:?} begins anew, not at {left:?}"
    );
    let decided = ask_until(&mut pipeline, "the next agent decides", |seen| seen.generation > left.generation);
    assert!(is_running(&mut load) && decided.events_in > own.events_in, "in the middle of load: {decided:?}");
    assert_eq!(std::fs::metadata(&page).unwrap().ino(), inode, "the pipeline's map of the page is still the page");

    let mut report = String::new();
    load.lines.read_to_string(&mut report).unwrap();
    assert!(load.child.wait().unwrap().success(), "{report}");
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!((&report["scheduled"], &report["missing"]), (&RECORDS.into(), &0.into()), "{report}");
    assert!(is_running(&mut pipeline), "one process from begin to end");
    let stats = pipeline.stop();
    assert_eq!((&stats["events_in"], &stats["events_out"]), (&RECORDS.into(), &RECORDS.into()), "{stats}");
    let received = sink.stop();
    assert_eq!(received["records"], RECORDS);
    assert_eq!((&received["sequence_gaps"], &received["sequence_repeats"]), (&0.into(), &0.into()), "{received}");
    heir.kill();
}
