//! JSON bodies of the control socket. Unknown fields are refused on write and ignored on read.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Body of `PUT /v1/pipelines/{name}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// What may be set, and within which bounds.
    pub knobs: Knobs,
    /// What the pipeline wants.
    #[serde(default)]
    pub objective: Objective,
    /// Whether the agent may act; advice only unless asked.
    #[serde(default)]
    pub mode: Mode,
    /// How settings are found.
    #[serde(default)]
    pub policy: Policy,
    /// Report page, an absolute path of a file that the registering user owns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<PathBuf>,
    /// Terms of the settings' lease.
    #[serde(default)]
    pub lease: LeaseTerms,
    /// Another process, which was never changed and is only looked at: kernel evidence alone, advice alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch: Option<WatchedProcess>,
}

impl Registration {
    /// Advice only, no objective, no report page, the usual lease.
    pub fn new(knobs: Knobs) -> Self {
        Self {
            knobs,
            objective: Objective::default(),
            mode: Mode::default(),
            policy: Policy::default(),
            report: None,
            lease: LeaseTerms::default(),
            watch: None,
        }
    }
}

/// The two knobs of a batcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Knobs {
    /// Batch size, bytes.
    pub batch_bytes: KnobRange,
    /// Flush interval (linger), microseconds.
    pub flush_interval_us: KnobRange,
}

impl Default for Knobs {
    /// 4 to 512 KiB and 1 to 250 ms; 256 KiB and 250 ms without an agent.
    fn default() -> Self {
        Self {
            batch_bytes: KnobRange { min: 4 << 10, max: 512 << 10, default: 256 << 10 },
            flush_interval_us: KnobRange { min: 1_000, max: 250_000, default: 250_000 },
        }
    }
}

/// Bounds of one knob: `min <= default <= max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnobRange {
    /// Smallest value the pipeline accepts.
    pub min: u64,
    /// Largest value the pipeline accepts.
    pub max: u64,
    /// The pipeline's own value, used without an agent.
    pub default: u64,
}

/// What a pipeline wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Objective {
    /// Wanted 99th percentile of the latency, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99_ms: Option<u64>,
    /// Which way to lean.
    #[serde(default)]
    pub goal: Goal,
    /// What the pipeline may use.
    #[serde(default)]
    pub caps: Caps,
}

/// What a pipeline may use. A cap that is absent is the policy's own choice, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Caps {
    /// Share of the time in which a flush may be in flight, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flusher_busy: Option<f64>,
    /// CPU time of the pipeline's process over wall time, cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_cores: Option<f64>,
    /// Bytes in the queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_bytes: Option<u64>,
    /// Flushes a second that the downstream takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flushes_per_s: Option<f64>,
}

/// How settings are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// The pipeline's own settings, whatever the load.
    Static,
    /// Flush what is queued whenever the sink is free: the shortest interval.
    Greedy,
    /// Three regimes of the event rate.
    Regime,
    /// From the learnt cost of a flush, under the caps.
    #[default]
    Model,
}

impl Policy {
    /// Every policy.
    pub const ALL: [Self; 4] = [Self::Static, Self::Greedy, Self::Regime, Self::Model];

    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Greedy => "greedy",
            Self::Regime => "regime",
            Self::Model => "model",
        }
    }
}

/// A process that is looked at and was never changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchedProcess {
    /// Its number.
    pub pid: u32,
    /// Size of an event, bytes; without it rates are told in bytes alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_bytes: Option<u64>,
}

/// Which way to lean between latency and cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Goal {
    /// Shortest interval within the caps.
    Latency,
    /// Between the two.
    #[default]
    Balanced,
    /// Longest interval within the objective.
    Efficiency,
}

/// Whether the agent may act.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Decisions are advice; the settings page keeps the defaults.
    #[default]
    Observe,
    /// A decision is applied on trial, and stays only if it is seen to do no harm.
    Canary,
    /// Decisions are applied.
    On,
    /// The pipeline's own settings, or what a human pinned; the agent neither acts nor advises.
    Manual,
}

impl Mode {
    /// Whether decisions reach the settings page.
    pub fn acts(self) -> bool {
        matches!(self, Self::Canary | Self::On)
    }
}

/// Terms of a lease: renewed every second or at a third of `ttl_ms`, whichever is sooner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LeaseTerms {
    /// Life of the settings without renewal, ms.
    pub ttl_ms: u64,
    /// How long the last settings are held after that, ms.
    pub hold_ms: u64,
    /// What the pipeline does then.
    pub on_expiry: OnExpiry,
}

impl Default for LeaseTerms {
    fn default() -> Self {
        Self { ttl_ms: 10_000, hold_ms: 60_000, on_expiry: OnExpiry::Default }
    }
}

/// What a pipeline does when lease and hold have run out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnExpiry {
    /// Step back to its own defaults.
    #[default]
    Default,
    /// Keep the last settings.
    Hold,
}

/// Reply to a registration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegistrationReply {
    /// Name under which the pipeline is known.
    pub name: String,
    /// The settings page: a path to open read-only; empty where a process is only watched.
    pub settings_page: PathBuf,
    /// Order of the values in a slot.
    pub values: Vec<String>,
    /// Generation in force.
    pub generation: u64,
    /// Mode in force.
    pub mode: Mode,
}

/// Reply of `GET /v1/pipelines/{name}/settings`; the `ETag` is the generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SettingsReply {
    /// Name of the pipeline.
    pub name: String,
    /// Rises with every change.
    pub generation: u64,
    /// Batch size, bytes.
    pub batch_bytes: u64,
    /// Flush interval, microseconds.
    pub flush_interval_us: u64,
    /// Reason of the decision behind it.
    pub reason: String,
    /// Life of the lease, ms.
    pub ttl_ms: u64,
}

/// Body of `PUT /v1/pipelines/{name}/override`: a human pins the knobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverrideRequest {
    /// Batch size to hold, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_bytes: Option<u64>,
    /// Flush interval to hold, microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flush_interval_us: Option<u64>,
    /// Ends by itself after this many seconds; without it, when freed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<u64>,
}

/// Signals of a pipeline at one tick. A number that is not known is absent, never 0.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SignalsJson {
    /// Name of the pipeline.
    pub name: String,
    /// Time of the tick, ns of the monotonic clock.
    pub time_ns: u64,
    /// Event rate over the rolling window, events/s.
    pub rate: Option<f64>,
    /// Event rate of the newest tick, events/s.
    pub newest_rate: Option<f64>,
    /// Mean size of an event, bytes.
    pub event_bytes: Option<f64>,
    /// Bytes queued in the pipeline.
    pub queue_bytes: Option<u64>,
    /// Capacity of that queue.
    pub queue_capacity: Option<u64>,
    /// Bytes queued in its sockets, unread: kernel evidence.
    pub receive_queue_bytes: Option<u64>,
    /// Mean residency of bytes in its sockets before they were read, ms: kernel evidence, while somebody looks.
    pub residency_ms: Option<f64>,
    /// Mean size of a flush, bytes.
    pub flush_bytes: Option<f64>,
    /// Mean duration of a flush, ms.
    pub flush_ms: Option<f64>,
    /// Flushes per second.
    pub flushes_per_s: Option<f64>,
    /// Time from the begin of one flush to that of the next, ms.
    #[serde(default)]
    pub flush_gap_ms: Option<f64>,
    /// Share of the time in which a flush is in flight.
    #[serde(default)]
    pub busy_share: Option<f64>,
    /// Shares of the newest flushes by why they began.
    #[serde(default)]
    pub flush_causes: Option<CausesJson>,
    /// Flushes that failed, a second.
    #[serde(default)]
    pub flush_errors_per_s: Option<f64>,
    /// Learnt fixed cost of a flush, ms.
    #[serde(default)]
    pub flush_fixed_ms: Option<f64>,
    /// Learnt cost of a KiB in a flush, microseconds.
    #[serde(default)]
    pub flush_per_kib_us: Option<f64>,
    /// Share of the time in which senders had to wait for room in the queue.
    #[serde(default)]
    pub stalled_share: Option<f64>,
    /// System calls per event: kernel evidence, while somebody looks.
    pub syscalls_per_event: Option<f64>,
    /// CPU time per event, microseconds: kernel evidence.
    pub cpu_us_per_event: Option<f64>,
    /// Context switches per flush: kernel evidence.
    pub switches_per_flush: Option<f64>,
    /// 99th percentile of the latency of the newest window, ms.
    pub p99_ms: Option<f64>,
    /// What the process uses and waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Box<super::UsageJson>>,
    /// What the kernel alone tells of the process, beside the numbers above, while somebody looks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Box<super::KernelGradeJson>>,
    /// Why a signal is missing or doubtful.
    pub degraded: Vec<String>,
}

/// Shares of flushes by why they began; they add up to one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CausesJson {
    /// The oldest event was old enough.
    pub age: f64,
    /// The batch was full.
    pub size: f64,
    /// The sink had become idle, and more than a batch waited.
    pub backlog: f64,
    /// The queue was nearly full.
    pub panic: f64,
    /// All events together had waited as long as a flush costs.
    pub waiting: f64,
}

/// A decision as the socket shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecisionJson {
    /// Name of the pipeline.
    pub name: String,
    /// Rises by one with each decision of the pipeline.
    pub sequence: u64,
    /// Time, ns of the monotonic clock.
    pub time_ns: u64,
    /// Generation of the settings it led to.
    pub generation: u64,
    /// Whether it reached the settings page.
    pub applied: Applied,
    /// Batch size, bytes.
    pub batch_bytes: u64,
    /// Flush interval, microseconds.
    pub flush_interval_us: u64,
    /// Settings before it: batch size, bytes.
    pub from_batch_bytes: u64,
    /// Settings before it: flush interval, microseconds.
    pub from_flush_interval_us: u64,
    /// Policy that decided.
    pub policy: String,
    /// Reason, a stable word.
    pub reason: String,
    /// The reason in a sentence, with its numbers.
    pub explanation: String,
    /// Which limit bound the result, if one did.
    pub bound_by: Option<Boundary>,
    /// What the policy `model` reckoned with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelJson>,
    /// What was expected of the settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted: Option<PredictedJson>,
    /// What was measured of them; a change learns it some seconds later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<EffectJson>,
    /// Inputs.
    pub signals: SignalsJson,
}

/// What the policy `model` reckoned with.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelJson {
    /// Fixed cost of a flush, ms.
    pub fixed_ms: f64,
    /// Cost of a KiB, microseconds; absent while the sizes are too alike to tell.
    pub per_kib_us: Option<f64>,
    /// Events a second that it was made for.
    pub rate: f64,
    /// Cap on the share of the time in which a flush is in flight.
    pub busy_cap: f64,
    /// Candidate: shortest interval under the caps, microseconds.
    pub by_caps_us: f64,
    /// Candidate: longest interval within the wanted p99, microseconds.
    pub by_objective_us: Option<f64>,
}

/// What is expected of settings.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PredictedJson {
    /// 99th percentile of the latency, ms.
    pub p99_ms: f64,
    /// Share of the time in which a flush is in flight.
    pub busy_share: f64,
}

/// What was measured of a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EffectJson {
    /// How long after it, ms.
    pub after_ms: u64,
    /// Whether rate and cost of a flush stayed what they were; if not, the numbers tell more of the load than of the change.
    pub same_load: bool,
    /// 99th percentile of the latency, ms.
    pub p99_ms: BeforeAfterJson,
    /// Share of the time in which a flush is in flight.
    pub busy_share: BeforeAfterJson,
    /// CPU time per event, microseconds.
    pub cpu_us_per_event: BeforeAfterJson,
    /// Flushes a second.
    pub flushes_per_s: BeforeAfterJson,
}

/// One number before a change and after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BeforeAfterJson {
    /// Before.
    pub before: Option<f64>,
    /// After.
    pub after: Option<f64>,
}

/// What became of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Applied {
    /// Written to the settings page.
    Applied,
    /// Advice only: the pipeline is in mode `observe`.
    Advised,
    /// Nothing to change.
    Held,
}

/// Which limit bound a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Boundary {
    /// Smallest value of the pipeline.
    Min,
    /// Largest value of the pipeline.
    Max,
    /// Step limit.
    Slew,
}

/// An error body after RFC 9457 (`application/problem+json`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `about:blank`, or a URI that names the kind.
    #[serde(rename = "type")]
    pub kind: String,
    /// Short name.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// Stable code, for programs.
    pub code: String,
    /// What went wrong, with the value.
    pub detail: String,
    /// JSON pointer to the offending field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// What to do.
    pub fix: String,
}
