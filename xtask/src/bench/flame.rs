//! What a flame graph takes at the socket: builds the agent and its measuring program, runs them, prints what they print.

use anyhow::{Result, ensure};

use super::Bench;

pub(crate) fn run(bench: &Bench<'_>) -> Result<()> {
    let cargo = || {
        let mut cargo = std::process::Command::new("cargo");
        cargo.current_dir(&bench.workspace.root);
        cargo
    };
    let built = cargo().args(["build", "--release", "-p", "tidegate", "--bin", "tidegate"]).status()?;
    ensure!(built.success(), "the agent does not build");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| bench.workspace.root.join("target"), Into::into);
    let mut measure = cargo();
    measure.args(["run", "--release", "-p", "tidegate", "--example", "flame_latency", "--"]);
    measure.arg(target.join("release/tidegate")).args(bench.json);
    ensure!(measure.status()?.success(), "the measurement failed");
    Ok(())
}
