//! `tidegate flame`: a flame graph of a past span, from the running agent.

use std::path::PathBuf;

use hyper::Method;

use super::client::{AgentAt, ask};
use super::record::write_out;

/// Draw a flame graph of a past span, asked of the running agent
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Times are `now`, or a span before it: -60s, -500ms, -5m, -1h.

Examples:
  tidegate flame -o host.svg
  tidegate flame --pid 4242 --from -5m --to -1m -o then.svg
  tidegate flame --format folded -o - | sort -k2 -n | tail")]
pub struct FlameArgs {
    #[command(flatten)]
    agent: AgentAt,
    /// Only this process
    #[arg(short, long, value_name = "PID")]
    pid: Option<u32>,
    /// Start of the span
    #[arg(long, value_name = "TIME", default_value = "-60s", allow_hyphen_values = true)]
    from: String,
    /// End of the span
    #[arg(long, value_name = "TIME", default_value = "now", allow_hyphen_values = true)]
    to: String,
    /// What to write
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Where to write; `-` is standard output
    #[arg(short, long, value_name = "FILE", default_value = "flame.svg")]
    output: PathBuf,
}

/// What is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A flame graph
    #[default]
    Svg,
    /// Folded stacks: a line a stack, outermost frame first
    Folded,
    /// Stacks as JSON
    Json,
}

/// Runs the command.
pub fn run(args: &FlameArgs) -> anyhow::Result<()> {
    let format = match args.format {
        Format::Svg => "svg",
        Format::Folded => "folded",
        Format::Json => "json",
    };
    for time in [&args.from, &args.to] {
        let plain = time.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        anyhow::ensure!(
            plain && !time.is_empty(),
            "{time:?} is not a time: give `now` or a span before it such as -60s"
        );
    }
    let mut path = format!("/v1/profiles/cpu?from={}&to={}&format={format}", args.from, args.to);
    if let Some(pid) = args.pid {
        path = format!("{path}&pid={pid}");
    }
    let answer = ask(&args.agent.socket, Method::GET, &path, None)?;
    write_out(&args.output, &answer.body)
}
