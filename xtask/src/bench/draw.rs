//! Cost of a flame graph of 50,000 distinct stacks, beside inferno alone: runs the bench of the agent in release. Never
//! measures itself, because xtask is a debug build.

use anyhow::{Result, ensure};

use super::Bench;
use crate::shell;

pub(crate) fn run(bench: &Bench<'_>) -> Result<()> {
    ensure!(bench.json.is_none(), "bench draw prints its numbers only: leave out --json");
    let mut measure = bench.workspace.cargo();
    shell::must("measure flame graphs", measure.args(["bench", "-p", "tidegate", "--bench", "flame"]))
}
