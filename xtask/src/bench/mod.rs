//! Measurements that a figure in the documentation can point to, by name. Each prints a table and, when asked, writes
//! the same numbers as JSON; none of them asserts.

mod draw;
mod flame;
mod lab;
mod load;
mod page;
mod profile;
mod syscalls;
mod tuning;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::shell::Workspace;

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

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Name {
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

/// The upper one of the two in the middle where their count is even.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let json = args.json.as_deref().map(std::path::absolute).transpose()?;
    let scale = if args.quick { Scale::Quick } else { Scale::Full };
    let bench = Bench { workspace, json: json.as_deref(), rounds: args.rounds.into(), scale, sinks: args.sink };
    match args.name {
        Name::Draw => draw::run(&bench)?,
        Name::Flame => flame::run(&bench)?,
        Name::Load => load::run(&bench)?,
        Name::Page => page::run(&bench, "page")?,
        Name::Pool => page::run(&bench, "pool")?,
        Name::Profile => profile::run(&bench)?,
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
