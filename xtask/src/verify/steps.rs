//! The steps of the test run, in the order in which they run: cheap ones first. Each takes the workspace and the
//! kernel-side toolchain, and gives a verdict with its cause. Builds share one profile and one set of flags.

use std::net::{TcpStream, ToSocketAddrs};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::libtest::{self, Counts};
use super::{Finding, Verdict};
use crate::setup::Toolchain;
use crate::shell::{self, Echo, Outcome, Workspace};

/// The cause that marks a broken build.
pub(super) const DOES_NOT_BUILD: &str = "does not build";

pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) needs: Needs,
    pub(super) run: fn(&Workspace, &Toolchain) -> Result<Finding>,
}

/// What a step is pointless without.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    Nothing,
    /// A workspace that compiles.
    Build,
}

pub(super) const ALL: [Step; 10] = [
    Step { name: "rustfmt", needs: Needs::Nothing, run: rustfmt },
    Step { name: "tidy", needs: Needs::Nothing, run: tidy },
    Step { name: "dashboards", needs: Needs::Nothing, run: dashboards },
    Step { name: "clippy", needs: Needs::Nothing, run: clippy },
    Step { name: "clippy, kernel side", needs: Needs::Nothing, run: clippy_kernel_side },
    Step { name: "cargo deny", needs: Needs::Nothing, run: deny },
    Step { name: "rustdoc", needs: Needs::Build, run: rustdoc },
    Step { name: "tests, pure layers", needs: Needs::Build, run: pure_tests },
    Step { name: "tests, agent and kernel", needs: Needs::Build, run: agent_tests },
    Step { name: "kernel matrix", needs: Needs::Build, run: kernel_matrix },
];

const EVERY_HOST_CRATE: [&str; 3] = ["--workspace", "--exclude", "agent-ebpf"];

fn rustfmt(workspace: &Workspace, _: &Toolchain) -> Result<Finding> {
    plain("rustfmt", workspace.cargo().args(["fmt", "--all", "--check"]), "run `cargo fmt --all`")
}

fn tidy(workspace: &Workspace, _: &Toolchain) -> Result<Finding> {
    Ok(inside(crate::tidy::run(workspace)?, "see the lines above"))
}

fn dashboards(workspace: &Workspace, _: &Toolchain) -> Result<Finding> {
    Ok(inside(crate::dashboards::run(workspace, None)?, "see the lines above"))
}

fn clippy(workspace: &Workspace, _: &Toolchain) -> Result<Finding> {
    let mut command = workspace.cargo();
    command.arg("clippy").args(EVERY_HOST_CRATE).args(["--all-targets", "--", "-D", "warnings"]);
    plain("clippy", &mut command, "see the lints above")
}

/// In a call of its own, with the compiler that builds it: features of the host side would leak into it otherwise.
fn clippy_kernel_side(workspace: &Workspace, toolchain: &Toolchain) -> Result<Finding> {
    let mut has = workspace.command("rustup");
    if shell::capture(has.args(["run", &toolchain.name, "cargo-clippy", "--version"])).is_err() {
        let cause =
            format!("toolchain {} has no clippy: `rustup component add clippy --toolchain {0}`", toolchain.name);
        return Ok(Finding::of(Verdict::Skipped(cause)));
    }
    let mut command = workspace.command("rustup");
    toolchain.prepare(&mut command);
    command.args(["run", &toolchain.name, "cargo", "clippy", "-p", "agent-ebpf", "--target", "bpfel-unknown-none"]);
    // The wire types are linted with the host side; a newer compiler's new lints are for the kernel side to heed.
    command.arg("--no-deps");
    // A folder of its own: two compilers in one folder throw each other's work away.
    command.args(["-Z", "build-std=core", "--release", "--target-dir"]).arg(workspace.target.join("ebpf-clippy"));
    command.args(["--", "-D", "warnings"]);
    // `cargo xtask` was itself started by a cargo that tells its children which compiler to use.
    command.env_remove("RUSTC").env_remove("RUSTDOC").env_remove("CARGO");
    plain("clippy, kernel side", &mut command, "see the lints above")
}

fn deny(workspace: &Workspace, _: &Toolchain) -> Result<Finding> {
    let mut command = workspace.cargo();
    command.args(["deny", "--workspace", "check", "--hide-inclusion-graph", "licenses", "bans", "sources"]);
    let finding = plain("cargo deny", &mut command, "see above; the rules stand in deny.toml")?;
    if !matches!(finding.verdict, Verdict::Passed) {
        return Ok(finding);
    }
    if !reachable("github.com:443") {
        crate::ui::line(
            "cargo deny: licences, bans and sources hold; advisories were not checked: github.com, where their database lies, cannot be reached",
        );
        return Ok(finding);
    }
    let mut command = workspace.cargo();
    command.args(["deny", "--workspace", "check", "advisories"]);
    plain("cargo deny, advisories", &mut command, "see the advisories above")
}

fn rustdoc(workspace: &Workspace, _: &Toolchain) -> Result<Finding> {
    let mut command = workspace.cargo();
    command.arg("doc").args(EVERY_HOST_CRATE).arg("--no-deps").env("RUSTDOCFLAGS", "-D warnings");
    plain("rustdoc", &mut command, "see the warnings above")
}

fn pure_tests(workspace: &Workspace, _: &Toolchain) -> Result<Finding> {
    let mut command = workspace.cargo();
    command.arg("test").args(EVERY_HOST_CRATE).args(["--no-default-features", "--no-fail-fast"]);
    tests("tests, pure layers", &mut command)
}

fn agent_tests(workspace: &Workspace, _: &Toolchain) -> Result<Finding> {
    let mut command = workspace.cargo();
    command.args(["test", "-p", "tidegate", "--no-fail-fast"]);
    tests("tests, agent and kernel", &mut command)
}

fn kernel_matrix(workspace: &Workspace, _: &Toolchain) -> Result<Finding> {
    use crate::kernel_test::{self, Ended};
    let versions = kernel_test::USUAL.map(str::to_owned);
    Ok(Finding::of(match kernel_test::matrix(workspace, &versions)? {
        Ended::Green => Verdict::Passed,
        Ended::Red(cause) => Verdict::Failed(cause),
        Ended::Skipped(cause) => Verdict::Skipped(cause),
    }))
}

fn plain(what: &str, command: &mut Command, remedy: &str) -> Result<Finding> {
    let followed = shell::follow(what, command, Echo::Lines)?;
    Ok(Finding::of(match followed.outcome {
        Outcome::Success => Verdict::Passed,
        Outcome::Failure if libtest::does_not_build(&followed.log) && followed.log.contains("error[E") => {
            Verdict::Failed(DOES_NOT_BUILD.to_owned())
        }
        Outcome::Failure => Verdict::Failed(remedy.to_owned()),
    }))
}

fn tests(what: &str, command: &mut Command) -> Result<Finding> {
    let followed = shell::follow(what, command, Echo::Lines)?;
    let counts: Counts = libtest::counts(&followed.log);
    let verdict = match followed.outcome {
        Outcome::Success => Verdict::Passed,
        Outcome::Failure if libtest::does_not_build(&followed.log) => Verdict::Failed(DOES_NOT_BUILD.to_owned()),
        Outcome::Failure if counts.failed == 0 => {
            Verdict::Failed("a test binary died before it could count".to_owned())
        }
        Outcome::Failure => Verdict::Failed(format!("{} tests failed", counts.failed)),
    };
    Ok(Finding { verdict, counts })
}

fn inside(code: std::process::ExitCode, remedy: &str) -> Finding {
    let passed = code == std::process::ExitCode::SUCCESS;
    Finding::of(if passed { Verdict::Passed } else { Verdict::Failed(remedy.to_owned()) })
}

fn reachable(host: &str) -> bool {
    let connect = || -> Result<TcpStream> {
        let address = host.to_socket_addrs()?.next().context("no address")?;
        Ok(TcpStream::connect_timeout(&address, Duration::from_secs(3))?)
    };
    connect().is_ok()
}
