//! What exact syscall accounting adds to one system call, beside libbpf-tools `syscount -L` in the same run, with an
//! empty pair of probes as the floor. Takes nothing but the workspace, gives nanoseconds.

use anyhow::{Result, bail};

use super::Bench;

pub(crate) fn run(bench: &Bench<'_>) -> Result<()> {
    let Bench { workspace, json: _ } = bench;
    bail!("bench syscalls: {} holds no probes to measure yet", workspace.root.join("agent-ebpf").display())
}
