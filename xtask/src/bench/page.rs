//! Cost of a read of the settings page: builds the laboratory in release and lets it measure. Never measures itself,
//! because xtask is a debug build.

use anyhow::{Result, bail};

use super::Bench;
use crate::leash::Leash;
use crate::shell;

pub(crate) fn run(bench: &Bench<'_>) -> Result<()> {
    let mut build = bench.workspace.cargo();
    shell::must("build tidegate-lab in release", build.args(["build", "--release", "-p", "tidegate-lab"]))?;
    let mut measure = bench.workspace.command(bench.workspace.target.join("release/tidegate-lab"));
    measure.args(["bench", "page"]);
    if let Some(file) = bench.json {
        measure.arg("--json").arg(file);
    }
    let shown = shell::show(&measure);
    let status = Leash::start(&mut measure)?.wait()?;
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    Ok(())
}
