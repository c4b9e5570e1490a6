//! The compiler of the kernel side: it must take `-Z build-std`, have the sources of `core`, and be of an LLVM that
//! this machine can have. Looks at what is there first, installs second; never touches the compiler of the host side.

use anyhow::{Result, bail};

use super::apt::{Apt, install_line};
use super::linker::{LLVM_OF_LINKER, llvm_package};
use super::parse::{self, Compiler, Llvm};
use super::{Intent, State};
use crate::shell::{self, Workspace, which};

/// Overrides the choice.
const OVERRIDE: &str = "TIDEGATE_EBPF_TOOLCHAIN";
/// Name under which Debian's compiler is linked.
const DEBIAN: &str = "tidegate-debian";
const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "rust-web-src", "cargo-web"];

/// The toolchain that builds the kernel side.
#[derive(Clone, Debug)]
pub(crate) struct Toolchain {
    pub(crate) name: String,
    pub(crate) llvm: Llvm,
    pub(crate) unstable: Unstable,
}

/// How a compiler comes to accept `-Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unstable {
    /// It is a nightly.
    ByItself,
    /// It is a release, so `RUSTC_BOOTSTRAP=1` has to be set.
    Bootstrap,
}

pub(crate) struct Found {
    pub(crate) state: State,
    pub(crate) toolchain: Option<Toolchain>,
}

impl Toolchain {
    /// Leaves the choice where the agent's build script looks for it: beside the sources, wherever cargo builds to.
    pub(crate) fn record(&self, workspace: &Workspace) -> Result<()> {
        let word = match self.unstable {
            Unstable::ByItself => "",
            Unstable::Bootstrap => " bootstrap",
        };
        shell::write_if_changed(&workspace.root.join("target/.ebpf-toolchain"), &format!("{}{word}\n", self.name))
    }

    /// Sets what a call of this compiler needs; the agent's build script does the same for its own calls.
    pub(crate) fn prepare(&self, command: &mut std::process::Command) {
        if self.unstable == Unstable::Bootstrap {
            command.env("RUSTC_BOOTSTRAP", "1");
        }
    }
}

/// What is known of an installed toolchain.
#[derive(Clone, Debug)]
struct Candidate {
    name: String,
    compiler: Compiler,
    sources: Sources,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sources {
    Present,
    Absent,
}

impl Candidate {
    fn inspect(workspace: &Workspace, name: &str) -> Option<Self> {
        let run =
            |args: &[&str]| shell::capture(workspace.command("rustup").args(["run", name, "rustc"]).args(args)).ok();
        let compiler = parse::compiler(&run(&["-vV"])?)?;
        let core = std::path::Path::new(run(&["--print", "sysroot"])?.trim())
            .join("lib/rustlib/src/rust/library/core/src/lib.rs");
        let sources = if core.exists() { Sources::Present } else { Sources::Absent };
        Some(Self { name: name.to_owned(), compiler, sources })
    }

    fn toolchain(&self) -> Toolchain {
        let unstable = if self.compiler.is_nightly() { Unstable::ByItself } else { Unstable::Bootstrap };
        Toolchain { name: self.name.clone(), llvm: self.compiler.llvm, unstable }
    }

    fn describe(&self) -> String {
        format!("{} ({}, LLVM {})", self.name, self.compiler.release, self.compiler.llvm.0)
    }
}

/// The order in which toolchains are tried: those with sources first (so that a second run settles on what the first
/// one chose), nightlies before Debian's, the plain one before dated ones. Without a linker or a library of its LLVM a
/// toolchain is no use.
fn ranked(mut all: Vec<Candidate>, mut can_have: impl FnMut(Llvm) -> bool) -> Vec<Candidate> {
    all.retain(|candidate| {
        let kind = candidate.compiler.is_nightly() || candidate.name == DEBIAN;
        kind && LLVM_OF_LINKER.contains(&candidate.compiler.llvm) && can_have(candidate.compiler.llvm)
    });
    all.sort_by_key(|candidate| (candidate.sources, candidate.name == DEBIAN, !is_plain_nightly(&candidate.name)));
    all
}

/// `nightly` or `nightly-x86_64-unknown-linux-gnu`, but not `nightly-2026-05-20`.
fn is_plain_nightly(name: &str) -> bool {
    let rest = name.strip_prefix("nightly");
    rest.is_some_and(|rest| {
        rest.is_empty() || rest.strip_prefix('-').is_some_and(|r| !r.starts_with(|c: char| c.is_ascii_digit()))
    })
}

/// Finds or installs the toolchain.
pub(crate) fn find(workspace: &Workspace, apt: &mut Apt, intent: Intent) -> Result<Found> {
    if which("rustup").is_none() {
        bail!("rustup is missing: install Rust from https://rustup.rs, then run this again");
    }
    if let Ok(name) = std::env::var(OVERRIDE) {
        let Some(candidate) = Candidate::inspect(workspace, &name) else {
            bail!("{OVERRIDE}={name}: `rustup run {name} rustc -vV` fails: name an installed toolchain, or unset it");
        };
        return settle(workspace, &candidate, intent)
            .ok_or_else(|| anyhow::anyhow!("{OVERRIDE}={name} has no rust-src, and it cannot be added"));
    }
    let listed = parse::toolchains(&shell::capture(workspace.command("rustup").args(["toolchain", "list"]))?);
    let look = |names: &[String]| -> Vec<Candidate> {
        let fit = names.iter().filter(|name| name.starts_with("nightly") || *name == DEBIAN);
        fit.filter_map(|name| Candidate::inspect(workspace, name)).collect()
    };
    for candidate in ranked(look(&listed), |llvm| apt.can_have(&llvm_package(llvm), intent)) {
        if let Some(found) = settle(workspace, &candidate, intent) {
            return Ok(found);
        }
    }
    if intent == Intent::Look {
        let state =
            State::Missing("`rustup toolchain install nightly --profile minimal --component rust-src`".to_owned());
        return Ok(Found { state, toolchain: None });
    }
    if !listed.iter().any(|name| is_plain_nightly(name))
        && let Some(found) = install_nightly(workspace, apt)
    {
        return Ok(found);
    }
    install_debian(workspace, apt)
}

/// Takes a candidate, adding the sources of `core` where they are missing; nothing when they cannot be added.
fn settle(workspace: &Workspace, candidate: &Candidate, intent: Intent) -> Option<Found> {
    if candidate.sources == Sources::Present {
        let state = State::Ready(candidate.describe());
        return Some(Found { state, toolchain: Some(candidate.toolchain()) });
    }
    let mut add = workspace.command("rustup");
    add.args(["component", "add", "rust-src", "--toolchain", &candidate.name]);
    let line = shell::show(&add);
    if intent == Intent::Look {
        return Some(Found { state: State::Missing(format!("`{line}`")), toolchain: Some(candidate.toolchain()) });
    }
    if let Err(error) = shell::must(&format!("add rust-src to {}", candidate.name), &mut add) {
        crate::ui::note(format_args!("{error:#}: trying another toolchain"));
        return None;
    }
    Some(Found { state: State::Mended(line), toolchain: Some(candidate.toolchain()) })
}

fn install_nightly(workspace: &Workspace, apt: &mut Apt) -> Option<Found> {
    let mut install = workspace.command("rustup");
    install.args(["toolchain", "install", "nightly", "--profile", "minimal", "--component", "rust-src,clippy"]);
    let line = shell::show(&install);
    if let Err(error) = shell::must("install rustup's nightly", &mut install) {
        crate::ui::note(format_args!("{error:#}: trying Debian's compiler"));
        return None;
    }
    let fit = Candidate::inspect(workspace, "nightly").into_iter().collect();
    let fit = ranked(fit, |llvm| apt.can_have(&llvm_package(llvm), Intent::Mend));
    if fit.is_empty() {
        crate::ui::note("the newest nightly is of an LLVM that this machine cannot have: trying Debian's compiler");
    }
    let state = State::Mended(line);
    fit.first().map(|candidate| Found { state, toolchain: Some(candidate.toolchain()) })
}

fn install_debian(workspace: &Workspace, apt: &mut Apt) -> Result<Found> {
    let done = apt.install(&DEBIAN_PACKAGES).and_then(|()| {
        let mut link = workspace.command("rustup");
        shell::must("link Debian's compiler", link.args(["toolchain", "link", DEBIAN, "/usr"]))
    });
    let found = Candidate::inspect(workspace, DEBIAN);
    match (done, found) {
        (Ok(()), Some(candidate)) if candidate.sources == Sources::Present => {
            let state = State::Mended(format!("{}; linked as {DEBIAN}", install_line(&DEBIAN_PACKAGES).join(" ")));
            Ok(Found { state, toolchain: Some(candidate.toolchain()) })
        }
        (done, _) => {
            let cause = done.err().map(|error| format!(" ({error:#})")).unwrap_or_default();
            bail!(
                "no compiler for the kernel side can be had here{cause}. Either of these ways serves:\n  \
                 rustup toolchain install nightly --profile minimal --component rust-src,clippy\nor\n  \
                 sudo apt-get update\n  sudo {}\n  rustup toolchain link {DEBIAN} /usr\n\
                 then run `cargo xtask setup` again",
                install_line(&DEBIAN_PACKAGES).join(" ")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str, release: &str, llvm: u32, sources: Sources) -> Candidate {
        let compiler = Compiler { release: release.to_owned(), llvm: Llvm(llvm) };
        Candidate { name: name.to_owned(), compiler, sources }
    }

    fn order(all: Vec<Candidate>, can_have: impl FnMut(Llvm) -> bool) -> Vec<String> {
        ranked(all, can_have).into_iter().map(|candidate| candidate.name).collect()
    }

    #[test]
    fn a_nightly_comes_before_debians_compiler_and_a_stable_one_never() {
        let all = vec![
            candidate(DEBIAN, "1.96.0", 22, Sources::Present),
            candidate("stable", "1.96.0", 22, Sources::Present),
            candidate("nightly-2026-05-20-x86_64-unknown-linux-gnu", "1.97.0-nightly", 22, Sources::Present),
            candidate("nightly-x86_64-unknown-linux-gnu", "1.97.0-nightly", 22, Sources::Absent),
        ];
        let dated = "nightly-2026-05-20-x86_64-unknown-linux-gnu";
        let want = [dated, DEBIAN, "nightly-x86_64-unknown-linux-gnu"];
        assert_eq!(order(all, |_| true), want, "sources at hand come before those to be fetched");
    }

    #[test]
    fn a_nightly_whose_llvm_cannot_be_had_is_passed_over() {
        let all = vec![
            candidate("nightly", "1.99.0-nightly", 23, Sources::Present),
            candidate("nightly-old", "1.80.0-nightly", 18, Sources::Present),
            candidate(DEBIAN, "1.96.0", 22, Sources::Present),
        ];
        assert_eq!(order(all, |llvm| llvm == Llvm(22)), [DEBIAN]);
    }
}
