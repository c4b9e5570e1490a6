//! A pipeline under load for as long as its starter wants to know how fast it runs: each line of standard input asks for
//! one stretch, and its throughput comes out as a line of JSON. It goes on over the coming and going of agents, so that two
//! stretches beside each other differ in the agent alone: the agent looks and advises, the settings stay.

use std::io::BufRead as _;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::super::cli::BenchCostArgs;
use crate::compare::children::Part;
use crate::compare::cpu::Cpus;
use crate::out::json_line;
use crate::pipeline::{Started, Stats};
use crate::sink::Listening;
use crate::sweep::closed_loop::{self, Loop};

/// As many as keep the pipeline busy: eight of its batches.
const CONCURRENCY: u64 = 4_096;
const RECORD_BYTES: usize = 512;

/// What is told when it is ready.
#[derive(Serialize)]
struct Ready {
    /// Process of the pipeline.
    pipeline: u32,
}

/// One stretch.
#[derive(Serialize)]
struct Stretch {
    /// Records acknowledged a second; of the rate asked for when there was one.
    per_second: f64,
    /// Where the pipeline's tuning stood at its end.
    tuning: String,
}

/// Runs until standard input ends.
pub(crate) fn run(args: &BenchCostArgs) -> Result<()> {
    let path = |name: &str| args.dir.join(name).to_string_lossy().into_owned();
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let cpus = Cpus::divide();
    if let Some(cpus) = &cpus {
        crate::parent::keep_to_cpus(Some(&cpus.loads))?;
    }
    let pinned = |list: Option<&String>, of: &[&str]| {
        let pin = list.map(|list| ["--cpus", list.as_str()]).into_iter().flatten();
        words(&pin.chain(of.iter().copied()).collect::<Vec<_>>())
    };
    let (sink_at, reports) = (format!("unix:{}", path("sink.sock")), args.dir.to_string_lossy().into_owned());
    let sink = ["sink", "--listen", &sink_at, "--delay", "0"];
    let mut sink = Part::start("the sink".to_owned(), &pinned(cpus.as_ref().map(|c| &c.loads), &sink))?;
    let target: Listening = sink.line()?;
    let (listen, socket) = (format!("unix:{}", path("in.sock")), args.socket.to_string_lossy().into_owned());
    let pipeline = ["pipeline", "--listen", &listen, "--sink", &target.listening, "--policy", "model", "--observe"];
    let more = ["--socket", &socket, "--report-dir", &reports, "--name", "cost", "--stats-on-stdin"];
    let pipeline = [&pipeline[..], &more].concat();
    let mut pipeline = Part::start("the pipeline".to_owned(), &pinned(cpus.as_ref().map(|c| &c.pipelines), &pipeline))?;
    let started: Started = pipeline.line()?;
    json_line(&Ready { pipeline: pipeline.pid() })?;
    for line in std::io::stdin().lock().lines() {
        let line = line.context("read what is asked for")?;
        let per_second = match line.split_once(' ') {
            None if line == "look" => 0.0,
            None if line == "full" => {
                let of = Loop { record_bytes: RECORD_BYTES, span: args.span, concurrency: CONCURRENCY };
                closed_loop::run(&started.listening, of)?.per_second
            }
            Some(("rate", phase)) => {
                let load = words(&["load", "--connect", &started.listening, "--phases", phase]);
                let before: Stats = pipeline.ask()?;
                let mut load = Part::start("the load".to_owned(), &load)?;
                load.wait()?;
                let after: Stats = pipeline.ask()?;
                rate(&before, &after)
            }
            _ => bail!("{line:?}: want look, full or rate RATExSPAN"),
        };
        let stats: Stats = pipeline.ask()?;
        let tuning = stats.tuning.map_or_else(|| "none".to_owned(), |tuning| tuning.state);
        json_line(&Stretch { per_second, tuning })?;
    }
    pipeline.terminate()?;
    pipeline.line::<serde_json::Value>()?;
    pipeline.wait()?;
    sink.terminate()?;
    sink.line::<serde_json::Value>()?;
    sink.wait()
}

#[expect(clippy::cast_precision_loss, reason = "counts of a run of seconds")]
fn rate(before: &Stats, after: &Stats) -> f64 {
    (after.events_out - before.events_out) as f64 * 1e9 / (after.at_ns - before.at_ns).max(1) as f64
}
