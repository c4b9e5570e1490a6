//! `tidegate pipelines`: the registered pipelines, asked of the agent.

use std::io::Write;

use hyper::Method;

use super::client::{AgentAt, ask, get};
use super::table::{Cell, bytes, grouped, nanos, table};
use super::watching::Output;
use crate::serve::reply::PipelineJson;
use crate::units::{FlushInterval, Nanos};

/// List the registered pipelines, or show one
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Root sees all of them, anybody else his own.

Examples:
  tidegate pipelines
  tidegate pipelines -o json | jq '.[] | {name, batch_bytes, flush_interval_us}'
  tidegate pipelines show ingest")]
pub struct PipelinesArgs {
    #[command(flatten)]
    at: AgentAt,
    /// How to print
    #[arg(short, long, value_enum, default_value_t, global = true)]
    output: Output,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum What {
    /// All of them (the default)
    List,
    /// One of them, with its signals
    Show {
        /// Its name
        name: String,
    },
}

/// Runs the command.
pub fn run(args: &PipelinesArgs) -> anyhow::Result<()> {
    let path = match &args.what {
        None | Some(What::List) => "/v1/pipelines".to_owned(),
        Some(What::Show { name }) => pipeline_path(name, ""),
    };
    if args.output == Output::Json {
        return raw(args, &path);
    }
    let mut out = std::io::stdout().lock();
    match &args.what {
        None | Some(What::List) => {
            let pipelines: Vec<PipelineJson> = get(&args.at.socket, &path)?;
            if pipelines.is_empty() {
                writeln!(out, "no pipeline is registered")?;
            } else {
                writeln!(out, "{}", list(&pipelines))?;
            }
        }
        Some(What::Show { .. }) => detail(&mut out, &get(&args.at.socket, &path)?)?,
    }
    Ok(())
}

fn raw(args: &PipelinesArgs, path: &str) -> anyhow::Result<()> {
    let answer = ask(&args.at.socket, Method::GET, path, None)?;
    let mut out = std::io::stdout().lock();
    out.write_all(&answer.body)?;
    Ok(writeln!(out)?)
}

/// Path of a pipeline. A name with other characters than names have would change the path: it is sent escaped, and the
/// agent refuses it by name.
pub(super) fn pipeline_path(name: &str, rest: &str) -> String {
    let escaped: String = name
        .bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(b).to_string(),
            // A path of dots alone means another path.
            b => format!("%{b:02X}"),
        })
        .collect();
    format!("/v1/pipelines/{escaped}{rest}")
}

/// The table of pipelines.
pub(super) fn list(pipelines: &[PipelineJson]) -> String {
    let head = ["name", "pid", "user", "state", "events/s", "p99", "batch", "interval", "queue", "gen"];
    let rows = pipelines.iter().map(|p| {
        vec![
            Cell::text(&p.name),
            Cell::right(p.pid.to_string()),
            Cell::right(p.uid.to_string()),
            Cell::text(format!("{:?}", p.state).to_lowercase()),
            Cell::maybe(p.signals.rate.map(rounded)),
            Cell::maybe(p.signals.p99_ms.map(millis)),
            Cell::right(bytes(p.batch_bytes)),
            Cell::right(interval(p.flush_interval_us)),
            Cell::maybe(p.signals.queue_bytes.map(bytes)),
            Cell::right(p.generation.to_string()),
        ]
    });
    table(&head, rows).to_string()
}

fn detail(out: &mut impl Write, p: &PipelineJson) -> std::io::Result<()> {
    let knobs = p.bounds;
    let mut lines = vec![
        ("state", format!("{:?}", p.state).to_lowercase()),
        ("process", format!("{} of user {}", p.pid, p.uid)),
        ("batch", {
            let range = knobs.batch_bytes;
            format!(
                "{} (of {} to {}, own {})",
                bytes(p.batch_bytes),
                bytes(range.min),
                bytes(range.max),
                bytes(range.default)
            )
        }),
        ("interval", {
            let range = knobs.flush_interval_us;
            let [now, min, max, own] = [p.flush_interval_us, range.min, range.max, range.default].map(interval);
            format!("{now} (of {min} to {max}, own {own})")
        }),
        ("generation", p.generation.to_string()),
    ];
    lines.extend(super::why::inputs(&p.signals));
    for reason in &p.decisions_by_reason {
        lines.push(("decisions", format!("{} {}", grouped(reason.count), reason.reason)));
    }
    lines.extend(p.signals.degraded.iter().map(|why| ("degraded", why.clone())));
    let width = lines.iter().map(|(what, _)| what.len()).max().unwrap_or(0);
    writeln!(out, "{}", p.name)?;
    for (what, text) in lines {
        writeln!(out, "  {what:<width$}  {text}")?;
    }
    if let Some(evidence) = super::evidence::shown(&p.signals) {
        writeln!(out)?;
        evidence.lines().try_for_each(|line| writeln!(out, "  {line}"))?;
    } else if p.registration.watch.is_none() && p.signals.degraded.is_empty() {
        writeln!(
            out,
            "\n  what the kernel alone tells of it is gathered from now on, where this host allows it: ask again"
        )?;
    }
    Ok(())
}

/// A flush interval for the eye.
pub(super) fn interval(us: u64) -> String {
    nanos(Nanos::from(FlushInterval(us)).0)
}

/// Milliseconds for the eye.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float saturates, three digits are shown"
)]
pub(super) fn millis(ms: f64) -> String {
    nanos((ms * 1e6).round() as u64)
}

/// A figure in groups of three.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float saturates, rates are positive")]
pub(super) fn rounded(figure: f64) -> String {
    grouped(figure.round() as u64)
}
