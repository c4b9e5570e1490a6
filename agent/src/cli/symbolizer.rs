//! `tidegate symbolizer`: the process that reads foreign symbol tables. The agent starts it; nobody else needs to.

use std::os::fd::AsFd as _;

use anyhow::Context as _;

use crate::symbolize::child::{Attempt, attempt, serve};

/// Read symbol tables in a sandbox; the agent starts this by itself
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(after_help = "Standard input is the socket to the agent.")]
pub struct SymbolizerArgs {
    /// Enter the sandbox, try this, and say what became of it
    #[arg(long, value_enum, value_name = "WHAT")]
    attempt: Option<Attempt>,
    /// Leave the filter of system calls out, to see what the other layers refuse
    #[arg(long, requires = "attempt")]
    without_filter: bool,
}

/// Runs the command.
pub fn run(args: SymbolizerArgs) -> anyhow::Result<()> {
    match args.attempt {
        Some(what) => attempt(what, !args.without_filter).map_err(|refused| anyhow::anyhow!("refused: {refused}")),
        None => serve(std::io::stdin().as_fd()).context("answer the agent (its socket must be standard input)"),
    }
}
