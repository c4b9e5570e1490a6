//! Costs that are counted in nanoseconds, of the pages and of the pool: builds the laboratory in release, lets it measure, and prints its numbers as a
//! table. Never measures itself, because xtask is a debug build.

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::Bench;
use crate::leash::Leash;
use crate::{shell, ui};

#[derive(Deserialize)]
struct Report {
    results: Vec<Cost>,
}

#[derive(Deserialize)]
struct Cost {
    what: String,
    median_ns: f64,
    best_ns: f64,
    worst_ns: f64,
    limit_ns: Option<f64>,
}

pub(crate) fn run(bench: &Bench<'_>, what: &str) -> Result<()> {
    let mut build = bench.workspace.cargo();
    shell::must("build tidegate-lab in release", build.args(["build", "--release", "-p", "tidegate-lab"]))?;
    let scratch = tempfile::NamedTempFile::new().context("make a file for the numbers")?;
    let file = bench.json.unwrap_or(scratch.path());
    let mut measure = bench.workspace.command(bench.workspace.target.join("release/tidegate-lab"));
    measure.args(["bench", what, "--json"]).arg(file);
    let shown = shell::show(&measure);
    let status = Leash::start(&mut measure)?.wait()?;
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let report: Report = serde_json::from_str(&text).with_context(|| format!("read the numbers of `{shown}`"))?;
    let rows: Vec<Vec<String>> = report
        .results
        .iter()
        .map(|Cost { what, median_ns, best_ns, worst_ns, limit_ns }| {
            let figures = [median_ns, best_ns, worst_ns].map(|ns| format!("{ns:.2}"));
            let limit = limit_ns.map_or_else(String::new, |limit| format!("{limit:.0}"));
            [what.clone()].into_iter().chain(figures).chain([limit]).collect()
        })
        .collect();
    ui::line(ui::table(&["ns", "median>", "best>", "worst>", "at most>"], &rows));
    Ok(())
}
