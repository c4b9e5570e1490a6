//! The probes on other kernels: Debian's, booted under emulation with nothing in them but the agent, and the one that
//! runs here. Each tries every family of probes for real; out comes a table of capabilities by kernel.

mod boot;
mod image;
mod packages;
mod report;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use crate::shell::{self, Workspace};
use crate::ui::{self, Stopwatch};
use report::Kernel;
pub(crate) use report::Verdict as Ended;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    place: Place,
}

#[derive(clap::Subcommand)]
enum Place {
    /// On the kernel that runs here; needs root
    Local,
    /// On Debian's kernels of these versions, under emulation, and on the one that runs here
    Vm {
        /// Versions, e.g. `6.1 6.12`
        #[arg(required = true, value_name = "VERSION", value_parser = packages::version)]
        versions: Vec<String>,
    },
}

/// The versions that the test run boots: the oldest that is supported, and the one between it and today's.
pub(crate) const USUAL: [&str; 2] = ["6.1", "6.12"];

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let versions: &[String] = match &args.place {
        Place::Local => &[],
        Place::Vm { versions } => versions,
    };
    Ok(match matrix(workspace, versions)? {
        Ended::Green => ExitCode::SUCCESS,
        Ended::Red(cause) => {
            ui::note(format_args!("error: {cause}"));
            ExitCode::FAILURE
        }
        Ended::Skipped(cause) => {
            ui::line(format_args!("skipped: {cause}"));
            ExitCode::SUCCESS
        }
    })
}

/// Tries `versions` and the running kernel, and prints the table.
pub(crate) fn matrix(workspace: &Workspace, versions: &[String]) -> Result<Ended> {
    shell::must("build tidegate", workspace.cargo().args(["build", "-p", "tidegate"]))?;
    let tidegate = workspace.target.join("debug/tidegate");
    let watch = Stopwatch::start();
    let mut kernels = Vec::new();
    let mut skipped = Vec::new();
    if !versions.is_empty() {
        let cache = workspace.target.join("kernels");
        match ready(&cache, versions)? {
            Ready::Lacking(cause) => skipped.push(cause),
            Ready::Kernels(images) => {
                let initramfs = image::write(&cache, &tidegate)?;
                kernels.extend(boot::all(&images, &initramfs, &cache)?);
            }
        }
    }
    if rustix::process::geteuid().is_root() {
        kernels.push(here(&tidegate)?);
    } else {
        skipped.push("the running kernel: probes load as root only".to_owned());
    }
    if !kernels.is_empty() {
        ui::line(report::table(&kernels));
        ui::line(format_args!("{} kernels in {}", kernels.len(), ui::span(watch.elapsed())));
    }
    Ok(report::verdict(&kernels, &skipped))
}

/// Whether virtual machines can be had.
enum Ready {
    Kernels(Vec<packages::Image>),
    /// Why not.
    Lacking(String),
}

fn ready(cache: &PathBuf, versions: &[String]) -> Result<Ready> {
    for (program, package) in [(boot::QEMU, "qemu-system-x86"), (image::BUSYBOX, "busybox-static")] {
        if shell::which(program).is_none() {
            return Ok(Ready::Lacking(format!(
                "no {program} (Debian package {package}): `cargo xtask setup` installs it"
            )));
        }
    }
    std::fs::create_dir_all(cache).with_context(|| format!("create {}", cache.display()))?;
    let mut images = Vec::new();
    for version in versions {
        match packages::image(cache, version)? {
            Ok(image) => images.push(image),
            Err(cause) => return Ok(Ready::Lacking(cause)),
        }
    }
    Ok(Ready::Kernels(images))
}

/// The kernel that runs here.
fn here(tidegate: &PathBuf) -> Result<Kernel> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").context("read the version of the kernel")?;
    let output = Command::new(tidegate)
        .args(["doctor", "--try", "-o", "json"])
        .output()
        .with_context(|| format!("run {}", tidegate.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        !text.trim().is_empty(),
        "`tidegate doctor --try` said nothing: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(Kernel::of_json(format!("{} (here)", release.trim()), &text))
}
