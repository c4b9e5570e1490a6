//! House-keeping of tidegate: `cargo xtask setup | demo | test | tidy | bench | kernel-test | dashboards`. Only parses and calls.

mod bench;
mod dashboards;
mod demo;
mod kernel_test;
mod leash;
mod setup;
mod shell;
mod tidy;
mod ui;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::shell::Workspace;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Set-up, tests, benchmarks and house-keeping of tidegate")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building, testing and the demo need; says what it does, does nothing twice
    Setup(setup::Args),
    /// Set up, then run every check and every test
    #[command(visible_alias = "ci")]
    Test(verify::Args),
    /// Set up, build, and compare fixed and tuned pipelines on this machine
    Demo(demo::Args),
    /// Measure one thing
    Bench(bench::Args),
    /// Try every family of probes on this kernel and on others
    KernelTest(kernel_test::Args),
    /// Hold the code against the rules of the house
    Tidy,
    /// Work on the dashboards
    Dashboards {
        /// Hold the metric names in the dashboards against the code
        #[arg(long, required = true)]
        check: bool,
        /// Dashboard to check instead of the one in the repository
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

/// Exit code of a run that a signal ended, as shells give it.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(_) if leash::is_called_off() => ExitCode::from(INTERRUPTED),
        Err(error) => {
            ui::note(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    leash::heed_signals()?;
    let workspace = Workspace::find()?;
    match cli.task {
        Task::Setup(args) => setup::run(&workspace, &args),
        Task::Test(args) => verify::run(&workspace, &args),
        Task::Demo(args) => demo::run(&workspace, &args),
        Task::Bench(args) => bench::run(&workspace, &args),
        Task::KernelTest(args) => kernel_test::run(&workspace, &args),
        Task::Tidy => tidy::run(&workspace),
        Task::Dashboards { check: _, file } => dashboards::run(&workspace, file),
    }
}
