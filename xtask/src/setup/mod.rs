//! From a bare Debian machine with Rust to one where the probes compile and the tests run: looks at each thing that
//! is needed, and mends what is missing. Never does anything twice, and never goes on silently without something.

mod apt;
mod linker;
mod parse;
mod readers;
mod servers;
mod toolchain;

use std::process::ExitCode;

use anyhow::{Result, bail};

pub(crate) use servers::postgres_programs;
pub(crate) use toolchain::Toolchain;

use crate::shell::{self, Workspace, which};
use crate::ui::{self, Stopwatch};

/// Newer ones may want a newer compiler than the one in `rust-toolchain.toml`.
const CARGO_DENY: &str = "0.20.2";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only say what is missing; exit 1 when something is
    #[arg(long)]
    check: bool,
}

/// What to do about a thing that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Intent {
    Look,
    Mend,
}

/// How one thing was found.
enum State {
    /// Here, with a word on which one.
    Ready(String),
    /// Was missing; what was done.
    Mended(String),
    /// Is missing; what would be done.
    Missing(String),
    /// Cannot be had, and nothing essential hangs on it; what is lost.
    Without(String),
}

/// Prints what was found and done, thing by thing.
#[derive(Default)]
struct Journal {
    missing: usize,
}

impl Journal {
    fn enter(&mut self, what: &str, state: &State, watch: Stopwatch) {
        let (word, detail) = match state {
            State::Ready(detail) => ("ready", detail),
            State::Mended(detail) => ("done", detail),
            State::Missing(detail) => {
                self.missing += 1;
                ("missing", detail)
            }
            State::Without(detail) => ("without", detail),
        };
        ui::line(format_args!("setup: {what:<24} {word:<8} {:>8}  {detail}", ui::span(watch.elapsed())));
    }
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    if args.check {
        let missing = go(workspace, Intent::Look)?.1;
        return Ok(if missing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    ensure(workspace)?;
    Ok(ExitCode::SUCCESS)
}

/// Mends what is missing and says which toolchain builds the kernel side.
pub(crate) fn ensure(workspace: &Workspace) -> Result<Toolchain> {
    match go(workspace, Intent::Mend)? {
        (Some(toolchain), _) => Ok(toolchain),
        (None, _) => bail!("no toolchain builds the kernel side"),
    }
}

fn go(workspace: &Workspace, intent: Intent) -> Result<(Option<Toolchain>, usize)> {
    let whole = Stopwatch::start();
    let mut journal = Journal::default();
    let mut apt = apt::Apt::default();

    let watch = Stopwatch::start();
    journal.enter("rustfmt and clippy", &components(workspace, intent)?, watch);

    let watch = Stopwatch::start();
    let found = toolchain::find(workspace, &mut apt, intent)?;
    journal.enter("kernel-side toolchain", &found.state, watch);
    if let Some(toolchain) = &found.toolchain {
        let watch = Stopwatch::start();
        journal.enter(&linker::llvm_package(toolchain.llvm), &linker::llvm(&mut apt, toolchain.llvm, intent)?, watch);
        let watch = Stopwatch::start();
        journal.enter("bpf-linker", &linker::bpf_linker(workspace, toolchain.llvm, intent)?, watch);
        if intent == Intent::Mend {
            toolchain.record(workspace)?;
        }
    }

    let watch = Stopwatch::start();
    journal.enter("cargo-deny", &cargo_deny(workspace, intent)?, watch);
    let watch = Stopwatch::start();
    let why = "`cargo xtask bench syscalls` has no peer to compare with";
    journal.enter("libbpf-tools", &apt.optional("libbpf-tools", "syscount", why, intent), watch);
    let watch = Stopwatch::start();
    journal.enter(
        "curl",
        &apt.optional("curl", "curl", "the lines that the demo ends with cannot be pasted", intent),
        watch,
    );
    for (package, program) in [("qemu-system-x86", "qemu-system-x86_64"), ("busybox-static", "busybox")] {
        let watch = Stopwatch::start();
        let why = "`cargo xtask kernel-test vm` cannot boot other kernels";
        journal.enter(package, &apt.optional(package, program, why, intent), watch);
    }
    for (package, program) in
        [("gcc", "gcc"), ("g++", "g++"), ("binutils", "objcopy"), ("nodejs", "node"), ("python3", "python3")]
    {
        let watch = Stopwatch::start();
        let why = "the tests of names, of shares and of the C and Python SDKs cannot build or run their programs";
        journal.enter(package, &apt.optional(package, program, why, intent), watch);
    }

    let watch = Stopwatch::start();
    journal.enter("postgresql", &servers::postgres(intent), watch);
    let watch = Stopwatch::start();
    journal.enter("redis-tools", &servers::redis(&mut apt, intent), watch);

    for reader in readers::PACKAGES {
        let watch = Stopwatch::start();
        journal.enter(reader.0, &readers::package(&mut apt, reader, intent), watch);
    }
    let watch = Stopwatch::start();
    journal.enter("readers of exports", &readers::npm(workspace, intent), watch);

    let end = if journal.missing == 0 { "nothing is missing" } else { "run `cargo xtask setup` to mend" };
    ui::line(format_args!("setup: {end}, {}", ui::span(whole.elapsed())));
    Ok((found.toolchain, journal.missing))
}

/// rustup leaves out the components of `rust-toolchain.toml` when its automatic installation is switched off.
fn components(workspace: &Workspace, intent: Intent) -> Result<State> {
    let sysroot = shell::capture(workspace.command("rustc").args(["--print", "sysroot"]))?;
    let bin = std::path::Path::new(sysroot.trim()).join("bin");
    let missing: Vec<&str> = [("rustfmt", "rustfmt"), ("clippy", "cargo-clippy")]
        .iter()
        .filter(|(_, binary)| !bin.join(binary).exists())
        .map(|(component, _)| *component)
        .collect();
    if missing.is_empty() {
        return Ok(State::Ready(sysroot.trim().rsplit('/').next().unwrap_or_default().to_owned()));
    }
    let mut add = workspace.command("rustup");
    add.args(["component", "add"]).args(&missing);
    if intent == Intent::Look {
        return Ok(State::Missing(format!("`{}`", shell::show(&add))));
    }
    shell::must("add rustfmt and clippy", &mut add)?;
    Ok(State::Mended(shell::show(&add)))
}

fn cargo_deny(workspace: &Workspace, intent: Intent) -> Result<State> {
    if let Some(file) = which("cargo-deny") {
        return Ok(State::Ready(file.display().to_string()));
    }
    let mut install = cargo_install(workspace, "cargo-deny", CARGO_DENY);
    if intent == Intent::Look {
        return Ok(State::Missing(format!("`{}`", shell::show(&install))));
    }
    shell::must("install cargo-deny", &mut install)?;
    Ok(State::Mended(shell::show(&install)))
}

/// Run from cargo's home: the flags in this repository's `.cargo/config.toml` are not meant for tools.
fn cargo_install(workspace: &Workspace, package: &str, version: &str) -> std::process::Command {
    let mut command = workspace.cargo();
    let home = shell::cargo_home();
    if home.is_dir() {
        command.current_dir(home);
    }
    command.env_remove("CARGO_TARGET_DIR").args(["install", package, "--version", version, "--locked"]);
    command
}
