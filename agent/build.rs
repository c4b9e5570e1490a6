//! Builds the kernel side and leaves its object in `OUT_DIR`, where `kernel::load` embeds it.

#[cfg(not(feature = "ebpf"))]
fn main() {}

#[cfg(feature = "ebpf")]
fn main() -> anyhow::Result<()> {
    ebpf::build()
}

#[cfg(feature = "ebpf")]
mod ebpf {
    use std::{env, fs, path::Path, process::Command};

    use anyhow::{Context as _, ensure};
    use aya_build::{Package, Toolchain, build_ebpf};

    /// Written by `cargo xtask setup`: name of the toolchain, and the word `bootstrap` where it is a stable compiler.
    const CHOICE: &str = "../target/.ebpf-toolchain";
    /// Lets a stable compiler take the unstable switches that building `core` needs.
    const BOOTSTRAP: &str = "RUSTC_BOOTSTRAP";

    pub(super) fn build() -> anyhow::Result<()> {
        println!("cargo:rerun-if-env-changed=TIDEGATE_EBPF_TOOLCHAIN");
        println!("cargo:rerun-if-changed={CHOICE}");
        println!("cargo:rerun-if-changed=../agent-common");
        let choice = env::var("TIDEGATE_EBPF_TOOLCHAIN")
            .or_else(|_unset| fs::read_to_string(CHOICE))
            .unwrap_or_else(|_unwritten| "nightly".to_owned());
        let mut words = choice.split_whitespace();
        let toolchain = words.next().unwrap_or("nightly");
        if words.next() == Some("bootstrap") && env::var_os(BOOTSTRAP).is_none() {
            // The switch is read from the environment alone: this program runs once more, with it set.
            let again = Command::new(env::current_exe()?).env(BOOTSTRAP, "1").status()?;
            ensure!(again.success(), "the kernel side did not build with {toolchain}");
            return Ok(());
        }
        let root_dir = Path::new("../agent-ebpf").canonicalize().context("find the kernel side")?;
        let root_dir = root_dir.to_str().context("the path of the kernel side is not UTF-8")?;
        let features: &[&str] = if cfg!(feature = "debug-log") { &["debug-log"] } else { &[] };
        let package = Package { name: "agent-ebpf", root_dir, no_default_features: false, features };
        build_ebpf([package], Toolchain::Custom(toolchain)).context(
            "build the probes: `cargo xtask setup` installs what this needs; --no-default-features does without",
        )
    }
}
