//! `tidegate tune`: why the settings are what they are, and the human's hand on them.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use hyper::Method;
use tidegate_client::abi::{
    BoundRange, BoundsRequest, Knobs, Mode, ModeRequest, Objective, OverrideRequest, Registration, WatchedProcess,
};

use super::client::{AgentAt, ask, get};
use super::pipelines::{list, pipeline_path};
use super::watching::Output;
use super::why::{draw, why};
use crate::serve::reply::{HealthJson, PipelineJson};

/// Say why settings are what they are; pin, free, bound or roll them back, pause or resume all tuning
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Owners may ask why, set mode and bounds of their pipelines, and watch processes of their own; the rest is \
                  for root and for the group tidegate-tune.

Examples:
  tidegate tune why ingest
  tidegate tune why ingest --flame change.svg
  tidegate tune watch shipper --pid 4242 --event-bytes 512
  sudo tidegate tune pin ingest --batch-bytes 262144 --flush-interval 20ms --for 10m
  sudo tidegate tune free ingest
  tidegate tune mode ingest canary
  tidegate tune bounds ingest --flush-interval 2ms..50ms
  sudo tidegate tune roll-back ingest
  sudo tidegate tune pause"
)]
pub struct TuneArgs {
    #[command(flatten)]
    at: AgentAt,
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum What {
    /// The newest decisions of a pipeline, each with its inputs and its reason
    Why {
        /// Its name
        name: String,
        /// How many
        #[arg(short = 'n', long, value_name = "N", default_value_t = 5)]
        newest: usize,
        /// Draw what the newest change did to the pipeline's CPU time: the ten seconds before it against those after
        #[arg(long, value_name = "FILE")]
        flame: Option<PathBuf>,
        /// The change to draw, by its number, instead of the newest
        #[arg(long, value_name = "N", requires = "flame")]
        decision: Option<u64>,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Where the control of all pipelines stands
    Status {
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Hold settings of a pipeline: the agent keeps its hands off
    Pin {
        /// Its name
        name: String,
        /// Batch size, bytes
        #[arg(long, value_name = "BYTES", required_unless_present = "flush_interval")]
        batch_bytes: Option<u64>,
        /// Flush interval, such as 20ms, 500us or 1s
        #[arg(long, value_name = "TIME", value_parser = span)]
        flush_interval: Option<Duration>,
        /// Ends by itself after this time, such as 10m; without it, when freed
        #[arg(long = "for", value_name = "TIME", value_parser = span)]
        ttl: Option<Duration>,
    },
    /// Give a pinned pipeline back to the agent
    Free {
        /// Its name
        name: String,
    },
    /// Say whether the agent may act on a pipeline
    Mode {
        /// Its name
        name: String,
        /// observe: advice only; canary: on trial; on: applied; manual: hands off
        #[arg(value_parser = mode)]
        mode: Mode,
    },
    /// Narrow what the agent may choose from, within what the pipeline registered
    Bounds {
        /// Its name
        name: String,
        /// Batch size, bytes, such as 4096..262144
        #[arg(long, value_name = "MIN..MAX", value_parser = bytes_range, required_unless_present = "flush_interval")]
        batch_bytes: Option<BoundRange>,
        /// Flush interval, such as 500us..50ms
        #[arg(long, value_name = "MIN..MAX", value_parser = span_range)]
        flush_interval: Option<BoundRange>,
    },
    /// Take the newest change of a pipeline back
    RollBack {
        /// Its name
        name: String,
    },
    /// Look at a process that was never changed: advice from what the kernel tells of it, for as long as it runs
    Watch {
        /// A name for it
        name: String,
        /// The process
        #[arg(short, long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
        pid: u32,
        /// Size of an event as it comes in, bytes; without it everything is told in bytes and nothing is advised
        #[arg(long, value_name = "BYTES")]
        event_bytes: Option<u64>,
        /// Wanted 99th percentile of the latency
        #[arg(long, value_name = "TIME", value_parser = span)]
        p99: Option<Duration>,
    },
    /// Look at a process no more
    Unwatch {
        /// Its name
        name: String,
    },
    /// Stop all tuning: settings stay where they are
    Pause,
    /// Go on tuning
    Resume,
}

/// Runs the command.
pub fn run(args: &TuneArgs) -> anyhow::Result<()> {
    let socket = &args.at.socket;
    let done = |line: String| anyhow::Ok(writeln!(std::io::stdout(), "{line}")?);
    match &args.what {
        What::Why { name, newest, flame, decision, output } => {
            why(socket, name, *newest, *output)?;
            flame.as_ref().map_or(Ok(()), |file| draw(socket, name, *decision, file))
        }
        What::Status { output } => status(&args.at, *output),
        What::Pin { name, batch_bytes, flush_interval, ttl } => {
            let request = OverrideRequest {
                batch_bytes: *batch_bytes,
                flush_interval_us: flush_interval.map(micros),
                ttl_s: ttl.map(|t| t.as_secs().max(1)),
            };
            ask(socket, Method::PUT, &pipeline_path(name, "/override"), Some(serde_json::to_vec(&request)?))?;
            done(format!("{name} is pinned; `tidegate tune free {name}` gives it back"))
        }
        What::Free { name } => {
            ask(socket, Method::DELETE, &pipeline_path(name, "/override"), None)?;
            done(format!("{name} is the agent's again"))
        }
        What::Mode { name, mode } => {
            let request = serde_json::to_vec(&ModeRequest { mode: *mode })?;
            ask(socket, Method::POST, &pipeline_path(name, "/mode"), Some(request))?;
            done(format!("{name}: {}", told(*mode)))
        }
        What::Bounds { name, batch_bytes, flush_interval } => {
            let request = BoundsRequest { batch_bytes: *batch_bytes, flush_interval_us: *flush_interval };
            ask(socket, Method::PUT, &pipeline_path(name, "/bounds"), Some(serde_json::to_vec(&request)?))?;
            done(format!("{name} has these bounds from now on; `tidegate pipelines show {name}` shows them"))
        }
        What::RollBack { name } => {
            ask(socket, Method::POST, &pipeline_path(name, "/rollback"), None)?;
            done(format!("{name} gets its last settings but one; `tidegate tune why {name}` shows them"))
        }
        What::Watch { name, pid, event_bytes, p99 } => {
            let request = watch(*pid, *event_bytes, *p99);
            ask(socket, Method::PUT, &pipeline_path(name, ""), Some(serde_json::to_vec(&request)?))?;
            done(format!("process {pid} is watched; `tidegate pipelines show {name}` says what is seen of it"))
        }
        What::Unwatch { name } => {
            ask(socket, Method::DELETE, &pipeline_path(name, ""), None)?;
            done(format!("{name} is watched no more"))
        }
        What::Pause => {
            ask(socket, Method::POST, "/v1/tuning/pause", None)?;
            done("tuning is paused; settings stay where they are".to_owned())
        }
        What::Resume => {
            ask(socket, Method::POST, "/v1/tuning/resume", None)?;
            done("tuning goes on".to_owned())
        }
    }
}

/// What asks for a look at a process. Its own bounds are not known: advice has the widest that make sense.
fn watch(pid: u32, event_bytes: Option<u64>, p99: Option<Duration>) -> Registration {
    let objective = Objective {
        p99_ms: p99.map(|p99| u64::try_from(p99.as_millis()).unwrap_or(u64::MAX).max(1)),
        ..Objective::default()
    };
    let watch = Some(WatchedProcess { pid, event_bytes });
    Registration { objective, watch, ..Registration::new(Knobs::default()) }
}

fn told(mode: Mode) -> &'static str {
    match mode {
        Mode::Observe => "decisions are advice, the pipeline runs on its own settings",
        Mode::Canary => "decisions are applied on trial",
        Mode::On => "decisions are applied",
        Mode::Manual => "the agent keeps its hands off",
    }
}

fn status(at: &AgentAt, output: Output) -> anyhow::Result<()> {
    let pipelines: Vec<PipelineJson> = get(&at.socket, "/v1/pipelines")?;
    let mut out = std::io::stdout().lock();
    if output == Output::Json {
        serde_json::to_writer_pretty(&mut out, &pipelines)?;
        return Ok(writeln!(out)?);
    }
    let health: HealthJson = get(&at.socket, "/v1/health")?;
    writeln!(out, "tuning {}, {} pipelines", if health.paused { "paused" } else { "on" }, pipelines.len())?;
    if !pipelines.is_empty() {
        writeln!(out, "{}", list(&pipelines))?;
    }
    Ok(())
}

fn mode(text: &str) -> Result<Mode, String> {
    serde_json::from_value(text.into()).map_err(|_unknown| "want observe, canary, on or manual".to_owned())
}

/// A range of bytes such as `4096..262144`.
fn bytes_range(text: &str) -> Result<BoundRange, String> {
    let bytes = |text: &str| text.parse().map_err(|_no_number| "want whole bytes".to_owned());
    range(text, bytes, "4096..262144")
}

/// A range of spans such as `500us..50ms`, in microseconds.
fn span_range(text: &str) -> Result<BoundRange, String> {
    range(text, |text| span(text).map(micros), "500us..50ms")
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

fn range(text: &str, one: impl Fn(&str) -> Result<u64, String>, like: &str) -> Result<BoundRange, String> {
    let want = || format!("want MIN..MAX, the smaller first, such as {like}");
    let (min, max) = text.split_once("..").ok_or_else(want)?;
    let range = BoundRange { min: one(min)?, max: one(max)? };
    if range.min <= range.max { Ok(range) } else { Err(want()) }
}

/// A span such as `20ms`, `500us`, `10m`.
fn span(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: Option<u64> = number.parse().ok();
    let micros: Option<u64> = match unit {
        "us" | "µs" => Some(1),
        "ms" => Some(1_000),
        "s" => Some(1_000_000),
        "m" => Some(60_000_000),
        "h" => Some(3_600_000_000),
        _ => None,
    };
    match number.zip(micros).and_then(|(n, unit)| n.checked_mul(unit)).filter(|us| *us > 0) {
        Some(us) => Ok(Duration::from_micros(us)),
        None => Err("want a whole number with a unit: us, ms, s, m or h, such as 20ms".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_need_a_unit() {
        assert_eq!(span("20ms"), Ok(Duration::from_millis(20)));
        assert_eq!(span("500us"), Ok(Duration::from_micros(500)));
        for bad in ["", "20", "ms", "0ms", "-1s", "1.5s", "99999999999999h"] {
            assert!(span(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn ranges_name_both_ends_the_smaller_first() {
        assert_eq!(span_range("500us..50ms"), Ok(BoundRange { min: 500, max: 50_000 }));
        assert_eq!(bytes_range("1..1"), Ok(BoundRange { min: 1, max: 1 }));
        for bad in ["", "5ms", "50ms..5ms", "..5ms", "1..2"] {
            assert!(span_range(bad).is_err(), "{bad:?} was taken");
        }
        assert!(bytes_range("2..1").is_err_and(|e| e.contains("4096..262144")));
    }

    #[test]
    fn modes_are_named_as_a_registration_names_them() {
        assert_eq!(mode("canary"), Ok(Mode::Canary));
        assert!(mode("off").is_err_and(|e| e.contains("observe, canary, on or manual")));
    }
}
