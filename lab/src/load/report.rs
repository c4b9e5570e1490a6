//! What a load found: latencies of every phase and of all in, JSON, text and files of distributions out. Never measures.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::latency::{SliceReport, Summary};
use crate::out::text;

/// Results of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct LoadReport {
    /// Begin of the first phase on the monotonic clock, the warm-up excluded.
    pub(crate) begin_ns: u64,
    /// Bytes of a record on the wire: of the mean one, where they differ.
    pub(crate) record_bytes: usize,
    /// The phases in their order.
    pub(crate) phases: Vec<PhaseReport>,
    /// All phases, every record counting alike.
    pub(crate) by_event: Summary,
    /// All phases, every second counting alike.
    pub(crate) by_time: Summary,
    /// Every second, when it was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) slices: Vec<SliceReport>,
    /// Records due, the warm-up included.
    pub(crate) scheduled: u64,
    /// Records sent.
    pub(crate) sent: u64,
    /// Records acknowledged.
    pub(crate) acknowledged: u64,
    /// Records due and never acknowledged.
    pub(crate) missing: u64,
    /// How late the sender was at worst: held up by the pipeline, or short of CPU.
    pub(crate) worst_send_delay_ms: f64,
}

/// One phase.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct PhaseReport {
    /// Law of arrival, when one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) traffic: Option<String>,
    /// Records due a second: on average, where a law changes its rate.
    pub(crate) rate: u64,
    /// Its length.
    pub(crate) seconds: f64,
    /// Records due in it.
    pub(crate) scheduled: u64,
    /// Latencies.
    #[serde(flatten)]
    pub(crate) latency: Summary,
}

/// For a person.
pub(crate) fn print(report: &LoadReport) -> Result<()> {
    for phase in &report.phases {
        let Summary { p50_ms, p99_ms, p999_ms, mean_ms, .. } = phase.latency;
        let law = phase.traffic.as_deref().map(|law| format!("  {law}")).unwrap_or_default();
        text(&format!(
            "{:>7}/s {:>5.1} s  p50 {p50_ms:.2}  p99 {p99_ms:.2}  p99.9 {p999_ms:.2}  mean {mean_ms:.2} ms{law}\n",
            phase.rate, phase.seconds
        ))?;
    }
    for (name, all) in [("by events", &report.by_event), ("by seconds", &report.by_time)] {
        let Summary { p50_ms, p99_ms, p999_ms, mean_ms, .. } = all;
        text(&format!(
            "all, {name:<11}  p50 {p50_ms:.2}  p99 {p99_ms:.2}  p99.9 {p999_ms:.2}  mean {mean_ms:.2} ms\n"
        ))?;
    }
    text(&format!("{} sent, {} acknowledged, {} missing\n", report.sent, report.acknowledged, report.missing))
}

/// The text form that plotters of such histograms read, in milliseconds.
#[expect(clippy::cast_precision_loss, reason = "a plot needs no more than 52 bits")]
pub(crate) fn write_distribution(path: &Path, histogram: &Histogram<u64>) -> Result<()> {
    let mut out = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
    let mut below = 0;
    for step in histogram.iter_quantiles(5) {
        below += step.count_since_last_iteration();
        let (value, share) = (step.value_iterated_to() as f64 / 1e3, step.quantile_iterated_to());
        let inverse = if share < 1.0 { format!("{:.2}", 1.0 / (1.0 - share)) } else { "inf".into() };
        writeln!(out, "{value:12.3} {share:14.12} {below:10} {inverse:>16}").context("write a line")?;
    }
    fs::write(path, out).with_context(|| format!("write {} (does its directory exist?)", path.display()))
}
