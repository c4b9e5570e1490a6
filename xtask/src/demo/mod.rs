//! The whole of tidegate on this machine, in one run: an agent as root, a laboratory as an ordinary user, fixed against
//! tuned pipelines under the same load, and a verdict. Leaves nothing behind but `demo/`, however it ends.

pub(crate) mod http;
mod report;
pub(crate) mod room;
pub(crate) mod stage;
mod verdict;
mod watcher;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::shell::{self, Workspace};
use crate::{setup, ui};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Length of each of the six phases of load
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds_per_phase: u32,
    /// Leave the agent running, so that there is something to ask
    #[arg(long)]
    keep: bool,
    /// Everything is built: only run (what `sudo` is asked to do)
    #[arg(long, hide = true)]
    built: bool,
}

/// What becomes of the agent at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Afterwards {
    End,
    Keep,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let release = workspace.target.join("release");
    let built = stage::Built { tidegate: release.join("tidegate"), lab: release.join("tidegate-lab") };
    if !args.built {
        setup::ensure(workspace)?;
        let mut cargo = workspace.cargo();
        cargo.args(["build", "--release", "-p", "tidegate", "-p", "tidegate-lab"]);
        let watch = ui::Stopwatch::start();
        shell::must("build in release", &mut cargo)?;
        ui::line(format_args!("demo: built in release, {}", ui::span(watch.elapsed())));
    }
    if !rustix::process::geteuid().is_root() {
        return Err(again_as_root(workspace, args));
    }
    let afterwards = if args.keep { Afterwards::Keep } else { Afterwards::End };
    stage::run(workspace, &built, args.seconds_per_phase, afterwards)?;
    Ok(ExitCode::SUCCESS)
}

/// Replaces this process by the same one under `sudo`; comes back only when that fails.
fn again_as_root(workspace: &Workspace, args: &Args) -> anyhow::Error {
    let go = || -> Result<std::convert::Infallible> {
        let allowed = Command::new("sudo").args(["-n", "true"]).output();
        if !allowed.is_ok_and(|output| output.status.success()) {
            bail!(
                "the agent loads probes and needs root, and `sudo -n` is refused: run `sudo -v` first, or \
                 `sudo -E env PATH=\"$PATH\" cargo xtask demo`"
            );
        }
        let own = std::env::current_exe().context("find this program")?;
        let mut sudo = Command::new("sudo");
        let set = |name: &str, value: &std::ffi::OsStr| {
            let mut pair = OsString::from(name);
            pair.push("=");
            pair.push(value);
            pair
        };
        sudo.args(["-n", "--", "env"]);
        sudo.arg(set("CARGO_MANIFEST_DIR", workspace.root.join("xtask").as_os_str()));
        sudo.arg(set("CARGO_TARGET_DIR", workspace.target.as_os_str()));
        sudo.arg(own).args(["demo", "--built", "--seconds-per-phase"]).arg(args.seconds_per_phase.to_string());
        if args.keep {
            sudo.arg("--keep");
        }
        Err(sudo.exec()).context("run sudo")
    };
    match go() {
        Err(error) => error,
        Ok(never) => match never {},
    }
}
