//! The laboratory of tidegate: real pipelines under real load, and the measurements of both.
//!
//! `tidegate-lab compare` runs pipelines of several flush policies side by side, each behind its own open-loop load and
//! before its own slow sink, and prints one table of latency and cost. `sink`, `pipeline` and `load` are its parts, each
//! of use alone; `bench` measures the client's own cost; `syscall-load` and `socket-load` do a known amount of work, so
//! that what the agent counts can be held against the truth. Everything runs as an ordinary user.

mod bench;
mod cli;
mod compare;
mod kernel;
mod load;
mod net;
mod out;
mod parent;
mod pipeline;
mod plot;
mod servers;
mod sink;
mod stop;
mod time;
mod wire;

use std::process::ExitCode;

use clap::Parser;

use cli::{Bench, Cli, Command};

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            out::note(&format!("tidegate-lab: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    parent::follow(cli.parent)?;
    match cli.command {
        Command::Sink(args) => sink::run(&args),
        Command::Pipeline(args) => pipeline::run(&args),
        Command::Serve(args) => servers::run(&args),
        Command::Servant(args) => servers::servant::run(&args),
        Command::Broom(args) => servers::broom::run(&args),
        Command::Load(args) => load::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Bench(Bench::Page(args)) => bench::page(&args),
        Command::SyscallLoad(args) => kernel::syscalls::run(&args),
        Command::SwitchLoad(args) => kernel::switches::run(&args),
        Command::SocketLoad(args) => kernel::sockets::run(&args),
    }
}
