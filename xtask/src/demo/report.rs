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

    /// A latency of a pipeline over the whole run, ms.
    pub(crate) fn latency(&self, pipeline: &str, weighting: Weighting, statistic: Statistic) -> Option<f64> {
        let weighting = match weighting {
            Weighting::Time => "by_time",
            Weighting::Event => "by_event",
        };
        let statistic = match statistic {
            Statistic::P99 => "p99_ms",
            Statistic::P999 => "p999_ms",
            Statistic::Mean => "mean_ms",
        };
        let arms = self.0.get("arms")?.as_array()?;
        let arm = arms.iter().find(|arm| arm.get("name").and_then(Value::as_str) == Some(pipeline))?;
        arm.get("total")?.get(weighting)?.get(statistic)?.as_f64()
    }
}
