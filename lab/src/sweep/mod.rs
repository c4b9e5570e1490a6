//! Batch size against concurrency, in a closed loop: every cell of the grid runs several times, all cells in an order
//! drawn anew each time. Tables, and whether 128 differs from 256 at all, come out. Claims nothing without a test.

pub(crate) mod closed_loop;
mod result;

use anyhow::{Context, Result};
use fastrand::Rng;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tidegate_client::Nanos;

use crate::cli::SweepArgs;
use crate::compare::children::Part;
use crate::compare::cpu::Cpus;
use crate::out::{json_file, text};
use crate::pipeline::Started;
use crate::sink::Listening;
use crate::stop::Stop;
use closed_loop::Loop;
use result::{Cell, Run, Sweep};

/// Records of a batch.
const BATCHES: [u64; 8] = [1, 8, 32, 64, 128, 256, 512, 1024];
/// Records under way at once.
const CONCURRENCIES: [u64; 4] = [50, 100, 200, 500];
/// A batch that does not fill goes after this long: below the cost of a flush nothing would be gained by waiting.
const INTERVAL: Nanos = Nanos::from_millis(5);

/// Runs the sweep and prints its tables.
pub(crate) fn run(args: &SweepArgs) -> Result<()> {
    let stop = Stop::listen()?;
    let cpus = Cpus::divide();
    if let Some(cpus) = &cpus {
        // This process is the generator here.
        crate::parent::keep_to_cpus(Some(&cpus.loads))?;
    }
    let mut random = Rng::with_seed(args.seed);
    let mut cells: Vec<Cell> = Vec::new();
    for concurrency in CONCURRENCIES {
        cells.extend(BATCHES.map(|batch| Cell { batch, concurrency, runs: Vec::new() }));
    }
    let bar = ProgressBar::with_draw_target(
        Some(u64::try_from(cells.len() * usize::from(args.repetitions)).unwrap_or(0)),
        ProgressDrawTarget::stderr(),
    );
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {percent:>3} % {msg}, {eta} left") {
        bar.set_style(style);
    }
    for _ in 0..args.repetitions {
        let mut order: Vec<usize> = (0..cells.len()).collect();
        random.shuffle(&mut order);
        for i in order {
            bar.set_message(format!("{} records at {}", cells[i].batch, cells[i].concurrency));
            let run = measure(args, &cells[i], cpus.as_ref(), &stop)?;
            cells[i].runs.push(run);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let sweep = Sweep::of(cells, args);
    if let Some(path) = &args.json {
        json_file(path, &sweep)?;
    }
    text(&sweep.render())
}

/// One run of one cell, on a pipeline and a sink of its own.
fn measure(args: &SweepArgs, cell: &Cell, cpus: Option<&Cpus>, stop: &Stop) -> Result<Run> {
    let pinned = |list: Option<&str>, words: &[&str]| {
        let pin = list.map(|list| ["--cpus", list]).into_iter().flatten();
        pin.chain(words.iter().copied()).map(str::to_owned).collect::<Vec<_>>()
    };
    let delay = format!("{}us", args.delay.as_micros());
    let sink = ["sink", "--listen", "127.0.0.1:0", "--delay", &delay];
    let mut sink = Part::start("the sink".to_owned(), &pinned(cpus.map(|c| c.loads.as_str()), &sink))?;
    let target: Listening = sink.line()?;
    let bytes = u64::try_from(args.record_bytes).context("bytes of a record")? * cell.batch;
    let policy = format!("static:{bytes}/{}us", INTERVAL.as_micros());
    // The largest batch is the batch here: what is measured is its size.
    let largest = bytes.to_string();
    let words = ["pipeline", "--listen", "127.0.0.1:0", "--sink", &target.listening, "--policy", &policy];
    let words = [&words[..], &["--batch-max", &largest]].concat();
    let mut pipeline = Part::start("the pipeline".to_owned(), &pinned(cpus.map(|c| c.pipelines.as_str()), &words))?;
    let started: Started = pipeline.line()?;
    let run = closed_loop::run(
        &started.listening,
        Loop { record_bytes: args.record_bytes, span: args.span, concurrency: cell.concurrency },
    )?;
    if stop.wait_until(Nanos(0))? {
        anyhow::bail!("interrupted");
    }
    pipeline.terminate()?;
    pipeline.line::<serde_json::Value>()?;
    pipeline.wait()?;
    sink.terminate()?;
    sink.line::<serde_json::Value>()?;
    sink.wait()?;
    Ok(run)
}
