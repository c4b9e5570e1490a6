//! Measurements that the laboratory makes and prints by itself: builds it in release, runs it in a folder of its own, and
//! passes on where the numbers go. Never measures itself, because xtask is a debug build.

use anyhow::{Context as _, Result, ensure};

use super::{Bench, Scale};
use crate::leash::Leash;
use crate::shell;

/// Runs `tidegate-lab WHAT`.
pub(crate) fn run(bench: &Bench<'_>, what: &str) -> Result<()> {
    let mut cargo = bench.workspace.cargo();
    shell::must("build tidegate-lab in release", cargo.args(["build", "--release", "-p", "tidegate-lab"]))?;
    let folder = tempfile::tempdir().context("make a folder for the run")?;
    let mut command = bench.workspace.command(bench.workspace.target.join("release/tidegate-lab"));
    command.arg(what);
    if what == "guidance" {
        command.arg("--dir").arg(folder.path());
    }
    match (what, bench.scale) {
        ("guidance", Scale::Quick) => drop(command.args(["--seconds", "1"])),
        ("sweep", Scale::Quick) => drop(command.args(["--span", "500ms"])),
        _ => {}
    }
    if let Some(file) = bench.json {
        command.arg("--json").arg(file);
    }
    let shown = shell::show(&command);
    let status = Leash::start(&mut command)?.wait()?;
    ensure!(status.success(), "`{shown}` failed ({status})");
    Ok(())
}
