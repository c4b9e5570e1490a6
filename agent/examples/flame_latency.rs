//! How long a flame graph takes at the socket: a history is filled with known stacks, an agent is started on it, and asked
//! again and again. Prints a table, and with a second argument writes the same numbers as JSON. Asserts nothing.
//!
//! `flame_latency PATH-OF-TIDEGATE [FILE.json]`; `cargo xtask bench flame` builds both and runs it.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use hyper::Method;
use tidegate::aggregate::lost::Lost;
use tidegate::cli::client::ask;
use tidegate::history::{Keeping, Record, Store, When, database_in};
use tidegate::profile::Packed;
use tidegate::profile::model::{Builder, Origin, Owner};
use tidegate::source::clock::{monotonic, wall};
use tidegate::units::{Bytes, Nanos, Pid, ProfileKind};

/// Distinct stacks in all.
const STACKS: u32 = 50_000;
/// Frames of a stack.
const DEPTH: u32 = 24;
/// Functions.
const FUNCTIONS: u64 = 5_000;
/// Windows of an hour.
const WINDOWS: u64 = 360;
/// Windows of the last minute, each with two fifths of all stacks; those before hold what 97 Hz on two CPUs can bring.
const BUSY: u64 = 6;
const STACKS_WHEN_BUSY: u32 = 20_000;
const STACKS_BEFORE: u32 = 2_000;
const REQUESTS: usize = 50;
const LENGTH: Nanos = Nanos::from_secs(10);

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let program = arguments.next().context("want the path of tidegate as first argument")?;
    let directory = tempfile::tempdir().context("make a directory")?;
    let (state, socket) = (directory.path().join("state"), directory.path().join("api.sock"));
    std::fs::create_dir(&state).context("make the state directory")?;
    let bytes = fill(&state)?;
    let mut agent = Agent::start(Path::new(&program), &socket)?;
    say(&format!("history: {WINDOWS} windows, {STACKS} distinct stacks of {DEPTH} frames, {bytes} bytes packed"));
    let mut rows = Vec::new();
    for (what, from) in [("last 60 s", "-60s"), ("last hour", "-1h")] {
        for format in ["svg", "folded"] {
            let path = format!("/v1/profiles/cpu?from={from}&format={format}");
            let mut times = Vec::with_capacity(REQUESTS);
            let mut size = 0;
            for _ in 0..REQUESTS {
                let began = monotonic();
                size = ask(&socket, Method::GET, &path, None)?.body.len();
                times.push(monotonic().since(began));
            }
            times.sort_unstable();
            let at = |share: usize| times[(REQUESTS * share).div_ceil(100) - 1].as_millis_f64();
            let (p50, p99) = (at(50), at(99));
            say(&format!("{what:<10} {format:<7} p50 {p50:7.1} ms  p99 {p99:7.1} ms  {size} bytes"));
            rows.push(serde_json::json!({"span": what, "format": format, "p50_ms": p50, "p99_ms": p99, "bytes": size}));
        }
    }
    say(&format!("agent: {} MiB resident", agent.resident_mib()?));
    if let Some(file) = arguments.next() {
        std::fs::write(&file, serde_json::to_vec_pretty(&rows)?).context("write the numbers")?;
    }
    Ok(())
}

/// Writes the windows of the last hour; returns their bytes.
fn fill(state: &Path) -> anyhow::Result<usize> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").context("read the id of this boot")?;
    let keeping = Keeping { directory: state.to_owned(), most: Bytes(1 << 30), longest: Nanos::MAX };
    let mut store = Store::open(&database_in(state), boot.trim(), &keeping)?;
    let (now, mut bytes) = (monotonic(), 0);
    ensure!(now > Nanos(LENGTH.0 * (WINDOWS + 1)), "this host has been up for less than an hour");
    for nth in 0..WINDOWS {
        let start = now.since(Nanos(LENGTH.0 * (WINDOWS - nth)));
        let stacks = if nth + BUSY >= WINDOWS { STACKS_WHEN_BUSY } else { STACKS_BEFORE };
        let first = u32::try_from(nth)? * stacks * 5 / 12;
        let window = window(start, first, stacks);
        bytes += window.bytes().len();
        store.put(&[Record::Window(window)], When { now, wall: wall() })?;
    }
    Ok(bytes)
}

/// Stacks `first` to `first + stacks` of a tree with [`STACKS`] leaves.
fn window(start: Nanos, first: u32, stacks: u32) -> Packed {
    let mut builder = Builder::default();
    let owner = Owner { pid: Some(Pid(4242)), uid: Some(1000), comm: "app".into(), cgroup: None, container: None };
    let owner = builder.owner(owner);
    for leaf in (first..first + stacks).map(|n| n % STACKS) {
        let frame = |depth: u32| {
            // Two stacks share as many frames as their numbers share leading bits.
            let branch = u64::from(leaf >> (16 - 16 * depth / DEPTH));
            let function = (branch * 31 + u64::from(depth)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
            format!("app::module_{}::function_{}", function % 37, function % FUNCTIONS)
        };
        let path: Vec<u32> = (1..=DEPTH).map(|depth| builder.frame(&frame(depth), Origin::User)).collect();
        builder.add(owner, &path, 1, 10_309_278);
    }
    Packed::of(&builder.finish(ProfileKind::Cpu, start, start + LENGTH, Lost::default()))
}

/// An agent that samples nothing itself.
struct Agent(Child);

impl Agent {
    fn start(program: &Path, socket: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.args(["agent", "--no-cpu", "--socket"]).arg(socket).stdout(Stdio::null()).stderr(Stdio::null());
        let agent = Self(command.spawn().with_context(|| format!("start {}", program.display()))?);
        for _ in 0..200 {
            if ask(socket, Method::GET, "/v1/health", None).is_ok() {
                return Ok(agent);
            }
            let nap = rustix::time::Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
            drop(rustix::thread::nanosleep(&nap));
        }
        anyhow::bail!("the agent does not answer within {:?}", Duration::from_secs(10))
    }

    fn resident_mib(&mut self) -> anyhow::Result<u64> {
        let stat = procfs::process::Process::new(i32::try_from(self.0.id())?)?.stat()?;
        Ok((stat.rss * procfs::page_size()) >> 20)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[expect(clippy::print_stdout, reason = "a table for people is what this is for")]
fn say(line: &str) {
    println!("{line}");
}
