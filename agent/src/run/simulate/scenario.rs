//! Scenarios: what arrives at a simulated pipeline, what its sink costs, what goes wrong and what a human does, with the
//! ranges in which the controller must land. Checked here once; what runs it can trust it.

mod file;

use std::path::Path;

use serde::Deserialize;
use tidegate_client::abi::{Mode, OverrideRequest, Registration};

pub use file::ScenarioError;

use crate::source::sim::plant::{Arrivals, Phase};
use crate::units::{Bytes, Nanos};

/// The scenario that runs when none is named.
pub const DEMO: &str = include_str!("demo.toml");

/// A checked scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// What the pipeline registers.
    pub registration: Registration,
    /// How events arrive.
    pub arrivals: Arrivals,
    /// Size of an event.
    pub event: Bytes,
    /// Cost of each event in a flush.
    pub per_event: Nanos,
    /// How far the cost of a flush goes to and fro, as a share of it.
    pub noise: f64,
    /// Capacity of the queue.
    pub queue: Bytes,
    /// The load.
    pub phases: Vec<Phase>,
    /// What must come of each phase.
    pub expect: Vec<Option<PhaseExpect>>,
    /// What must come of the whole.
    pub total: Option<TotalExpect>,
    /// What people do meanwhile, each so long after the begin of the load.
    pub actions: Vec<(Nanos, Act)>,
    /// A second pipeline of the same kind that arrives later.
    pub neighbour: Option<Neighbour>,
    /// CPU time that both divide, cores.
    pub cpu_budget: Option<f64>,
}

/// What somebody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// A human pins the knobs.
    Pin(OverrideRequest),
    /// And frees them.
    Free,
    /// Tuning is paused.
    Pause,
    /// And goes on.
    Resume,
    /// A human takes the newest change back.
    RollBack,
}

/// A second pipeline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbour {
    /// When it arrives, after the begin of the load.
    pub from: Nanos,
    /// Its rate from then on.
    pub rate: f64,
    /// Its mode; that of the first where nothing is said.
    pub mode: Option<Mode>,
}

/// Where the settings must land in a phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhaseExpect {
    /// How long after its begin, ms.
    pub within_ms: u64,
    /// Batch size from then on, from and to, bytes.
    pub batch_bytes: Option<[u64; 2]>,
    /// Flush interval from then on, from and to, microseconds.
    pub flush_interval_us: Option<[u64; 2]>,
    /// Highest p99 of the events of the phase, ms.
    pub p99_ms: Option<f64>,
    /// Highest p99 of the events that arrive from then on, ms.
    pub settled_p99_ms: Option<f64>,
    /// How far the flush interval may pass its last value of the phase at any time of it, as a factor either way.
    pub overshoot: Option<f64>,
}

/// What must come of the whole run.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TotalExpect {
    /// Highest time-weighted p99, ms.
    pub p99_ms: Option<f64>,
    /// Highest time-weighted p99.9, ms.
    pub p999_ms: Option<f64>,
    /// Most changes of the settings.
    pub changes: Option<u64>,
    /// Most changes of direction of the flush interval within a phase, over all phases.
    pub reversals: Option<u64>,
    /// Times that the breaker opens, from and to.
    pub breaker_trips: Option<[u64; 2]>,
    /// Most events that find the queue full.
    pub lost: Option<u64>,
    /// Reasons of decisions that must be among those kept.
    #[serde(default)]
    pub reasons: Vec<String>,
    /// Words that must stand in the explanation of a decision.
    #[serde(default)]
    pub says: Vec<String>,
    /// Reasons of decisions that must not.
    #[serde(default)]
    pub never: Vec<String>,
    /// Busy share of the flusher over the whole, from and to.
    pub busy: Option<[f64; 2]>,
}

impl Scenario {
    /// The built-in scenario.
    pub fn demo() -> Self {
        Self::parse("demo.toml (built in)", DEMO).expect("a test parses it")
    }

    /// Reads a scenario file.
    pub fn read(path: &Path) -> Result<Self, ScenarioError> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&file, &text),
            Err(cause) => Err(ScenarioError::Read { file, cause }),
        }
    }

    /// Checks a scenario; errors name it as `file`.
    pub fn parse(file: &str, text: &str) -> Result<Self, ScenarioError> {
        file::parse(file, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(from: &str, to: &str) -> String {
        assert!(DEMO.contains(from), "{from}");
        Scenario::parse("my.toml", &DEMO.replacen(from, to, 1)).unwrap_err().to_string()
    }

    #[test]
    fn the_built_in_scenario_is_whole() {
        assert_eq!(Scenario::demo().phases.len(), 6);
    }

    #[test]
    fn what_is_wrong_is_named_with_file_key_and_range() {
        assert_eq!(
            told("rate = 300", "rate = -1"),
            "scenario my.toml: phase[0].rate = -1: want 0 to 10000000 events/s"
        );
        assert!(told("event_bytes = 512", "event_bytes = 0").contains("pipeline.event_bytes = 0: want 1 to"));
        assert!(told("flush_ms = 10", "flush_ms = nan").contains("sink.flush_ms = NaN"));
        assert!(told("min = 4096", "min = 40960000").contains("pipeline.batch_bytes = { min = 40960000"));
        let unknown = told("seconds = 8", "secs = 8");
        assert!(unknown.contains("secs") && unknown.contains("my.toml"), "{unknown}");
        assert!(Scenario::read(Path::new("/nowhere.toml")).unwrap_err().to_string().contains("/nowhere.toml"));
        let act = "[[action]]\nat_s = 1\ndo = \"dance\"\n[[phase]]";
        assert!(told("[[phase]]", act).contains("action[0].do = dance: want pin, free"), "{}", told("[[phase]]", act));
    }

    #[test]
    fn a_wave_and_a_ramp_become_phases() {
        let head = &DEMO[..DEMO.find("[[phase]]").unwrap()];
        let text = format!(
            "{head}\n[[phase]]\nwave = {{ low = 100, high = 900, half_s = 0.5 }}\nseconds = 3\n\
             [[phase]]\nramp_to = 5000\nrate = 1000\nseconds = 2\n"
        );
        let phases = Scenario::parse("w", &text).unwrap().phases;
        assert_eq!(phases[..6].iter().map(|p| p.rate).collect::<Vec<_>>(), [100.0, 900.0, 100.0, 900.0, 100.0, 900.0]);
        assert_eq!(phases.len(), 26, "a ramp is told in steps of 100 ms");
        assert!(phases[6].rate > 1_000.0 && phases[25].rate < 5_000.0 && phases[16].rate > phases[10].rate);
    }
}
