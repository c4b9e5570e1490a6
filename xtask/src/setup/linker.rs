//! The BPF linker and the LLVM library below it, both of the LLVM that the kernel-side compiler was built with: bitcode
//! of a newer LLVM is refused by an older linker. Takes that version; never chooses one.

use anyhow::{Context, Result, bail};

use super::apt::{Apt, install_line};
use super::parse::{self, Llvm};
use super::{Intent, State, cargo_install};
use crate::shell::{self, Workspace, which};

/// The last line of releases that serves LLVM 22 and 23 alike.
pub(crate) const BPF_LINKER: &str = "0.13.0";

/// Versions of LLVM that this linker can be built for.
pub(crate) const LLVM_OF_LINKER: [Llvm; 3] = [Llvm(21), Llvm(22), Llvm(23)];

/// Debian's package of an LLVM's headers and library.
pub(crate) fn llvm_package(llvm: Llvm) -> String {
    format!("llvm-{}-dev", llvm.0)
}

/// The headers and the library to link against: the linker loads `libLLVM.so`, so nothing else is needed beside it.
pub(crate) fn llvm(apt: &mut Apt, llvm: Llvm, intent: Intent) -> Result<State> {
    let package = llvm_package(llvm);
    let config = prefix(llvm).join("bin/llvm-config");
    if config.exists() {
        return Ok(State::Ready(prefix(llvm).display().to_string()));
    }
    let line = install_line(&[&package]).join(" ");
    if intent == Intent::Look {
        return Ok(State::Missing(format!("`{line}`")));
    }
    apt.install(&[&package])?;
    if !config.exists() {
        bail!("{package} is installed, but {} is not there: look at `dpkg -L {package}`", config.display());
    }
    Ok(State::Mended(line))
}

/// The linker itself, built again when the one at hand belongs to another LLVM or is another release.
pub(crate) fn bpf_linker(workspace: &Workspace, llvm: Llvm, intent: Intent) -> Result<State> {
    if !LLVM_OF_LINKER.contains(&llvm) {
        bail!("bpf-linker {BPF_LINKER} cannot be built for LLVM {}: choose another toolchain", llvm.0);
    }
    let at_hand = at_hand(workspace)?;
    let wanted = AtHand { version: BPF_LINKER.to_owned(), llvm: Some(llvm) };
    if at_hand.as_ref() == Some(&wanted) {
        return Ok(State::Ready(format!("{BPF_LINKER}, LLVM {}", llvm.0)));
    }
    let mut install = cargo_install(workspace, "bpf-linker", BPF_LINKER);
    install.args(["--force", "--no-default-features", "--features", &format!("llvm-{}", llvm.0)]);
    // The final link looks at this variable only; the one of llvm-sys does not reach it.
    install.env("LLVM_PREFIX", prefix(llvm));
    let done = format!("LLVM_PREFIX={} {}", prefix(llvm).display(), shell::show(&install));
    if intent == Intent::Look {
        return Ok(State::Missing(format!("{}`{done}`", at_hand.map(AtHand::complaint).unwrap_or_default())));
    }
    shell::must("install bpf-linker (about 80 s on two cores)", &mut install)?;
    Ok(State::Mended(done))
}

#[derive(Debug, PartialEq, Eq)]
struct AtHand {
    version: String,
    llvm: Option<Llvm>,
}

impl AtHand {
    fn complaint(self) -> String {
        let llvm = self.llvm.map_or_else(|| "a static LLVM".to_owned(), |llvm| format!("LLVM {}", llvm.0));
        format!("there is {} with {llvm}; ", self.version)
    }
}

fn at_hand(workspace: &Workspace) -> Result<Option<AtHand>> {
    let Some(file) = which("bpf-linker") else { return Ok(None) };
    // A linker whose LLVM library was removed cannot even print its version: it counts as absent.
    let Ok(said) = shell::capture(workspace.command(&file).arg("--version")) else { return Ok(None) };
    let version = said.split_whitespace().last().unwrap_or_default().to_owned();
    let bytes = std::fs::read(&file).with_context(|| format!("read {}", file.display()))?;
    Ok(Some(AtHand { version, llvm: parse::linked_llvm(&bytes) }))
}

fn prefix(llvm: Llvm) -> std::path::PathBuf {
    std::path::PathBuf::from(format!("/usr/lib/llvm-{}", llvm.0))
}
