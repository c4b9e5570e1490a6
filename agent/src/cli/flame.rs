//! `tidegate flame`: a flame graph of a past span, or of what changed between two, from the running agent.

use std::path::PathBuf;

use hyper::Method;

use super::client::{AgentAt, ask};
use super::formats;
use super::record::write_out;
use super::span::SpanArgs;
use crate::profile::Format;

/// Draw a flame graph of a past span, or of what changed between two, asked of the running agent
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Times are `now`, a span before it (-60s, -500ms, -5m, -1h, -2d), or a date (2026-05-04T12:00:00Z).
An ordinary user gets the profiles of his own processes.

Examples:
  tidegate flame -o host.svg
  tidegate flame --pid 4242 --from -10m --to -5m -o then.svg
  tidegate flame --kind offcpu --seconds 10 -o waits.svg        record it now, for ten seconds
  tidegate flame --from -1h --diff-from -2h --diff-to -1h -o diff.svg
  tidegate flame --from -5m --diff-from -1h --text              what grew, in words
  tidegate flame --format folded -o - | sort -k2 -n | tail"
)]
pub struct FlameArgs {
    #[command(flatten)]
    agent: AgentAt,
    #[command(flatten)]
    whose: WhoseArgs,
    #[command(flatten)]
    span: SpanArgs,
    /// Record the kind from now on for so many seconds, instead of looking back
    #[arg(long, value_name = "N", conflicts_with_all = ["from", "to", "diff_from", "diff_to"])]
    seconds: Option<u64>,
    /// Print what grew and what shrank, ranked, instead of a graph
    #[arg(long, requires = "diff_from", conflicts_with = "format")]
    text: bool,
    /// What to write
    #[arg(long, value_name = "FORMAT", default_value = "svg", value_parser = formats::format())]
    format: Format,
    /// Where to write; `-` is standard output [default: flame.svg, or as the format is named; text to standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Whose profile it shall be.
#[derive(Clone, Debug, clap::Args)]
pub struct WhoseArgs {
    /// Only this process
    #[arg(short, long, value_name = "PID")]
    pid: Option<u32>,
    /// Only this cgroup and those below it
    #[arg(long, value_name = "PATH")]
    cgroup: Option<String>,
    /// Only the container whose id begins so
    #[arg(long, value_name = "ID")]
    container: Option<String>,
    /// Only threads of this name
    #[arg(long, value_name = "NAME")]
    comm: Option<String>,
}

impl WhoseArgs {
    /// As arguments of a query.
    pub fn query(&self) -> Vec<(&'static str, String)> {
        let Self { pid, cgroup, container, comm } = self;
        let pid = pid.map(|pid| ("pid", pid.to_string()));
        let rest = [("cgroup", cgroup), ("container", container), ("comm", comm)];
        pid.into_iter().chain(rest.into_iter().filter_map(|(key, value)| Some((key, value.clone()?)))).collect()
    }
}

/// Runs the command.
pub fn run(args: &FlameArgs) -> anyhow::Result<()> {
    let answer = ask(&args.agent.socket, Method::GET, &path(args)?, None)?;
    if let Some(trouble) = &answer.incomplete {
        tracing::warn!("the answer is not complete: {trouble}");
    }
    let usual = if args.text { "-".into() } else { PathBuf::from(format!("flame.{}", args.format.suffix())) };
    write_out(args.output.as_ref().unwrap_or(&usual), &answer.body)
}

fn path(args: &FlameArgs) -> anyhow::Result<String> {
    let FlameArgs { agent: _, whose, span, seconds, text, format, output: _ } = args;
    let kind = span.kind;
    let mut query = whose.query();
    match seconds {
        Some(seconds) => query.push(("seconds", seconds.to_string())),
        None => query.extend(span.query()),
    }
    if span.diff_from.is_none() {
        query.push(("format", format.name().to_owned()));
        return Ok(with_query(&format!("/v1/profiles/{kind}"), &query));
    }
    anyhow::ensure!(
        *format == Format::Svg,
        "a comparison is drawn as svg or told by --text, not as {} (take two profiles and `tidegate diff`)",
        format.name()
    );
    query.push(("format", if *text { "text" } else { "svg" }.to_owned()));
    Ok(with_query(&format!("/v1/profiles/{kind}/diff"), &query))
}

/// A path with its query: whatever somebody typed goes over as he typed it.
pub fn with_query(path: &str, query: &[(&'static str, String)]) -> String {
    let mut text = path.to_owned();
    for (nth, (key, value)) in query.iter().enumerate() {
        text.push(if nth == 0 { '?' } else { '&' });
        text.push_str(key);
        text.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~/:@".contains(&byte) {
                text.push(char::from(byte));
            } else {
                const HEX: &[u8; 16] = b"0123456789ABCDEF";
                let digit = |nibble: u8| char::from(HEX[usize::from(nibble & 15)]);
                text.extend(['%', digit(byte >> 4), digit(byte)]);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: FlameArgs,
    }

    fn asked(line: &[&str]) -> Result<String, String> {
        let line = Line::try_parse_from(["flame"].iter().chain(line)).map_err(|e| e.to_string())?;
        path(&line.args).map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_typed_becomes_the_query_it_means() {
        for (line, query) in [
            (&[][..], "cpu?from=-60s&to=now&format=svg"),
            (&["--pid", "7", "--from", "-5m", "--format", "pprof"], "cpu?pid=7&from=-5m&to=now&format=pprof"),
            (&["--kind", "wall", "--seconds", "5"], "wall?seconds=5&format=svg"),
            (&["--comm", "a&b=c é"], "cpu?comm=a%26b%3Dc%20%C3%A9&from=-60s&to=now&format=svg"),
            (
                &["--from", "-1h", "--diff-from", "-2h", "--diff-to", "-1h", "--text"],
                "cpu/diff?from=-1h&to=now&diff_from=-2h&diff_to=-1h&format=text",
            ),
            (&["--diff-from", "-1h", "--from", "-5m"], "cpu/diff?from=-5m&to=now&diff_from=-1h&format=svg"),
        ] {
            assert_eq!(asked(line), Ok(format!("/v1/profiles/{query}")), "{line:?}");
        }
        for (line, says) in [
            (&["--kind", "gpu"][..], "offcpu"),
            (&["--format", "png"], "speedscope"),
            (&["--diff-to", "-1h"], "--diff-from"),
            (&["--seconds", "5", "--from", "-5m"], "cannot be used"),
            (&["--diff-from", "-1h", "--format", "pprof"], "tidegate diff"),
        ] {
            let told = asked(line).unwrap_err();
            assert!(told.contains(says), "{line:?}: {told}");
        }
    }
}
