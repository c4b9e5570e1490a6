//! The table of guidance: which batch and which flush time suit which messages and which use, as they were measured.
//! Numbers and where they come from; no rule is made of them here.

use serde::{Deserialize, Serialize};

/// Body of `GET /v1/guidance`, and of the file that an operator's own measurement is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guidance {
    /// Command that made it.
    pub command: String,
    /// Machine it was measured on.
    pub machine: String,
    /// Where flushes went.
    pub sink: String,
    /// Cap on the busy share of the flusher.
    pub busy_cap: f64,
    /// One a size of messages and a use.
    pub rows: Vec<GuidanceRow>,
}

/// What suits one size of messages in one use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuidanceRow {
    /// Size of the messages it holds for, in words.
    pub messages: String,
    /// Size it was measured with, bytes.
    pub message_bytes: u64,
    /// What it is for.
    #[serde(rename = "use")]
    pub purpose: Purpose,
    /// What was sought.
    pub criterion: String,
    /// Messages a second it was measured at.
    pub rate: u64,
    /// Messages of a flush, as they came about.
    pub batch_messages: Range,
    /// Time between flushes, as it came about, ms.
    pub flush_ms: Range,
    /// Settings of the best: batch size in bytes.
    pub batch_bytes: u64,
    /// Settings of the best: flush interval, microseconds.
    pub flush_interval_us: u64,
    /// 99th percentile of the best, ms.
    pub p99_ms: f64,
    /// CPU time of the best, microseconds a message.
    pub cpu_us_per_message: f64,
}

/// What a pipeline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// The shortest tail.
    RealTime,
    /// Tail and cost alike.
    Balanced,
    /// The lowest cost.
    HighThroughput,
}

/// From the least to the most that suits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// Least.
    pub from: f64,
    /// Most.
    pub to: f64,
}
