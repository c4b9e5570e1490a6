//! Builds the kernel side and leaves its object in `OUT_DIR`, where `kernel::load` embeds it.

fn main() -> anyhow::Result<()> {
    #[cfg(feature = "ebpf")]
    ebpf::build()?;
    Ok(())
}

#[cfg(feature = "ebpf")]
mod ebpf {
    use std::{env, fs, path::Path};

    use anyhow::Context as _;
    use aya_build::{Package, Toolchain, build_ebpf};

    /// Written by `cargo xtask setup`: name of the toolchain, and the word `bootstrap` where it is a stable compiler.
    const CHOICE: &str = "../target/.ebpf-toolchain";

    pub(super) fn build() -> anyhow::Result<()> {
        println!("cargo:rerun-if-env-changed=TIDEGATE_EBPF_TOOLCHAIN");
        println!("cargo:rerun-if-changed={CHOICE}");
        println!("cargo:rerun-if-changed=../agent-common");
        let choice = env::var("TIDEGATE_EBPF_TOOLCHAIN")
            .or_else(|_unset| fs::read_to_string(CHOICE))
            .unwrap_or_else(|_unwritten| "nightly".to_owned());
        let mut words = choice.split_whitespace();
        let toolchain = words.next().unwrap_or("nightly");
        if words.next() == Some("bootstrap") {
            // SAFETY: a build script, and no other thread runs yet.
            unsafe { set_bootstrap() };
        }
        let root_dir = Path::new("../agent-ebpf").canonicalize().context("find the kernel side")?;
        let root_dir = root_dir.to_str().context("the path of the kernel side is not UTF-8")?;
        let features: &[&str] = if cfg!(feature = "debug-log") { &["debug-log"] } else { &[] };
        let package = Package { name: "agent-ebpf", root_dir, no_default_features: false, features };
        build_ebpf([package], Toolchain::Custom(toolchain)).context(
            "build the probes: `cargo xtask setup` installs what this needs; --no-default-features does without",
        )
    }

    #[expect(clippy::disallowed_methods, reason = "the compiler reads this switch from the environment only")]
    unsafe fn set_bootstrap() {
        // SAFETY: handed on to the caller.
        unsafe { env::set_var("RUSTC_BOOTSTRAP", "1") };
    }
}
