//! x
use crate::shell::Workspace;
use anyhow::Result;
use std::process::ExitCode;
#[derive(clap::Args)]
pub(crate) struct Args {}
pub(crate) fn run(_w: &Workspace, _a: &Args) -> Result<ExitCode> {
    anyhow::bail!("x")
}
