//! What syscall accounting adds to one system call, beside libbpf-tools `syscount -L` in the same run, with an empty pair
//! of probes as the floor; and whether the latencies of a sample tell what those of all calls tell.
//!
//! Each round measures all of them one after the other on the same kind of load, in an order that changes, and what is
//! compared is the median over the rounds: a slow phase of the machine then hits all alike.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use super::{Bench, median, with_tracefs};
use crate::leash::{Leash, poll};
use crate::shell::{self, which};
use crate::ui;

/// Calls per measurement: a third of a second without probes.
const CALLS: u64 = 1_000_000;
const ROUNDS: usize = 11;
/// The share of the peer's cost that is aimed at.
const WANTED: f64 = 0.45;
/// A probe that takes longer than this to be attached has failed.
const ATTACH: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    Nothing,
    Floor,
    Ours,
    OursFull,
    Peer,
}

const PROBES: [Probe; 5] = [Probe::Nothing, Probe::Floor, Probe::Ours, Probe::OursFull, Probe::Peer];

/// The figures, nanoseconds a call.
#[derive(Debug, Serialize)]
struct Figures {
    calls: u64,
    rounds: usize,
    base_ns: f64,
    floor_added_ns: f64,
    /// Exact counts, one latency in 16.
    tidegate_added_ns: f64,
    /// Exact counts, every latency.
    tidegate_full_added_ns: f64,
    syscount_added_ns: f64,
    /// Ours over the peer's.
    ratio: f64,
    wanted_ratio: f64,
    /// Median and 99th percentile of the latencies, sampled and full.
    sampled: Quantiles,
    full: Quantiles,
    /// Half the distance between the quartiles of the base: what a difference must exceed to mean something.
    base_spread_ns: f64,
}

/// Of one call.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Quantiles {
    calls: u64,
    untimed: u64,
    p50_ns: u64,
    p99_ns: u64,
}

impl Quantiles {
    /// Octaves between the two, at the worse of the two quantiles.
    fn octaves_from(self, other: Self) -> u32 {
        let apart = |a: u64, b: u64| a.max(1).ilog2().abs_diff(b.max(1).ilog2());
        apart(self.p50_ns, other.p50_ns).max(apart(self.p99_ns, other.p99_ns))
    }
}

#[derive(Deserialize)]
struct Ready {
    pid: u32,
}

#[derive(Deserialize)]
struct Done {
    ns_per_call: f64,
}

pub(crate) fn run(bench: &Bench<'_>) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "bench syscalls loads probes: run it as root");
    let peer =
        which("syscount").context("no `syscount` (Debian package libbpf-tools): `cargo xtask setup` installs it")?;
    let mut build = bench.workspace.cargo();
    let packages = ["build", "--release", "-p", "tidegate", "-p", "tidegate-lab"];
    shell::must("build tidegate and tidegate-lab in release", build.args(packages))?;
    let release = bench.workspace.target.join("release");
    let tools = Tools { tidegate: release.join("tidegate"), lab: release.join("tidegate-lab"), peer };

    let mut taken: [Vec<f64>; 5] = Default::default();
    for round in 0..ROUNDS {
        for i in 0..PROBES.len() {
            let which = (i + round) % PROBES.len();
            taken[which].push(tools.measure(PROBES[which])?);
        }
        ui::line(format_args!("round {} of {ROUNDS}", round + 1));
    }
    let [mut base, floor, ours, whole, peer] = taken;
    let added = |with: &[f64]| median(with.iter().zip(&base).map(|(w, b)| w - b).collect());
    let (floor, ours, whole, peer) = (added(&floor), added(&ours), added(&whole), added(&peer));
    let (sampled, full) = (tools.quantiles(Probe::Ours)?, tools.quantiles(Probe::OursFull)?);
    base.sort_by(f64::total_cmp);
    let figures = Figures {
        calls: CALLS,
        rounds: ROUNDS,
        base_ns: base[base.len() / 2],
        floor_added_ns: floor,
        tidegate_added_ns: ours,
        tidegate_full_added_ns: whole,
        syscount_added_ns: peer,
        ratio: ours / peer,
        wanted_ratio: WANTED,
        sampled,
        full,
        base_spread_ns: (base[base.len() * 3 / 4] - base[base.len() / 4]) / 2.0,
    };
    show(&figures);
    bench.keep(&figures)
}

fn show(figures: &Figures) {
    let Figures { base_ns, floor_added_ns, tidegate_added_ns, tidegate_full_added_ns, .. } = figures;
    let Figures { syscount_added_ns, ratio, base_spread_ns, sampled, full, .. } = figures;
    ui::line(format_args!("getppid, {CALLS} calls, median of {ROUNDS} rounds"));
    ui::line(format_args!("  without probes             {base_ns:7.1} ns  (± {base_spread_ns:.1})"));
    ui::line(format_args!("  empty enter + exit pair   +{floor_added_ns:7.1} ns  (the floor)"));
    ui::line(format_args!("  tidegate syscalls         +{tidegate_added_ns:7.1} ns"));
    ui::line(format_args!("  the same, --latency full  +{tidegate_full_added_ns:7.1} ns"));
    ui::line(format_args!("  syscount -L               +{syscount_added_ns:7.1} ns"));
    ui::line(format_args!("  tidegate / syscount -L     {ratio:7.2}     (wanted: at most {WANTED})"));
    for (what, Quantiles { calls, untimed, p50_ns, p99_ns }) in [("sampled", sampled), ("full", full)] {
        let timed = calls - untimed;
        ui::line(format_args!(
            "  latency, {what:<8} p50 {p50_ns:6} ns  p99 {p99_ns:6} ns  of {timed} of {calls} calls"
        ));
    }
    let apart = sampled.octaves_from(*full);
    ui::line(format_args!("  octaves between the two    {apart:7}     (wanted: at most 1)"));
}

struct Tools {
    tidegate: PathBuf,
    lab: PathBuf,
    peer: PathBuf,
}

impl Tools {
    /// Nanoseconds a call with `probe` attached to the process that makes them.
    fn measure(&self, probe: Probe) -> Result<f64> {
        self.measure_into(probe, Stdio::null())
    }

    /// Likewise, with what the probe lists written to `listing`.
    fn measure_into(&self, probe: Probe, listing: Stdio) -> Result<f64> {
        let mut load = Command::new(&self.lab)
            .args(["syscall-load", "--calls", &CALLS.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the load")?;
        let mut said = BufReader::new(load.stdout.take().context("the load has no output")?);
        let mut line = String::new();
        said.read_line(&mut line).context("hear the load")?;
        let Ready { pid } = serde_json::from_str(&line).with_context(|| format!("the load said {line:?}"))?;
        let attached = self.attach(probe, pid, listing)?;
        load.stdin.take().context("the load has no input")?.write_all(b"\n").context("let the load go")?;
        let mut rest = String::new();
        said.read_to_string(&mut rest).context("hear the load")?;
        drop(attached);
        ensure!(load.wait()?.success(), "the load failed");
        let last = rest.lines().last().unwrap_or_default();
        let done: Done = serde_json::from_str(last).with_context(|| format!("the load said {last:?}"))?;
        Ok(done.ns_per_call)
    }

    /// The latencies of a load as `probe` tells them.
    fn quantiles(&self, probe: Probe) -> Result<Quantiles> {
        let told = tempfile::NamedTempFile::new().context("make a file for the listing")?;
        self.measure_into(probe, told.reopen()?.into())?;
        let text = fs::read_to_string(told.path()).context("read the listing")?;
        let rows: Vec<serde_json::Value> =
            serde_json::from_str(&text).context("`tidegate syscalls` gave no listing")?;
        let row = rows.into_iter().find(|row| row["syscall"] == "getppid").context("no getppid in the listing")?;
        serde_json::from_value(row).context("a row without latencies")
    }

    /// Attaches `probe` to `pid`; it is detached when the leash is dropped.
    fn attach(&self, probe: Probe, pid: u32, listing: Stdio) -> Result<Option<Leash>> {
        let pid = pid.to_string();
        let mut command = match probe {
            Probe::Nothing => return Ok(None),
            Probe::Floor | Probe::Ours | Probe::OursFull => {
                let mut ours = Command::new(&self.tidegate);
                ours.args(["syscalls", "--pid", &pid, "--seconds", "600", "-o", "json"]);
                match probe {
                    Probe::Floor => drop(ours.arg("--floor")),
                    Probe::OursFull => drop(ours.args(["--latency", "full"])),
                    _ => {}
                }
                ours
            }
            Probe::Peer => {
                let mut peer = with_tracefs(&self.peer);
                peer.args(["-L", "-p", &pid]);
                peer
            }
        };
        command.stdin(Stdio::null()).stdout(listing).stderr(Stdio::null());
        let shown = shell::show(&command);
        let leash = Leash::start(&mut command)?;
        // Two links, enter and exit: both are there or nothing is measured.
        let id = leash.id();
        let ready = poll(ATTACH, || Ok(links(id) >= 2 || leash.has_ended()?))?;
        ensure!(ready && !leash.has_ended()?, "`{shown}` attached nothing; run it by hand to see why");
        Ok(Some(leash))
    }
}

/// BPF links that process `id` holds.
fn links(id: u32) -> usize {
    let Ok(dir) = fs::read_dir(Path::new("/proc").join(id.to_string()).join("fd")) else { return 0 };
    let targets = dir.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    targets.filter(|t| matches!(t.to_str(), Some("anon_inode:bpf_link" | "anon_inode:bpf-raw-tracepoint"))).count()
}
