//! `tidegate diff`: what two profiles differ in.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;

use super::formats;
use super::read::read_profile;
use super::record::write_out;
use crate::profile::{Base, diff, diff_svg, diff_text};
use crate::units::ProfileKind;

/// Compare two profiles: what grew and what shrank, as shares, so that a busier hour is no slower function
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Files are folded lines, the output of `perf script`, or recordings of `tidegate record --format events`.
A change that chance explains is not called growth: standard errors stand beside each figure.

Examples:
  tidegate diff before.folded after.folded
  tidegate diff before.folded after.folded -o diff.svg
  tidegate diff yesterday.events today.events --text --top 5"
)]
pub struct DiffArgs {
    /// The profile of before
    #[arg(value_name = "BEFORE")]
    before: PathBuf,
    /// The profile of after
    #[arg(value_name = "AFTER")]
    after: PathBuf,
    /// What their values are
    #[arg(long, value_name = "KIND", default_value = "cpu", value_parser = formats::kind())]
    kind: ProfileKind,
    /// Write a differential flame graph here, red grew, blue shrank; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print the ranked text too when a graph is written
    #[arg(long)]
    text: bool,
    /// Whose widths the graph has: what is gone afterwards is seen in that of before only
    #[arg(long, value_enum, default_value_t)]
    base: Widths,
    /// Lines of text each way
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,
}

/// Whose widths a graph has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Widths {
    /// Those of before
    Before,
    /// Those of after
    #[default]
    After,
}

impl From<Widths> for Base {
    fn from(widths: Widths) -> Self {
        match widths {
            Widths::Before => Self::Before,
            Widths::After => Self::After,
        }
    }
}

/// Runs the command.
pub fn run(args: &DiffArgs) -> anyhow::Result<()> {
    let (before, after) = (read_profile(&args.before, args.kind)?, read_profile(&args.after, args.kind)?);
    let diff = diff(&before, &after);
    if let Some(path) = &args.output {
        let subtitle = format!("{} to {}", args.before.display(), args.after.display());
        let title = format!("{}, difference", after.kind.title());
        write_out(path, &diff_svg(&diff, args.base.into(), &title, &subtitle)?)?;
    }
    if args.text || args.output.is_none() {
        let text = diff_text(&diff, args.top);
        std::io::stdout().lock().write_all(text.as_bytes()).context("write to standard output")?;
    }
    Ok(())
}
