//! What the routes answer where no wire type says it already: the view in, plain documents out. Never asks the system.
//! The command line reads the same documents back.

use serde::{Deserialize, Serialize};
use tidegate_client::abi::{Knobs, Registration, SignalsJson};

use crate::serve::view::{PipelineView, TuningState};

/// A row of the listing of pipelines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PipelineJson {
    /// Its name.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// Where its control stands.
    pub state: TuningState,
    /// Settings in force: batch size, bytes.
    pub batch_bytes: u64,
    /// Settings in force: flush interval, microseconds.
    pub flush_interval_us: u64,
    /// Their generation.
    pub generation: u64,
    /// What it asked for.
    pub registration: Registration,
    /// Bounds in force: as registered, or narrower.
    pub bounds: Knobs,
    /// Newest signals.
    pub signals: SignalsJson,
    /// Decisions so far by reason.
    pub decisions_by_reason: Vec<ReasonCount>,
}

/// How often a reason led to a decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonCount {
    /// The reason.
    pub reason: String,
    /// How often.
    pub count: u64,
}

/// Health of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthJson {
    /// `ok`, or `degraded` when something cannot be seen here.
    pub status: String,
    /// Version of the agent.
    pub version: String,
    /// Seconds since the agent started.
    pub uptime_s: u64,
    /// Milliseconds since the newest tick.
    pub tick_age_ms: u64,
    /// Whether tuning is paused.
    pub paused: bool,
    /// Probes attached now.
    pub attached: Vec<String>,
    /// What is worth knowing of the way in which they see.
    #[serde(default)]
    pub remarks: Vec<String>,
    /// What cannot be seen here, each with its cause.
    pub degraded: Vec<String>,
}

impl From<&PipelineView> for PipelineJson {
    fn from(p: &PipelineView) -> Self {
        let count = |(reason, count): &(&'static str, u64)| ReasonCount { reason: (*reason).to_owned(), count: *count };
        Self {
            name: p.name.to_string(),
            pid: p.pid.0,
            uid: p.uid.0,
            state: p.state,
            batch_bytes: p.settings.batch.0,
            flush_interval_us: p.settings.interval.0,
            generation: p.generation.0,
            registration: (*p.registration).clone(),
            bounds: p.bounds,
            signals: p.signals.clone(),
            decisions_by_reason: p.decisions_by_reason.iter().map(count).collect(),
        }
    }
}
