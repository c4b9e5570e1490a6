//! How fast the loop is: builds agent and laboratory in release, starts an agent of its own, and lets the laboratory
//! measure against it. Never measures itself, because xtask is a debug build.

use std::process::Command;

use anyhow::{Result, bail, ensure};

use super::{Bench, Scale, built_in_release};
use crate::demo::room::{Room, User};
use crate::demo::stage::start_agent;
use crate::leash::Leash;
use crate::shell;

pub(crate) fn run(bench: &Bench<'_>) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "bench reaction starts an agent with probes: run it as root (sudo)");
    let built = built_in_release(bench.workspace, bench.binaries)?;
    let room = Room::make(User::ordinary()?)?;
    let agent = start_agent(&built, &room, &[])?;
    let mut measure = Command::new(&built.lab);
    measure.args(["bench", "reaction", "--socket"]).arg(room.socket());
    if bench.scale == Scale::Quick {
        measure.args(["--rounds", "24"]);
    }
    if let Some(file) = bench.json {
        measure.arg("--json").arg(file);
    }
    let shown = shell::show(&measure);
    let status = Leash::start(&mut measure)?.wait()?;
    drop(agent);
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    Ok(())
}
