//! From a command line to what it asks for. Only calls.

use anyhow::Result;

use crate::cli::{Bench, Cli, Command};
use crate::{bench, compare, guidance, kernel, load, micro, parent, pipeline, servers, sink, sweep, tuning};

/// Runs the subcommand.
pub(crate) fn run(cli: Cli) -> Result<()> {
    parent::follow(cli.parent)?;
    parent::keep_to_cpus(cli.cpus.as_deref())?;
    match cli.command {
        Command::Sink(args) => sink::run(&args),
        Command::Pipeline(args) => pipeline::run(&args),
        Command::Serve(args) => servers::run(&args),
        Command::Servant(args) => servers::servant::run(&args),
        Command::Broom(args) => servers::broom::run(&args),
        Command::Load(args) => load::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Tuning(args) => tuning::run(&args),
        Command::Sweep(args) => sweep::run(&args),
        Command::Micro(args) => micro::run(&args),
        Command::Guidance(args) => guidance::run(&args),
        Command::Bench(Bench::Page(args)) => bench::page(&args),
        Command::Bench(Bench::Pool(args)) => bench::pool::run(&args),
        Command::Bench(Bench::Reaction(args)) => bench::reaction::run(&args),
        Command::Bench(Bench::Cost(args)) => bench::cost::run(&args),
        Command::SyscallLoad(args) => kernel::syscalls::run(&args),
        Command::SwitchLoad(args) => kernel::switches::run(&args),
        Command::SocketLoad(args) => kernel::sockets::run(&args),
    }
}
