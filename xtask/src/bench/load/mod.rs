//! Whether the laboratory's load generator measures what an independent one does: the same statement at the same rate on
//! the same PostgreSQL, by `tidegate-lab load` and by `pgbench -R`, in turns. Both draw exponential gaps, both count from
//! when a statement was due. Prints both 99th percentiles beside how far either differs from itself.

mod figures;
mod stage;

use anyhow::{Result, bail};
use serde::Serialize;

use super::Bench;
use crate::ui;
use figures::{Samples, interval_of_self, quantile, resolution};
use stage::Stage;

/// Connections of either generator.
const CONNECTIONS: usize = 4;
/// The share of its time for which a server with one place would be busy: well below the bound, where queues hardly form.
const UTILISATION: f64 = 0.2;
const UTILISATION_BOUND: f64 = 0.3;
/// Turns, each ours, theirs, theirs, ours.
const TURNS: usize = 6;
const SECONDS: u32 = 10;
/// How far the two may be apart, where either is nearer to itself than that.
const APART: f64 = 0.05;

/// Who generates the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Generator {
    Tidegate,
    Pgbench,
}

const TURN: [Generator; 4] = [Generator::Tidegate, Generator::Pgbench, Generator::Pgbench, Generator::Tidegate];

/// The figures, milliseconds unless a name says otherwise.
#[derive(Debug, Serialize)]
struct Figures {
    statement: &'static str,
    connections: usize,
    turns: usize,
    seconds_a_run: u32,
    rate: u32,
    service_ms: f64,
    utilisation: f64,
    /// Processes that wanted to run in the last minute, before the first run.
    load_average: f64,
    tidegate: OfGenerator,
    pgbench: OfGenerator,
    /// Ours over theirs, at the 99th percentile.
    ratio: f64,
    /// How far the two may be apart: 5 %, or how far a generator is apart from itself.
    allowed: f64,
    agree: bool,
}

#[derive(Debug, Serialize)]
struct OfGenerator {
    transactions: usize,
    mean_ms: f64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    /// 95 % interval of the 99th percentile of the same runs over itself, drawn anew.
    self_ratio: [f64; 2],
    /// Of each run.
    p99_of_runs_ms: Vec<f64>,
}

pub(crate) fn run(bench: &Bench<'_>) -> Result<()> {
    let stage = Stage::set(bench.workspace)?;
    let service_us = stage.service_time()?;
    let rate = rate_for(service_us)?;
    let utilisation = f64::from(rate) * service_us / 1e6;
    let turns = bench.rounds.max(TURNS);
    ui::line(format_args!(
        "{} at {rate}/s, {:.2} ms each, {CONNECTIONS} connections; {turns} turns of four runs of {SECONDS} s",
        stage::STATEMENT,
        service_us / 1e3
    ));
    let load_average = stage::load_average();
    // Left out: the first touch of every page.
    for generator in [Generator::Tidegate, Generator::Pgbench] {
        stage.latencies(generator, rate, 2, 0)?;
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for turn in 0..turns {
        for (place, generator) in TURN.into_iter().enumerate() {
            let seed = turn * TURN.len() + place + 1;
            let samples = stage.latencies(generator, rate, SECONDS, seed)?;
            ui::note(format_args!(
                "turn {} of {turns}: {generator:?} p99 {:.2} ms",
                turn + 1,
                quantile(&samples, 0.99) / 1e3
            ));
            if generator == Generator::Tidegate { &mut ours } else { &mut theirs }.push(samples);
        }
    }
    let (tidegate, pgbench) = (of_generator(&ours, 1), of_generator(&theirs, 2));
    let ratio = tidegate.p99_ms / pgbench.p99_ms;
    let allowed = APART.max(resolution(&[tidegate.self_ratio, pgbench.self_ratio]));
    let figures = Figures {
        statement: stage::STATEMENT,
        connections: CONNECTIONS,
        turns,
        seconds_a_run: SECONDS,
        rate,
        service_ms: service_us / 1e3,
        utilisation,
        load_average,
        ratio,
        allowed,
        agree: (ratio - 1.0).abs() <= allowed,
        tidegate,
        pgbench,
    };
    bench.keep(&figures)?;
    print(&figures);
    Ok(())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between the two bounds")]
fn rate_for(service_us: f64) -> Result<u32> {
    let rate = (UTILISATION * 1e6 / service_us).clamp(10.0, 5_000.0) as u32;
    if f64::from(rate) * service_us / 1e6 >= UTILISATION_BOUND {
        bail!(
            "the statement takes {:.1} ms: no rate keeps the server below 30 % (is the machine busy?)",
            service_us / 1e3
        );
    }
    Ok(rate)
}

fn of_generator(runs: &[Samples], seed: u64) -> OfGenerator {
    let all = Samples::pooled(runs);
    let ms = |q| quantile(&all, q) / 1e3;
    OfGenerator {
        transactions: all.len(),
        mean_ms: all.mean() / 1e3,
        p50_ms: ms(0.5),
        p99_ms: ms(0.99),
        p999_ms: ms(0.999),
        self_ratio: interval_of_self(runs, 0.99, seed),
        p99_of_runs_ms: runs.iter().map(|run| quantile(run, 0.99) / 1e3).collect(),
    }
}

fn print(figures: &Figures) {
    let row = |name: &str, of: &OfGenerator| {
        let [low, high] = of.self_ratio;
        let ms = [of.mean_ms, of.p50_ms, of.p99_ms, of.p999_ms].map(|ms| format!("{ms:.3}"));
        let mut row = vec![name.to_owned(), of.transactions.to_string()];
        row.extend(ms);
        row.push(format!("{low:.3} to {high:.3}"));
        row
    };
    let rows = [row("tidegate-lab load", &figures.tidegate), row("pgbench -R", &figures.pgbench)];
    ui::line(ui::table(
        &["latency, ms", "statements>", "mean>", "p50>", "p99>", "p99.9>", "p99 against itself>"],
        &rows,
    ));
    ui::line(format_args!(
        "utilisation {:.0} %, load average before it {:.1}",
        figures.utilisation * 100.0,
        figures.load_average
    ));
    ui::line(format_args!(
        "p99 ours over theirs {:.3}: {} within {:.1} % (5 %, or what a generator differs from itself)",
        figures.ratio,
        if figures.agree { "they agree" } else { "they do NOT agree" },
        figures.allowed * 100.0
    ));
}
