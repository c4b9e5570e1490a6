//! `tidegate flame`: a flame graph of a past span, or of what changed between two, from the running agent.

use std::path::PathBuf;

use hyper::Method;

use super::client::{AgentAt, ask};
use super::record::write_out;
use crate::profile::Format;
use crate::units::ProfileKind;

/// Draw a flame graph of a past span, or of what changed between two, asked of the running agent
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Times are `now`, a span before it (-60s, -500ms, -5m, -1h, -2d), or a date (2026-05-04T12:00:00Z).
An ordinary user gets the profiles of his own processes.

Examples:
  tidegate flame -o host.svg
  tidegate flame --pid 4242 --from -10m --to -5m -o then.svg
  tidegate flame --kind offcpu --seconds 10 -o waits.svg        record it now, for ten seconds
  tidegate flame --diff-from -2h..-1h --diff-to -1h..now -o diff.svg
  tidegate flame --from -5m --diff-from -1h --text              what grew, in words
  tidegate flame --format folded -o - | sort -k2 -n | tail"
)]
pub struct FlameArgs {
    #[command(flatten)]
    agent: AgentAt,
    #[command(flatten)]
    whose: WhoseArgs,
    /// What it shows: cpu, offcpu, runq, wall, wakeup or sock
    #[arg(long, value_name = "KIND", default_value = "cpu", value_parser = kind)]
    kind: ProfileKind,
    /// Start of the span
    #[arg(long, value_name = "TIME", default_value = "-60s", allow_hyphen_values = true)]
    from: String,
    /// End of the span
    #[arg(long, value_name = "TIME", default_value = "now", allow_hyphen_values = true)]
    to: String,
    /// Record the kind from now on for so many seconds, instead of looking back
    #[arg(long, value_name = "N", conflicts_with_all = ["from", "to", "diff_from", "diff_to"])]
    seconds: Option<u64>,
    /// Compare with this span of before: START..END, or START alone for one as long as the other
    #[arg(long, value_name = "SPAN", allow_hyphen_values = true)]
    diff_from: Option<String>,
    /// The span that is compared, START..END, instead of --from and --to
    #[arg(long, value_name = "SPAN", allow_hyphen_values = true, requires = "diff_from", conflicts_with_all = ["from", "to"])]
    diff_to: Option<String>,
    /// Print what grew and what shrank, ranked, instead of a graph
    #[arg(long, requires = "diff_from", conflicts_with = "format")]
    text: bool,
    /// What to write: svg, folded, json, pprof, speedscope, firefox or otlp
    #[arg(long, value_name = "FORMAT", default_value = "svg", value_parser = format)]
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

/// A kind of profiles by its name.
pub fn kind(text: &str) -> Result<ProfileKind, String> {
    text.parse().map_err(|bad: crate::units::NoSuchKind| bad.to_string())
}

fn format(text: &str) -> Result<Format, String> {
    let known = || Format::ALL.map(Format::name).join(", ");
    Format::ALL.into_iter().find(|f| f.name() == text).ok_or_else(|| format!("no such format: there are {}", known()))
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
    let FlameArgs { agent: _, whose, kind, from, to, seconds, diff_from, diff_to, text, format, output: _ } = args;
    let mut query = whose.query();
    let Some(before) = diff_from else {
        match seconds {
            Some(seconds) => query.push(("seconds", seconds.to_string())),
            None => query.extend([("from", from.clone()), ("to", to.clone())]),
        }
        query.push(("format", format.name().to_owned()));
        return Ok(with_query(&format!("/v1/profiles/{kind}"), &query));
    };
    anyhow::ensure!(
        *format == Format::Svg,
        "a comparison is drawn as svg or told by --text, not as {} (take two profiles and `tidegate diff`)",
        format.name()
    );
    match diff_to.as_deref().map(|span| ends(span).ok_or(span)) {
        None => query.extend([("from", from.clone()), ("to", to.clone())]),
        Some(Ok((start, end))) => query.extend([("from", start.to_owned()), ("to", end.to_owned())]),
        Some(Err(span)) => query.extend([("from", span.to_owned()), ("to", "now".to_owned())]),
    }
    match ends(before) {
        Some((start, end)) => query.extend([("diff_from", start.to_owned()), ("diff_to", end.to_owned())]),
        None => query.push(("diff_from", before.clone())),
    }
    query.push(("format", if *text { "text" } else { "svg" }.to_owned()));
    Ok(with_query(&format!("/v1/profiles/{kind}/diff"), &query))
}

fn ends(span: &str) -> Option<(&str, &str)> {
    span.split_once("..").filter(|(start, end)| !start.is_empty() && !end.is_empty())
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
                &["--diff-from", "-2h..-1h", "--diff-to", "-1h..now", "--text"],
                "cpu/diff?from=-1h&to=now&diff_from=-2h&diff_to=-1h&format=text",
            ),
            (&["--diff-from", "-1h", "--from", "-5m"], "cpu/diff?from=-5m&to=now&diff_from=-1h&format=svg"),
        ] {
            assert_eq!(asked(line), Ok(format!("/v1/profiles/{query}")), "{line:?}");
        }
        for (line, says) in [
            (&["--kind", "gpu"][..], "offcpu"),
            (&["--format", "png"], "speedscope"),
            (&["--diff-to", "-1h..now"], "--diff-from"),
            (&["--seconds", "5", "--from", "-5m"], "cannot be used"),
            (&["--diff-from", "-1h", "--format", "pprof"], "tidegate diff"),
        ] {
            let told = asked(line).unwrap_err();
            assert!(told.contains(says), "{line:?}: {told}");
        }
    }
}
