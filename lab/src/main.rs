//! The laboratory of tidegate: real pipelines under real load, and the measurements of both.
//!
//! `tidegate-lab compare` runs pipelines of several flush policies side by side, each behind its own open-loop load and
//! before its own slow sink, and prints one table of latency and cost. `sink`, `pipeline` and `load` are its parts, each
//! of use alone; `bench` measures the client's own cost; `syscall-load` and `socket-load` do a known amount of work, so
//! that what the agent counts can be held against the truth. Everything runs as an ordinary user.

mod bench;
mod cli;
mod compare;
mod dispatch;
mod guidance;
mod kernel;
mod load;
mod micro;
mod net;
mod out;
mod parent;
mod pipeline;
mod plot;
mod report;
mod servers;
mod sink;
mod stats;
mod stop;
mod sweep;
mod time;
mod tuning;
mod wire;

use std::process::ExitCode;

use clap::Parser;

use cli::Cli;

fn main() -> ExitCode {
    match dispatch::run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            out::note(&format!("tidegate-lab: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
