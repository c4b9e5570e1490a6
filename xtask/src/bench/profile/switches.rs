//! What every kind of profile at once adds to a context switch, in two ways: what two threads that hand over to each other
//! need more for a switch (their memory is warm), and the run time of the probes on 400 threads that switch 20,000 times a
//! second (it is cold), less what the kernel's own measuring adds to it.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use super::load::{self, Load};
use super::meter::{self, BpfStatistics};
use super::tool::{Tool, Tools};
use super::{SETTLE, Work, rest};
use crate::bench::{Bench, median};
use crate::leash::Leash;
use crate::{shell, ui};

const SOURCE: &str = include_str!("handover.c");
const SPAN: Duration = Duration::from_secs(3);

#[derive(Debug, Default, Serialize)]
struct Figures {
    rounds: usize,
    /// CPU time a switch of two threads that hand over.
    handover_ns: f64,
    /// Likewise with the agent, what it is more.
    added_ns: f64,
    /// Run time of an empty program, as the kernel measures it.
    floor_ns: f64,
    /// Run time of all programs a switch of the host, on the I/O-bound load.
    bpf_ns: f64,
    /// Of it, what is left when each run is taken for a floor less.
    bpf_less_floor_ns: f64,
    /// Switches a second meanwhile.
    switches: f64,
}

/// Measures, prints, and writes the figures where they are wanted.
pub(crate) fn run(bench: &Bench<'_>) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "bench switches watches the whole host: run it as root");
    let mut build = bench.workspace.cargo();
    shell::must("build tidegate in release", build.args(["build", "--release", "-p", "tidegate"]))?;
    let folder = tempfile::tempdir().context("make a folder to work in")?;
    std::fs::create_dir(folder.path().join("run")).context("make a folder for the socket")?;
    let tools = Tools { tidegate: bench.workspace.target.join("release/tidegate"), folder: folder.path().to_owned() };
    let (mut warm, mut cold) = (Vec::new(), Vec::new());
    let floor_ns = floor(&tools)?;
    for _ in 0..bench.rounds {
        warm.push(handover(&tools)?);
        cold.push(probes(&tools, floor_ns)?);
    }
    let of = |pick: fn(&(f64, f64, f64)) -> f64| median(cold.iter().map(pick).collect());
    let figures = Figures {
        rounds: bench.rounds,
        handover_ns: median(warm.iter().map(|(without, _)| *without).collect()),
        added_ns: median(warm.iter().map(|(without, with)| with - without).collect()),
        floor_ns,
        bpf_ns: of(|c| c.0),
        bpf_less_floor_ns: of(|c| c.1),
        switches: of(|c| c.2),
    };
    show(&figures);
    bench.keep(&figures)
}

fn show(figures: &Figures) {
    let Figures { rounds, handover_ns, added_ns, floor_ns, bpf_ns, bpf_less_floor_ns, switches } = figures;
    ui::line(format_args!("every kind of profile, medians of {rounds} rounds"));
    ui::line(format_args!("  handing over, without      {handover_ns:7.0} ns a switch, both calls included"));
    ui::line(format_args!("  added by the agent         {added_ns:7.0} ns a switch            (wanted: at most 400)"));
    ui::line(format_args!("  I/O-bound load             {switches:7.0} switches a second of the host"));
    ui::line(format_args!("  run time of the probes     {bpf_ns:7.0} ns a switch, CPU samples included"));
    ui::line(format_args!("  an empty program           {floor_ns:7.0} ns a run, as the kernel measures itself"));
    ui::line(format_args!(
        "  run time without that      {bpf_less_floor_ns:7.0} ns a switch            (wanted: at most 400)"
    ));
}

/// CPU time a switch, without and with the agent.
fn handover(tools: &Tools) -> Result<(f64, f64)> {
    let pair = Pair::start(&tools.folder)?;
    rest(Duration::from_secs(1));
    let before = pair.observe()?;
    let agent = tools.start(Tool::TidegateAll)?;
    rest(SETTLE);
    ensure!(!agent.has_ended()?, "the agent ended at once: see what it says by hand");
    let with = pair.observe()?;
    drop(agent);
    rest(Duration::from_secs(1));
    Ok((f64::midpoint(before, pair.observe()?), with))
}

/// Run time of the agent's programs a switch of the host, the same less the floor of each run, switches a second.
#[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
fn probes(tools: &Tools, floor_ns: f64) -> Result<(f64, f64, f64)> {
    let program = load::build(&tools.folder)?;
    let load = Load::start(&program, &Work::Io.args())?;
    let agent = tools.start(Tool::TidegateAll)?;
    rest(SETTLE);
    ensure!(!agent.has_ended()?, "the agent ended at once: see what it says by hand");
    let _statistics = BpfStatistics::on()?;
    let (before, switched) = (meter::read(agent.id()), switches()?);
    let _done = load.observe(2 * SPAN)?;
    let (after, then) = (meter::read(agent.id()), switches()?);
    let count = (then - switched).max(1) as f64;
    let ran = (after.bpf_ns - before.bpf_ns) as f64;
    let runs = (after.bpf_runs - before.bpf_runs) as f64;
    Ok((ran / count, (ran - runs * floor_ns) / count, count / (2 * SPAN).as_secs_f64()))
}

/// Run time of a program that does nothing.
#[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
fn floor(tools: &Tools) -> Result<f64> {
    let pair = Pair::start(&tools.folder)?;
    let mut watch = Command::new(&tools.tidegate);
    watch.args(["syscalls", "--floor", "--seconds", "60", "-o", "json", "--pid", &std::process::id().to_string()]);
    watch.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let watch = Leash::start(&mut watch)?;
    rest(SPAN);
    let _statistics = BpfStatistics::on()?;
    let before = meter::read(watch.id());
    let _passed = pair.observe()?;
    let after = meter::read(watch.id());
    let runs = after.bpf_runs.saturating_sub(before.bpf_runs);
    ensure!(runs > 0, "the empty programs did not run: see what `tidegate syscalls --floor` says by hand");
    Ok((after.bpf_ns - before.bpf_ns) as f64 / runs as f64)
}

/// Switches of the host since it was booted.
fn switches() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    let line = text.lines().find_map(|line| line.strip_prefix("ctxt "));
    line.and_then(|count| count.parse().ok()).context("/proc/stat tells no context switches")
}

/// Two threads that hand over; they end with this value.
struct Pair {
    child: Child,
    told: Arc<Mutex<Vec<f64>>>,
}

impl Pair {
    fn start(folder: &Path) -> Result<Self> {
        let (source, program) = (folder.join("handover.c"), folder.join("handover"));
        std::fs::write(&source, SOURCE).with_context(|| format!("write {}", source.display()))?;
        let mut gcc = Command::new("gcc");
        gcc.args(["-O2", "-pthread", "-o"]).arg(&program).arg(&source);
        shell::must("compile the threads that hand over", &mut gcc)?;
        let mut child = Command::new(&program).stdout(Stdio::piped()).spawn().context("start them")?;
        let said = BufReader::new(child.stdout.take().context("they have no output")?);
        let told: Arc<Mutex<Vec<f64>>> = Arc::default();
        let kept = Arc::clone(&told);
        std::thread::Builder::new().name("handover".to_owned()).spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                kept.lock().unwrap_or_else(PoisonError::into_inner).extend(line.parse::<f64>());
            }
        })?;
        Ok(Self { child, told })
    }

    /// CPU time a switch over a span: the lowest fifth, because whatever else runs only adds to it.
    fn observe(&self) -> Result<f64> {
        let count = || self.told.lock().unwrap_or_else(PoisonError::into_inner).len();
        let before = count();
        rest(SPAN);
        let mut spans = self.told.lock().unwrap_or_else(PoisonError::into_inner)[before..].to_vec();
        spans.sort_by(f64::total_cmp);
        spans.get(spans.len() / 5).copied().context("the threads that hand over stand still")
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // One that has ended needs no ending.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
