//! The laboratory's report, as far as the verdict needs it: latencies of each pipeline over the whole run, by both
//! weightings. Takes JSON, gives numbers in milliseconds.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// How seconds and events are weighed against each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weighting {
    /// Every second of the run counts alike.
    Time,
    /// Every event counts alike.
    Event,
}

/// A number of a distribution of latencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Statistic {
    P99,
    P999,
    Mean,
}

pub(crate) struct Report(Value);

impl Report {
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        Ok(Self(serde_json::from_str(&text).with_context(|| format!("{} is no JSON", file.display()))?))
    }

    /// A latency of the pipeline of a policy over the whole run, ms.
    pub(crate) fn latency(&self, policy: &str, weighting: Weighting, statistic: Statistic) -> Option<f64> {
        let weighting = match weighting {
            Weighting::Time => "time",
            Weighting::Event => "event",
        };
        let statistic = match statistic {
            Statistic::P99 => "p99_ms",
            Statistic::P999 => "p999_ms",
            Statistic::Mean => "mean_ms",
        };
        let wanted = [("policy", policy), ("phase", "all"), ("part", "whole"), ("weighting", weighting)];
        let fits = |row: &&Value| wanted.iter().all(|(key, value)| row.get(key).and_then(Value::as_str) == Some(value));
        self.0.get("rows")?.as_array()?.iter().find(fits)?.get(statistic)?.as_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_found_by_policy_and_weighting_and_a_missing_one_is_absent() {
        let row = |phase: &str, weighting: &str, p99: f64| serde_json::json!({"policy": "fixed", "phase": phase, "part": "whole", "weighting": weighting, "p99_ms": p99});
        let rows = [row("300/s", "time", 9.0), row("all", "event", 700.0), row("all", "time", 750.0)];
        let report = Report(serde_json::json!({"rows": rows}));
        assert_eq!(report.latency("fixed", Weighting::Time, Statistic::P99), Some(750.0));
        assert_eq!(report.latency("fixed", Weighting::Event, Statistic::P99), Some(700.0));
        assert_eq!(report.latency("fixed", Weighting::Event, Statistic::P999), None);
        assert_eq!(report.latency("model", Weighting::Event, Statistic::P99), None);
    }
}
