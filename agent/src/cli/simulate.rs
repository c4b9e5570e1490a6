//! `tidegate simulate`: a scenario in, a table of policies out. Neither root nor an agent is needed.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use comfy_table::Table;

use crate::run::simulate::random::{self, Tally};
use crate::run::simulate::scenario::Scenario;
use crate::run::simulate::score::Quantiles;
use crate::run::simulate::{PolicyReport, SimReport, simulate};

/// Compare flush policies on a simulated host, in virtual time.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  tidegate simulate
  tidegate simulate --runs 5 -o json | jq '.policies[] | {policy, by_time}'
  tidegate simulate --scenario my-load.toml     # fails when an `expect` of the file is not met
  tidegate simulate --random 100000             # nothing may leave its bounds, whatever the plant")]
pub struct SimulateArgs {
    /// Scenario to run (TOML); the phases of the demo without it
    #[arg(long, value_name = "FILE")]
    pub scenario: Option<PathBuf>,
    /// Seed of the first run
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Runs, one seed each, counted together
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub runs: u64,
    /// Run this many random plants instead, and say what went wrong with any: loads, sinks, bounds, lies and requests by lot
    #[arg(long, value_name = "N", conflicts_with_all = ["scenario", "runs"])]
    pub random: Option<u64>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A table.
    #[default]
    Table,
    /// JSON.
    Json,
}

/// Runs the command.
pub fn run(args: &SimulateArgs) -> anyhow::Result<()> {
    print(args, &mut std::io::stdout().lock())
}

/// Runs the command into `out`. An expectation of the scenario that is not met is an error, after the table.
pub fn print(args: &SimulateArgs, out: &mut impl Write) -> anyhow::Result<()> {
    if let Some(count) = args.random {
        return print_random(args.seed, count, args.output, out);
    }
    let scenario = match &args.scenario {
        Some(path) => Scenario::read(path)?,
        None => Scenario::demo(),
    };
    let report = simulate(&scenario, args.seed, args.runs);
    match args.output {
        Output::Json => {
            let json = serde_json::to_string_pretty(&report).context("render the report")?;
            writeln!(out, "{json}").context("write the report")?;
        }
        Output::Table => write!(out, "{}", table(&report)).context("write the table")?,
    }
    if !report.violations.is_empty() {
        bail!("scenario {}: not met: {}", report.scenario, report.violations.join("; "));
    }
    Ok(())
}

/// Runs random plants on all cores.
fn print_random(seed: u64, count: u64, output: Output, out: &mut impl Write) -> anyhow::Result<()> {
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let mut tally = Tally::default();
    std::thread::scope(|scope| {
        let parts: Vec<_> = (0..workers)
            .map(|nth| {
                scope.spawn(move || {
                    let mut part = Tally::default();
                    for nth in (nth..count).step_by(usize::try_from(workers).unwrap_or(1)) {
                        part.merge(random::run(seed.wrapping_add(nth)));
                    }
                    part
                })
            })
            .collect();
        for part in parts {
            tally.merge(part.join().map_err(|_panic| anyhow::anyhow!("a random run panicked; its words stand above"))?);
        }
        anyhow::Ok(())
    })?;
    let Tally { runs, published, decisions, ticks, violations } = &tally;
    match output {
        Output::Json => {
            let json = serde_json::to_string_pretty(&tally).context("render the report")?;
            writeln!(out, "{json}").context("write the report")?;
        }
        Output::Table => writeln!(
            out,
            "{runs} random plants, {} s of virtual time: {published} settings published, {decisions} decisions, {} violations",
            ticks / 10,
            violations.len()
        )
        .context("write the report")?,
    }
    if violations.is_empty() { Ok(()) } else { bail!("{}", violations.join("\n")) }
}

fn table(report: &SimReport) -> String {
    let SimReport { scenario, seed, runs, policies, violations: _ } = report;
    let mut total = Table::new();
    total.load_preset(comfy_table::presets::NOTHING);
    total.set_header([
        "policy",
        "events",
        "lost",
        "flushes/1k",
        "busy",
        "cpu us/ev",
        "changes",
        "time: p50",
        "p99",
        "p99.9",
        "mean",
        "event: p50",
        "p99",
        "p99.9",
        "mean",
    ]);
    for p in policies {
        let PolicyReport { policy, events, lost, flushes_per_1000, utilization, cpu_us_per_event, changes, .. } = p;
        let mut row = vec![
            policy.word().to_owned(),
            events.to_string(),
            lost.to_string(),
            format!("{flushes_per_1000:.2}"),
            format!("{utilization:.2}"),
            format!("{cpu_us_per_event:.2}"),
            changes.to_string(),
        ];
        row.extend(cells(&p.by_time));
        row.extend(cells(&p.by_event));
        total.add_row(row);
    }
    let mut phases = Table::new();
    phases.load_preset(comfy_table::presets::NOTHING);
    phases.set_header(["phase", "events/s", "policy", "p50", "p99", "p99.9", "mean", "batch KiB", "interval ms"]);
    for nth in 0..policies.first().map_or(0, |p| p.phases.len()) {
        for p in policies {
            let phase = &p.phases[nth];
            let mut row = vec![(nth + 1).to_string(), format!("{:.0}", phase.rate), p.policy.word().to_owned()];
            row.extend(cells(&phase.latency));
            row.push((phase.settings.batch.0 / 1_024).to_string());
            row.push(format!("{:.1}", crate::units::Nanos::from(phase.settings.interval).as_millis_f64()));
            phases.add_row(row);
        }
    }
    format!(
        "scenario {scenario}, seed {seed}, {runs} run(s); latencies in ms, every second alike and every event alike\n\n\
         {total}\n\n{phases}\n"
    )
}

fn cells(q: &Quantiles) -> [String; 4] {
    let cell = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}"));
    [cell(q.p50_ms), cell(q.p99_ms), cell(q.p999_ms), cell(q.mean_ms)]
}
