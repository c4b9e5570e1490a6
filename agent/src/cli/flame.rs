//! `tidegate flame`: a flame graph of a past span, from the running agent.

/// Draw a flame graph of a past span, asked of the running agent
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  tidegate flame")]
pub struct FlameArgs {}

/// Runs the command.
pub fn run(_args: &FlameArgs) -> anyhow::Result<()> {
    anyhow::bail!("`tidegate flame` is not in this build")
}
