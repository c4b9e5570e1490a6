//! Measurements that a figure in the documentation can point to, by name. Each prints a table and, when asked, writes
//! the same numbers as JSON; none of them asserts.

mod cost;
mod draw;
mod flame;
mod lab;
mod load;
mod page;
mod profile;
mod reaction;
mod syscalls;
mod tuning;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::demo::stage::Built;
use crate::shell::{self, Workspace};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to measure
    #[arg(value_enum)]
    name: Name,
    /// Write the numbers here as JSON too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Rounds of `profile`, about five minutes each, of `switches`, half a minute each, and of `load`, likewise, at least six
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
    /// Minutes to try the plumbing by; the figures are not to be quoted
    #[arg(long)]
    quick: bool,
    /// Everything is built in release: only run
    #[arg(long, hide = true)]
    built: bool,
    /// Which sinks `tuning` is about
    #[arg(long, value_enum, default_value_t = tuning::Sinks::Promises)]
    sink: tuning::Sinks,
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Minutes, to try the plumbing by.
    Quick,
    /// What a figure needs.
    Full,
}

/// Whether the release build is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binaries {
    /// It is to be made.
    ToBuild,
    /// Whoever asked has made it.
    Built,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Name {
    /// A pipeline with an agent beside itself without: throughput in pairs, and the CPU time of the agent
    Cost,
    /// Naming, merging, drawing and exporting 50,000 distinct stacks, beside inferno alone
    Draw,
    /// A flame graph of the last minute and of the last hour, at the socket, with 50,000 distinct stacks
    Flame,
    /// Latencies by `tidegate-lab load` and by `pgbench -R`, in turns on one PostgreSQL
    Load,
    /// Reading the settings page and reporting a flush: ns each
    Page,
    /// Borrowing a connection from the pool and giving it back: ns a loan, alone and contended
    Pool,
    /// What profiling the whole host costs, beside perf and profile-bee
    Profile,
    /// From a full queue to the agent and to its flush, from a decision to the page and to a watcher, 200 pipelines: ms
    Reaction,
    /// Batch size against concurrency in a closed loop, and whether 128 differs from 256
    Sweep,
    /// The steps of a pipeline alone: batches, LZ4, hash partitioning
    Micro,
    /// Which batch and which flush time suit which messages
    Guidance,
    /// What every kind of profile at once adds to a context switch
    Switches,
    /// What syscall accounting adds to a system call, beside libbpf-tools `syscount -L`
    Syscalls,
    /// Flush policies beside each other and beside their oracle, with verdicts and a report: an hour, or --quick
    Tuning,
}

/// What every measurement is given.
pub(crate) struct Bench<'a> {
    pub(crate) workspace: &'a Workspace,
    /// File for the numbers, absolute.
    pub(crate) json: Option<&'a Path>,
    /// Rounds, where they can be chosen.
    pub(crate) rounds: usize,
    /// How much, where it can be chosen.
    pub(crate) scale: Scale,
    /// Of agent and laboratory.
    pub(crate) binaries: Binaries,
    /// Sinks of `tuning`.
    pub(crate) sinks: tuning::Sinks,
}

impl Bench<'_> {
    /// Writes the numbers to the file, if one was asked for.
    fn keep(&self, figures: &impl Serialize) -> Result<()> {
        let Some(file) = self.json else { return Ok(()) };
        std::fs::write(file, serde_json::to_string_pretty(figures)?)
            .with_context(|| format!("write {}", file.display()))
    }
}

/// Agent and laboratory, built in release.
fn built_in_release(workspace: &Workspace, binaries: Binaries) -> Result<Built> {
    if binaries == Binaries::ToBuild {
        let mut build = workspace.cargo();
        build.args(["build", "--release", "-p", "tidegate", "-p", "tidegate-lab"]);
        shell::must("build in release", &mut build)?;
    }
    let release = workspace.target.join("release");
    Ok(Built { tidegate: release.join("tidegate"), lab: release.join("tidegate-lab") })
}

/// The upper one of the two in the middle where their count is even.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let json = args.json.as_deref().map(std::path::absolute).transpose()?;
    let scale = if args.quick { Scale::Quick } else { Scale::Full };
    let binaries = if args.built { Binaries::Built } else { Binaries::ToBuild };
    let bench =
        Bench { binaries, workspace, json: json.as_deref(), rounds: args.rounds.into(), scale, sinks: args.sink };
    match args.name {
        Name::Cost => cost::run(&bench)?,
        Name::Draw => draw::run(&bench)?,
        Name::Flame => flame::run(&bench)?,
        Name::Load => load::run(&bench)?,
        Name::Page => page::run(&bench, "page")?,
        Name::Pool => page::run(&bench, "pool")?,
        Name::Profile => profile::run(&bench)?,
        Name::Reaction => reaction::run(&bench)?,
        Name::Switches => profile::switches::run(&bench)?,
        Name::Syscalls => syscalls::run(&bench)?,
        Name::Sweep => lab::run(&bench, "sweep")?,
        Name::Micro => lab::run(&bench, "micro")?,
        Name::Guidance => lab::run(&bench, "guidance")?,
        Name::Tuning => tuning::run(&bench)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// `program`, to be run with tracefs, which a minimal host does not mount: it gets a view of its own.
pub(crate) fn with_tracefs(program: &Path) -> Command {
    let script = "mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(program);
    command
}
