//! `tidegate simulate`: the control loop against a simulated host.

/// Run the control loop against a simulated host
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  tidegate simulate")]
pub struct SimulateArgs {}

/// Runs the command.
pub fn run(_args: &SimulateArgs) -> anyhow::Result<()> {
    anyhow::bail!("`tidegate simulate` is not in this build")
}
