//! Decisions: what was decided, from what, and why, in a stable word and in a sentence with its numbers.

use std::fmt;

use tidegate_client::abi::{Applied, Boundary, DecisionJson};

use crate::control::governor::Hold;
use crate::control::policy::regime::{Age, HOT_FROM, Proposal, Regime, WARM_FROM};
use crate::signal::rate::Step;
use crate::signal::{Degraded, Signals};
use crate::units::{EventsPerSec, Generation, Nanos, PipelineName, Settings};

/// Name of the policy, as decisions carry it.
pub const POLICY: &str = "regime";

/// Why a decision is what it is. The words are stable: metrics and scripts count by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The first signals came.
    Start,
    /// The load drifted and is cold.
    Cold,
    /// The load drifted and is warm.
    Warm,
    /// The load drifted and is hot.
    Hot,
    /// The rate stepped up.
    StepRise,
    /// The rate stepped down.
    StepFall,
    /// The queue passed 80 % of its capacity.
    Panic,
    /// What is wanted is what is.
    Steady,
    /// A change is due, and the one before it is too recent.
    Dwell,
    /// No report has come yet.
    NoSignals,
    /// The last good report is too old.
    Stale,
    /// The newest report was ignored.
    BadReport,
    /// Records of this tick could not be decoded: what it shows may be half of what happened.
    Lossy,
    /// A human pinned the knobs.
    Override,
    /// Somebody else turned the knobs: hands off.
    Manual,
    /// The knobs were freed.
    Freed,
    /// The registration changed what is allowed.
    Registered,
    /// Tuning is paused.
    Paused,
    /// A human wanted the settings before the newest change back.
    RolledBack,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::Start,
        Self::Cold,
        Self::Warm,
        Self::Hot,
        Self::StepRise,
        Self::StepFall,
        Self::Panic,
        Self::Steady,
        Self::Dwell,
        Self::NoSignals,
        Self::Stale,
        Self::BadReport,
        Self::Lossy,
        Self::Override,
        Self::Manual,
        Self::Freed,
        Self::Registered,
        Self::Paused,
        Self::RolledBack,
    ];

    /// Its stable word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Cold => "cold",
            Self::Warm => "warm",
            Self::Hot => "hot",
            Self::StepRise => "step_rise",
            Self::StepFall => "step_fall",
            Self::Panic => "panic",
            Self::Steady => "steady",
            Self::Dwell => "dwell",
            Self::NoSignals => "no_signals",
            Self::Stale => "stale",
            Self::BadReport => "bad_report",
            Self::Lossy => "lossy",
            Self::Override => "override",
            Self::Manual => "manual",
            Self::Freed => "freed",
            Self::Registered => "registered",
            Self::Paused => "paused",
            Self::RolledBack => "rolled_back",
        }
    }
}

/// What a decision rests on; the sentence is made from it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Basis {
    /// The policy proposed this, at this rate.
    Proposal(Proposal, EventsPerSec),
    /// The policy proposed this because of a step.
    Step(Step, Proposal),
    /// The governor held what the policy proposed.
    Held(Hold, Proposal, EventsPerSec),
    /// The queue: bytes, capacity.
    Queue(u64, u64),
    /// The signals cannot be trusted.
    Signals(Option<Degraded>),
    /// A human, until then.
    Human(Option<Nanos>),
    /// What the pipeline says it uses.
    Foreign(Settings),
    /// Nothing but the reason itself.
    Reason,
}

/// A decision about one pipeline.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// When.
    pub time: Nanos,
    /// Generation of the settings on the page after it.
    pub generation: Generation,
    /// What became of it.
    pub applied: Applied,
    /// Settings decided on.
    pub settings: Settings,
    /// Settings before it.
    pub from: Settings,
    /// Why.
    pub reason: Reason,
    /// What it rests on.
    pub basis: Basis,
    /// Which limit bound it.
    pub bound_by: Option<Boundary>,
    /// Its inputs.
    pub signals: Signals,
}

impl Decision {
    /// As the socket shows it; `sequence` counts the decisions kept of the pipeline.
    pub fn to_json(&self, name: &PipelineName, sequence: u64) -> DecisionJson {
        DecisionJson {
            name: name.as_str().to_owned(),
            sequence,
            time_ns: self.time.0,
            generation: self.generation.0,
            applied: self.applied,
            batch_bytes: self.settings.batch.0,
            flush_interval_us: self.settings.interval.0,
            from_batch_bytes: self.from.batch.0,
            from_flush_interval_us: self.from.interval.0,
            policy: POLICY.to_owned(),
            reason: self.reason.word().to_owned(),
            explanation: self.explanation(),
            bound_by: self.bound_by,
            signals: self.signals.to_json(name),
        }
    }

    /// The reason in a sentence.
    pub fn explanation(&self) -> String {
        let limit = match self.bound_by {
            Some(Boundary::Min) => "; held at the smallest value the pipeline accepts",
            Some(Boundary::Max) => "; held at the largest value the pipeline accepts",
            Some(Boundary::Slew) => "; on the way there in steps of at most 25 % up and 50 % down",
            None => "",
        };
        format!("{}{limit}", self.cause())
    }

    fn cause(&self) -> String {
        match self.basis {
            Basis::Proposal(proposal, rate) => sentence(&proposal, rate),
            Basis::Step(Step { from, to }, proposal) => {
                format!("the rate stepped from {:.0} to {:.0} events/s: {}", from.0, to.0, sentence(&proposal, to))
            }
            Basis::Held(hold, proposal, rate) => {
                let why = match hold {
                    Hold::Deadband => "that is within 10 % of what is set",
                    Hold::Dwell => "the last change is less than 1 s old",
                    Hold::Reversal => "the last change of direction is too recent",
                };
                format!("{}; {why}", sentence(&proposal, rate))
            }
            Basis::Queue(bytes, capacity) => {
                format!("{bytes} of {capacity} bytes are queued, above 80 %: drain in the largest batches")
            }
            Basis::Signals(Some(degraded)) => format!("nothing changes while the signals are not whole: {degraded}"),
            Basis::Signals(None) => "nothing changes until two reports have come".to_owned(),
            Basis::Human(Some(until)) => {
                format!("a human pinned the knobs for another {:.0} s", until.since(self.time).as_secs_f64())
            }
            Basis::Human(None) => "a human pinned the knobs until they are freed".to_owned(),
            Basis::Foreign(Settings { batch, interval }) => format!(
                "the pipeline uses {} bytes and {} us in spite of generation {}: somebody else holds the knobs, hands off \
                 until they are freed",
                batch.0, interval.0, self.generation.0
            ),
            Basis::Reason => match self.reason {
                Reason::Freed => "the knobs were freed",
                Reason::Registered => "the registration changed what is allowed",
                Reason::Paused => "tuning is paused",
                Reason::RolledBack => "somebody wanted the settings before the newest change back",
                _ => "as before",
            }
            .to_owned(),
        }
    }
}

/// What the policy proposes, as a sentence.
fn sentence(proposal: &Proposal, rate: EventsPerSec) -> String {
    let Proposal { regime, settings, age } = proposal;
    let age = match age {
        Age::Regime => "",
        Age::Fill => ", the time to fill it at the newest rate",
        Age::Objective => ", what the wanted p99 leaves after a flush",
    };
    #[expect(clippy::cast_precision_loss, reason = "for reading")]
    let ms = settings.interval.0 as f64 / 1e3;
    let (rate, kib) = (rate.0, settings.batch.0 / 1_024);
    match regime {
        Regime::Cold => format!("{rate:.0} events/s is cold, below {:.0}: flush every {ms:.1} ms{age}", WARM_FROM.0),
        Regime::Warm => format!(
            "{rate:.0} events/s is warm, between {:.0} and {:.0}: flush at {kib} KiB or after {ms:.1} ms{age}",
            WARM_FROM.0, HOT_FROM.0
        ),
        Regime::Hot => {
            format!("{rate:.0} events/s is hot, from {:.0}: fill {kib} KiB, for at most {ms:.1} ms{age}", HOT_FROM.0)
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
