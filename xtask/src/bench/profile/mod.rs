//! What profiling the whole host costs, beside peers in the same run: the tool's own CPU time, memory, how much the load
//! slows down, and how many stacks come out whole.
//!
//! Each round runs every tool for a while on the same running load, with a span without any tool before and after; the
//! slow-down is that against the mean of its two neighbours, and what is told is the median over the rounds. Start-up is
//! apart: a tool is given time to settle before it is measured.

mod load;
mod meter;
pub(super) mod switches;
mod tool;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use self::load::{Done, Load};
use self::meter::BpfStatistics;
use self::tool::{Tool, Tools};
use super::{Bench, median};
use crate::shell;
use crate::ui;

/// Start-up of a tool: symbols, tables, buffers.
const SETTLE: Duration = Duration::from_secs(8);
const MEASURE: Duration = Duration::from_secs(12);
const WITHOUT: Duration = Duration::from_secs(6);

/// What the load does.
#[derive(Clone, Copy, Debug)]
enum Work {
    /// Computes on all CPUs but one.
    Cpu,
    /// 400 threads that read, compute a little and sleep, 20,000 switches a second.
    Io,
}

impl Work {
    fn name(self) -> &'static str {
        match self {
            Self::Cpu => "CPU-bound, all CPUs but one",
            Self::Io => "400 threads, I/O-bound, 20,000 switches/s",
        }
    }

    fn args(self) -> Vec<String> {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        match self {
            Self::Cpu => vec!["cpu".to_owned(), cpus.saturating_sub(1).max(1).to_string()],
            Self::Io => ["io", "400", "20000"].map(str::to_owned).to_vec(),
        }
    }

    /// How much less work is done `with` than `without`, per cent.
    fn slowdown(with: Done, without: Done) -> f64 {
        (1.0 - with.per_second / without.per_second) * 100.0
    }

    /// How much more CPU time a unit of work takes, per cent: what shows where the load is paced, and so not slowed down.
    fn dearer(with: Done, without: Done) -> f64 {
        (with.cpu_ns_per_unit / without.cpu_ns_per_unit - 1.0) * 100.0
    }
}

/// One tool on one load; medians over the rounds.
#[derive(Debug, Serialize)]
struct Line {
    load: &'static str,
    tool: &'static str,
    /// Per cent of one core, BPF run time included.
    own_cpu_percent: f64,
    /// Of it, BPF run time.
    bpf_percent: f64,
    slowdown_percent: f64,
    slowdown_spread: f64,
    /// CPU time that a unit of work takes more.
    dearer_percent: f64,
    rss_mib: f64,
    map_mib: f64,
    /// CPU time of the start-up, seconds.
    startup_cpu_s: f64,
    /// CPU time after the recording until there are stacks with names, per cent of one core over the recording. The
    /// agent has them when it is asked.
    after_percent: f64,
    /// Share of the load's stacks that reach the entry of their thread, per cent.
    whole_percent: Option<f64>,
}

impl Line {
    /// Per cent of one core for stacks with names: a recording of raw bytes of stacks is none yet.
    fn to_stacks(&self) -> f64 {
        self.own_cpu_percent + self.after_percent
    }
}

#[derive(Debug, Serialize)]
struct Figures {
    rounds: usize,
    lines: Vec<Line>,
}

pub(crate) fn run(bench: &Bench<'_>) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "bench profile samples the whole host: run it as root");
    let mut build = bench.workspace.cargo();
    shell::must("build tidegate in release", build.args(["build", "--release", "-p", "tidegate"]))?;
    let folder = tempfile::tempdir().context("make a folder to work in")?;
    std::fs::create_dir(folder.path().join("run")).context("make a folder for the socket")?;
    let program = load::build(folder.path())?;
    let tools = Tools { tidegate: bench.workspace.target.join("release/tidegate"), folder: folder.path().to_owned() };
    let _statistics = BpfStatistics::on()?;
    let mut lines = Vec::new();
    for work in [Work::Cpu, Work::Io] {
        lines.extend(compare(work, &program, &tools, bench.rounds)?);
    }
    let figures = Figures { rounds: bench.rounds, lines };
    bench.keep(&figures)
}

/// What one tool showed in one round.
struct Round {
    own: f64,
    bpf: f64,
    slowdown: f64,
    dearer: f64,
    rss: f64,
    maps: f64,
    startup: f64,
    after: f64,
    whole: Option<(u64, u64)>,
}

fn compare(work: Work, program: &Path, tools: &Tools, rounds_wanted: usize) -> Result<Vec<Line>> {
    ui::line(format_args!("{}", work.name()));
    let mut taken: Vec<(Tool, Vec<Round>)> = Vec::new();
    for tool in Tool::ALL {
        match tool.absent() {
            Some(why) => ui::line(format_args!("  {:<32} left out: {why}", tool.name())),
            None => taken.push((tool, Vec::new())),
        }
    }
    let load = Load::start(program, &work.args())?;
    rest(Duration::from_secs(2));
    let mut before = load.observe(WITHOUT)?;
    for round in 0..rounds_wanted {
        let count = taken.len();
        for i in 0..count {
            let (tool, rounds) = &mut taken[(i + round) % count];
            let running = tools.start(*tool)?;
            rest(SETTLE);
            ensure!(!running.has_ended()?, "{} ended at once: see what it says by hand", tool.name());
            let at_start = meter::read(running.id());
            let with = load.observe(MEASURE)?;
            let at_end = meter::read(running.id());
            let delivered = tools.deliver(*tool, running, load.pid())?;
            rest(Duration::from_secs(1));
            let after = load.observe(WITHOUT)?;
            let mean = Done {
                per_second: f64::midpoint(before.per_second, after.per_second),
                cpu_ns_per_unit: f64::midpoint(before.cpu_ns_per_unit, after.cpu_ns_per_unit),
            };
            before = after;
            rounds.push(Round {
                own: percent(at_end.cpu_ns + at_end.bpf_ns - at_start.cpu_ns.min(at_end.cpu_ns) - at_start.bpf_ns),
                bpf: percent(at_end.bpf_ns - at_start.bpf_ns),
                slowdown: Work::slowdown(with, mean),
                dearer: Work::dearer(with, mean),
                rss: mib(at_end.rss_bytes),
                maps: mib(at_end.map_bytes),
                startup: seconds(at_start.cpu_ns),
                after: seconds(delivered.after_ns) / (SETTLE + MEASURE).as_secs_f64() * 100.0,
                whole: delivered.whole,
            });
        }
        ui::line(format_args!("  round {} of {rounds_wanted}", round + 1));
    }
    let lines: Vec<Line> = taken.into_iter().map(|(tool, rounds)| line(work, tool, &rounds)).collect();
    show(&lines);
    Ok(lines)
}

#[expect(clippy::cast_precision_loss, reason = "counts of samples")]
fn line(work: Work, tool: Tool, rounds: &[Round]) -> Line {
    let of = |pick: fn(&Round) -> f64| median(rounds.iter().map(pick).collect());
    let mut slow: Vec<f64> = rounds.iter().map(|round| round.slowdown).collect();
    slow.sort_by(f64::total_cmp);
    let (whole, all) = rounds.iter().filter_map(|r| r.whole).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    Line {
        load: work.name(),
        tool: tool.name(),
        own_cpu_percent: of(|r| r.own),
        bpf_percent: of(|r| r.bpf),
        slowdown_percent: of(|r| r.slowdown),
        slowdown_spread: (slow[slow.len() * 3 / 4] - slow[slow.len() / 4]) / 2.0,
        dearer_percent: of(|r| r.dearer),
        rss_mib: of(|r| r.rss),
        map_mib: of(|r| r.maps),
        startup_cpu_s: of(|r| r.startup),
        after_percent: of(|r| r.after),
        whole_percent: (all > 0).then(|| whole as f64 * 100.0 / all as f64),
    }
}

fn show(lines: &[Line]) {
    ui::line(format_args!(
        "  {:<32} {:>9} {:>7} {:>9} {:>16} {:>9} {:>8} {:>8} {:>9} {:>7}",
        "", "own CPU", "(BPF)", "stacks", "slow-down", "CPU/unit", "RSS", "maps", "start-up", "whole"
    ));
    for line in lines {
        let whole = line.whole_percent.map_or_else(|| "–".to_owned(), |w| format!("{w:.1} %"));
        ui::line(format_args!(
            "  {:<32} {:>7.2} % {:>7.2} {:>7.2} % {:>7.2} ± {:.2} % {:>+7.2} % {:>5.0} MiB {:>4.0} MiB {:>7.2} s {:>7}",
            line.tool,
            line.own_cpu_percent,
            line.bpf_percent,
            line.after_percent,
            line.slowdown_percent,
            line.slowdown_spread,
            line.dearer_percent,
            line.rss_mib,
            line.map_mib,
            line.startup_cpu_s,
            whole
        ));
    }
    let ours = lines.iter().find(|line| line.tool == Tool::Tidegate.name());
    let peers = lines.iter().filter(|line| !Tool::ALL.iter().any(|t| t.is_ours() && t.name() == line.tool));
    let lowest = peers
        .filter(|line| line.whole_percent.is_some_and(|w| w >= 95.0))
        .min_by(|a, b| a.to_stacks().total_cmp(&b.to_stacks()));
    if let (Some(ours), Some(peer)) = (ours, lowest) {
        ui::line(format_args!(
            "  CPU time until there are stacks, against {}, the lowest peer that delivers them whole: {:.2} (wanted: below 0.5); \
             against its recording alone: {:.2}",
            peer.tool,
            ours.to_stacks() / peer.to_stacks(),
            ours.own_cpu_percent / peer.own_cpu_percent,
        ));
    }
}

/// Of one core, over the span that is measured.
#[expect(clippy::cast_precision_loss, reason = "seconds of CPU time")]
fn percent(ns: u64) -> f64 {
    ns as f64 / 1e9 / MEASURE.as_secs_f64() * 100.0
}

#[expect(clippy::cast_precision_loss, reason = "mebibytes to one place")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[expect(clippy::cast_precision_loss, reason = "seconds of CPU time")]
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[expect(clippy::disallowed_methods, reason = "a measurement takes its time")]
fn rest(span: Duration) {
    std::thread::sleep(span);
}
