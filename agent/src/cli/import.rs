//! `tidegate import`: profiles of other tools, drawn or converted.

use std::path::PathBuf;

use super::formats;
use super::read::read_profile;
use super::record::write_out;
use crate::profile::{About, Format, write};
use crate::units::ProfileKind;

/// Draw or convert a profile of another tool: folded lines, the output of `perf script`, or a recording
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  tidegate import stacks.folded -o stacks.svg
  perf script | tidegate import - --format pprof -o perf.pb.gz
  tidegate import host.events --format firefox -o host.json")]
pub struct ImportArgs {
    /// File to read; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What its values are
    #[arg(long, value_name = "KIND", default_value = "cpu", value_parser = formats::kind())]
    kind: ProfileKind,
    /// What to write
    #[arg(long, value_name = "FORMAT", default_value = "svg", value_parser = formats::format())]
    format: Format,
    /// Where to write; `-` is standard output [default: the file's name with the suffix of the format]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &ImportArgs) -> anyhow::Result<()> {
    let profile = read_profile(&args.file, args.kind)?;
    let whose = args.file.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let about = About { whose: whose.clone(), ..About::default() };
    let stem = if args.file.as_os_str() == "-" { "profile".to_owned() } else { whose };
    let path = args.output.clone().unwrap_or_else(|| formats::file_of(args.format, &stem));
    anyhow::ensure!(path != args.file, "{} would be overwritten by its own import: give -o", path.display());
    write_out(&path, &write(&profile, args.format, &about)?)
}
