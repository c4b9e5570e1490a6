//! `tidegate record`: a profile without a daemon.

/// Record a profile of this host or of a process, without a daemon
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  tidegate record")]
pub struct RecordArgs {}

/// Runs the command.
pub fn run(_args: &RecordArgs) -> anyhow::Result<()> {
    anyhow::bail!("`tidegate record` is not in this build")
}
