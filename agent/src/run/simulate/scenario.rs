//! Scenario files: TOML in, a checked scenario out, or an error that names file, key, value and allowed range.

use std::fmt::Display;
use std::path::Path;

use serde::Deserialize;
use tidegate_client::abi::{KnobRange, Knobs, LeaseTerms, Mode, Objective, Policy, Registration};

use crate::source::sim::plant::{Arrivals, Phase};
use crate::units::{Bytes, Nanos};

/// The scenario that runs when none is named: the phases of the demo.
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
    /// Capacity of the queue.
    pub queue: Bytes,
    /// The load.
    pub phases: Vec<Phase>,
    /// What must come of each phase.
    pub expect: Vec<Option<PhaseExpect>>,
    /// What must come of the whole.
    pub total: Option<TotalExpect>,
}

/// Where the settings must land in a phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhaseExpect {
    /// How long after its begin, ms.
    pub within_ms: u64,
    /// Batch size, from and to, bytes.
    pub batch_bytes: Option<[u64; 2]>,
    /// Flush interval, from and to, microseconds.
    pub flush_interval_us: Option<[u64; 2]>,
    /// Highest p99 of its events, ms.
    pub p99_ms: Option<f64>,
}

/// What must come of the whole run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TotalExpect {
    /// Highest time-weighted p99, ms.
    pub p99_ms: Option<f64>,
    /// Highest time-weighted p99.9, ms.
    pub p999_ms: Option<f64>,
    /// Most changes of the settings.
    pub changes: Option<u64>,
}

/// Why a scenario was refused.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file could not be read.
    #[error("read scenario {file}: {cause}")]
    Read {
        /// The file.
        file: String,
        /// Why.
        cause: std::io::Error,
    },
    /// It is no TOML, or a key is unknown, missing or of the wrong type.
    #[error("scenario {file}: {cause}")]
    Parse {
        /// The file.
        file: String,
        /// Why, with line and key.
        cause: Box<toml::de::Error>,
    },
    /// A value is out of its range.
    #[error("scenario {file}: {key} = {value}: want {range}")]
    Range {
        /// The file.
        file: String,
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// What is allowed.
        range: &'static str,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScenario {
    name: String,
    pipeline: RawPipeline,
    sink: RawSink,
    phase: Vec<RawPhase>,
    expect: Option<TotalExpect>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPipeline {
    event_bytes: u64,
    queue_bytes: u64,
    #[serde(default)]
    arrivals: RawArrivals,
    p99_ms: Option<u64>,
    batch_bytes: KnobRange,
    flush_interval_us: KnobRange,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawArrivals {
    #[default]
    Poisson,
    Even,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSink {
    flush_ms: f64,
    #[serde(default)]
    event_us: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPhase {
    rate: f64,
    seconds: f64,
    flush_ms: Option<f64>,
    expect: Option<PhaseExpect>,
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
        let raw: RawScenario = toml::from_str(text)
            .map_err(|cause| ScenarioError::Parse { file: file.to_owned(), cause: Box::new(cause) })?;
        let check = Check { file };
        let RawScenario { name, pipeline, sink, phase, expect } = raw;
        let RawPipeline { event_bytes, queue_bytes, arrivals, p99_ms, batch_bytes, flush_interval_us } = pipeline;
        check.whole("pipeline.event_bytes", event_bytes, 1, 16 << 20, "1 to 16777216")?;
        check.whole("pipeline.queue_bytes", queue_bytes, event_bytes, 1 << 40, "event_bytes to 1 TiB")?;
        check.whole("pipeline.p99_ms", p99_ms.unwrap_or(1), 1, 3_600_000, "1 to 3600000")?;
        check.range("pipeline.batch_bytes", batch_bytes)?;
        check.range("pipeline.flush_interval_us", flush_interval_us)?;
        let sink_ns = check.span("sink.flush_ms", sink.flush_ms, 1e6)?;
        let per_event = check.span("sink.event_us", sink.event_us, 1e3)?;
        check.whole("phase", phase.len() as u64, 1, 10_000, "1 to 10000 phases")?;
        let mut phases = Vec::with_capacity(phase.len());
        let mut expects = Vec::with_capacity(phase.len());
        for (nth, RawPhase { rate, seconds, flush_ms, expect }) in phase.into_iter().enumerate() {
            let key = |key: &str| format!("phase[{nth}].{key}");
            check.float(&key("rate"), rate, 0.0, 1e7, "0 to 10000000 events/s")?;
            check.float(&key("seconds"), seconds, 0.1, 86_400.0, "0.1 to 86400")?;
            let flush = flush_ms.map_or(Ok(sink_ns), |ms| check.span(&key("flush_ms"), ms, 1e6))?;
            phases.push(Phase { rate, length: nanos(seconds * 1e9), flush });
            expects.push(expect);
        }
        let registration = Registration {
            knobs: Knobs { batch_bytes, flush_interval_us },
            objective: Objective { p99_ms, ..Objective::default() },
            mode: Mode::On,
            policy: Policy::Regime,
            report: Some("/simulated".into()),
            lease: LeaseTerms::default(),
            watch: None,
        };
        Ok(Self {
            name,
            registration,
            arrivals: match arrivals {
                RawArrivals::Poisson => Arrivals::Poisson,
                RawArrivals::Even => Arrivals::Even,
            },
            event: Bytes(event_bytes),
            per_event,
            queue: Bytes(queue_bytes),
            phases,
            expect: expects,
            total: expect,
        })
    }
}

struct Check<'a> {
    file: &'a str,
}

impl Check<'_> {
    fn refuse(&self, key: &str, value: impl Display, range: &'static str) -> ScenarioError {
        ScenarioError::Range { file: self.file.to_owned(), key: key.to_owned(), value: value.to_string(), range }
    }

    fn whole(&self, key: &str, value: u64, low: u64, high: u64, range: &'static str) -> Result<(), ScenarioError> {
        if (low..=high).contains(&value) { Ok(()) } else { Err(self.refuse(key, value, range)) }
    }

    fn float(&self, key: &str, value: f64, low: f64, high: f64, range: &'static str) -> Result<(), ScenarioError> {
        if (low..=high).contains(&value) { Ok(()) } else { Err(self.refuse(key, value, range)) }
    }

    fn span(&self, key: &str, value: f64, ns: f64) -> Result<Nanos, ScenarioError> {
        self.float(key, value, 0.0, 3_600_000.0, "0 to 3600000")?;
        Ok(nanos(value * ns))
    }

    fn range(&self, key: &str, range: KnobRange) -> Result<(), ScenarioError> {
        if 1 <= range.min && range.min <= range.default && range.default <= range.max {
            return Ok(());
        }
        let value = format!("{{ min = {}, default = {}, max = {} }}", range.min, range.default, range.max);
        Err(self.refuse(key, value, "1 <= min <= default <= max"))
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be positive and small")]
fn nanos(ns: f64) -> Nanos {
    Nanos(ns.round() as u64)
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
    }
}
