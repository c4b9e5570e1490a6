//! Scenario files: TOML in, a checked scenario or the first fault with file, key, value and range out.

use std::fmt::Display;

use serde::Deserialize;
use tidegate_client::abi::{
    Caps, Goal, KnobRange, Knobs, LeaseTerms, Mode, Objective, OverrideRequest, Policy, Registration,
};

use super::{Act, Neighbour, PhaseExpect, Scenario, TotalExpect};
use crate::source::sim::lie::Lie;
use crate::source::sim::plant::{Arrivals, Phase, Trouble};
use crate::units::{Bytes, Nanos};

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
    #[serde(default)]
    action: Vec<RawAction>,
    neighbour: Option<RawNeighbour>,
    /// Cores that both pipelines divide.
    cpu_budget: Option<f64>,
    expect: Option<TotalExpect>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPipeline {
    event_bytes: u64,
    queue_bytes: u64,
    #[serde(default)]
    arrivals: RawArrivals,
    #[serde(default)]
    policy: Policy,
    #[serde(default = "on")]
    mode: Mode,
    p99_ms: Option<u64>,
    #[serde(default)]
    goal: Goal,
    #[serde(default)]
    caps: Caps,
    batch_bytes: KnobRange,
    flush_interval_us: KnobRange,
}

fn on() -> Mode {
    Mode::On
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
    #[serde(default)]
    noise: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPhase {
    rate: Option<f64>,
    /// The rate rises or falls evenly to this one.
    ramp_to: Option<f64>,
    /// It goes to and fro instead.
    wave: Option<RawWave>,
    seconds: f64,
    flush_ms: Option<f64>,
    trouble: Option<String>,
    expect: Option<PhaseExpect>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWave {
    low: f64,
    high: f64,
    half_s: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAction {
    at_s: f64,
    r#do: String,
    batch_bytes: Option<u64>,
    flush_interval_us: Option<u64>,
    ttl_s: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNeighbour {
    from_s: f64,
    rate: f64,
    mode: Option<Mode>,
}

/// A ramp is made of steps so long: as fine as anybody looks.
const RAMP_STEP_S: f64 = 0.1;

/// Checks a scenario; errors name it as `file`.
pub(super) fn parse(file: &str, text: &str) -> Result<Scenario, ScenarioError> {
    let raw: RawScenario =
        toml::from_str(text).map_err(|cause| ScenarioError::Parse { file: file.to_owned(), cause: Box::new(cause) })?;
    let check = Check { file };
    let RawScenario { name, pipeline, sink, phase, action, neighbour, cpu_budget, expect } = raw;
    let RawPipeline { event_bytes, queue_bytes, arrivals, policy, mode, p99_ms, goal, caps, .. } = pipeline;
    let (batch_bytes, flush_interval_us) = (pipeline.batch_bytes, pipeline.flush_interval_us);
    check.whole("pipeline.event_bytes", event_bytes, 1, 16 << 20, "1 to 16777216")?;
    check.whole("pipeline.queue_bytes", queue_bytes, event_bytes, 1 << 40, "event_bytes to 1 TiB")?;
    check.whole("pipeline.p99_ms", p99_ms.unwrap_or(1), 1, 3_600_000, "1 to 3600000")?;
    check.range("pipeline.batch_bytes", batch_bytes)?;
    check.range("pipeline.flush_interval_us", flush_interval_us)?;
    let flush = check.span("sink.flush_ms", sink.flush_ms, 1e6)?;
    let per_event = check.span("sink.event_us", sink.event_us, 1e3)?;
    check.float("sink.noise", sink.noise, 0.0, 1.0, "0 to 1")?;
    check.float("cpu_budget", cpu_budget.unwrap_or(1.0), 0.001, 4_096.0, "0.001 to 4096 cores")?;
    let neighbour = neighbour.map(|raw| check.neighbour(&raw)).transpose()?;
    let actions = action.iter().enumerate().map(|(nth, raw)| check.action(nth, raw)).collect::<Result<_, _>>()?;
    let (mut phases, mut expects) = (Vec::new(), Vec::new());
    for (nth, raw) in phase.into_iter().enumerate() {
        let expect = raw.expect;
        let several = check.phases(nth, &raw, flush)?;
        // What is expected of a wave or a ramp is expected of it as a whole: `score` sees one phase a rate.
        expects.extend((0..several.len()).map(|i| expect.filter(|_| i == 0)));
        phases.extend(several);
    }
    check.whole("phase", phases.len() as u64, 1, 100_000, "1 to 100000 phases")?;
    let registration = Registration {
        objective: Objective { p99_ms, goal, caps },
        mode,
        policy,
        report: Some("/simulated".into()),
        lease: LeaseTerms::default(),
        ..Registration::new(Knobs { batch_bytes, flush_interval_us })
    };
    Ok(Scenario {
        name,
        registration,
        arrivals: match arrivals {
            RawArrivals::Poisson => Arrivals::Poisson,
            RawArrivals::Even => Arrivals::Even,
        },
        event: Bytes(event_bytes),
        per_event,
        noise: sink.noise,
        queue: Bytes(queue_bytes),
        phases,
        expect: expects,
        total: expect,
        actions,
        neighbour,
        cpu_budget,
    })
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

    fn rate(&self, key: &str, value: f64) -> Result<(), ScenarioError> {
        self.float(key, value, 0.0, 1e7, "0 to 10000000 events/s")
    }

    fn range(&self, key: &str, range: KnobRange) -> Result<(), ScenarioError> {
        if 1 <= range.min && range.min <= range.default && range.default <= range.max {
            return Ok(());
        }
        let value = format!("{{ min = {}, default = {}, max = {} }}", range.min, range.default, range.max);
        Err(self.refuse(key, value, "1 <= min <= default <= max"))
    }

    fn phases(&self, nth: usize, raw: &RawPhase, flush: Nanos) -> Result<Vec<Phase>, ScenarioError> {
        let key = |key: &str| format!("phase[{nth}].{key}");
        self.float(&key("seconds"), raw.seconds, 0.1, 86_400.0, "0.1 to 86400")?;
        let flush = raw.flush_ms.map_or(Ok(flush), |ms| self.span(&key("flush_ms"), ms, 1e6))?;
        let trouble = raw.trouble.as_deref().map_or(Ok(Trouble::None), |word| self.trouble(&key("trouble"), word))?;
        let phase = |rate: f64, seconds: f64| Phase { rate, length: nanos(seconds * 1e9), flush, trouble };
        let steps = |of_s: f64| {
            let n = (raw.seconds / of_s).round().max(1.0);
            let whole = (0..).map(f64::from).take_while(move |i| *i < n);
            (whole, n)
        };
        match (raw.rate, raw.ramp_to, &raw.wave) {
            (Some(rate), None, None) => {
                self.rate(&key("rate"), rate)?;
                Ok(vec![phase(rate, raw.seconds)])
            }
            (Some(rate), Some(to), None) => {
                self.rate(&key("rate"), rate)?;
                self.rate(&key("ramp_to"), to)?;
                let (each, n) = steps(RAMP_STEP_S);
                Ok(each.map(|i| phase(rate + (to - rate) * (i + 0.5) / n, raw.seconds / n)).collect())
            }
            (None, None, Some(wave)) => {
                self.rate(&key("wave.low"), wave.low)?;
                self.rate(&key("wave.high"), wave.high)?;
                self.float(&key("wave.half_s"), wave.half_s, 0.1, 3_600.0, "0.1 to 3600")?;
                let (each, n) = steps(wave.half_s);
                Ok(each.map(|i| phase(if i % 2.0 == 0.0 { wave.low } else { wave.high }, raw.seconds / n)).collect())
            }
            _ => Err(self.refuse(&key("rate"), "?", "a rate, a rate with ramp_to, or a wave")),
        }
    }

    fn trouble(&self, key: &str, word: &str) -> Result<Trouble, ScenarioError> {
        Ok(match word {
            "failing" => Trouble::Failing,
            "silent" => Trouble::Silent,
            "fall" => Trouble::Lying(Lie::Fall),
            "wrap" => Trouble::Lying(Lie::Wrap),
            "absurd" => Trouble::Lying(Lie::Absurd),
            "queue" => Trouble::Lying(Lie::Queue),
            "cut" => Trouble::Lying(Lie::Cut),
            "noise" => Trouble::Lying(Lie::Noise),
            other => {
                return Err(self.refuse(key, other, "failing, silent, fall, wrap, absurd, queue, cut or noise"));
            }
        })
    }

    fn action(&self, nth: usize, raw: &RawAction) -> Result<(Nanos, Act), ScenarioError> {
        let at = self.span(&format!("action[{nth}].at_s"), raw.at_s, 1e9)?;
        let RawAction { batch_bytes, flush_interval_us, ttl_s, .. } = *raw;
        let act = match raw.r#do.as_str() {
            "pin" => Act::Pin(OverrideRequest { batch_bytes, flush_interval_us, ttl_s }),
            "free" => Act::Free,
            "pause" => Act::Pause,
            "resume" => Act::Resume,
            "roll-back" => Act::RollBack,
            other => {
                let key = format!("action[{nth}].do");
                return Err(self.refuse(&key, other, "pin, free, pause, resume or roll-back"));
            }
        };
        Ok((at, act))
    }

    fn neighbour(&self, raw: &RawNeighbour) -> Result<Neighbour, ScenarioError> {
        self.rate("neighbour.rate", raw.rate)?;
        Ok(Neighbour { from: self.span("neighbour.from_s", raw.from_s, 1e9)?, rate: raw.rate, mode: raw.mode })
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be positive and small")]
fn nanos(ns: f64) -> Nanos {
    Nanos(ns.round() as u64)
}
