//! What packaging asks for: completions, the manual page, and the names of the metrics.

use std::io::{self, Write as _};

use clap::CommandFactory as _;

use super::Cli;
use crate::serve::metrics::METRICS;

/// Print completions for a shell
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  tidegate completions bash > /etc/bash_completion.d/tidegate")]
pub(super) struct CompletionsArgs {
    /// For which shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

/// Print the manual page
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  tidegate man > /usr/local/share/man/man1/tidegate.1")]
pub(super) struct ManArgs {}

pub(super) fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tidegate", &mut text);
    Ok(io::stdout().lock().write_all(&text)?)
}

pub(super) fn man(_args: &ManArgs) -> anyhow::Result<()> {
    Ok(clap_mangen::Man::new(Cli::command()).render(&mut io::stdout().lock())?)
}

pub(super) fn metrics_names() -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    for metric in METRICS {
        writeln!(out, "{}", metric.name)?;
    }
    Ok(())
}
