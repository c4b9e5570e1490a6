//! Decisions: what was decided, from what, and why, in a stable word and in a sentence with its numbers.

use std::fmt;

use tidegate_client::abi::{
    Applied, BeforeAfterJson, Boundary, DecisionJson, EffectJson, ModelJson, Policy, PredictedJson,
};

use crate::control::breaker::Cause;
use crate::control::governor::Hold;
use crate::control::policy::model::{Constraint, Grounds};
use crate::control::policy::regime::{Age, HOT_FROM, Regime, WARM_FROM};
use crate::control::policy::{Because, Predicted, Proposal};
use crate::control::state::ShareStep;
use crate::control::trial::{BeforeAfter, Effect, SameLoad};
use crate::signal::exact::exp;
use crate::signal::flush_cost::CostStep;
use crate::signal::rate::Step;
use crate::signal::{Degraded, Signals};
use crate::units::{EventsPerSec, Generation, Nanos, PipelineName, Settings};

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident $word:literal,)*) => {
        /// Why a decision is what it is. The words are stable: metrics and scripts count by them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its stable word.
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

reasons! {
    /// The first signals came.
    Start "start",
    /// The load drifted and is cold.
    Cold "cold",
    /// The load drifted and is warm.
    Warm "warm",
    /// The load drifted and is hot.
    Hot "hot",
    /// The policy always flushes as soon as it can.
    Greedy "greedy",
    /// The policy always keeps the pipeline's own settings.
    Static "static",
    /// What a flush costs is not known yet.
    Learning "learning",
    /// The cap on the busy share of the flusher decides.
    BusyCap "busy_cap",
    /// The cap on flushes a second decides.
    FlushCap "flush_cap",
    /// The cap on CPU time decides.
    CpuCap "cpu_cap",
    /// The wanted p99 decides.
    Objective "objective",
    /// The middle between caps and wanted p99.
    Middle "middle",
    /// The bytes alone keep the flusher busy beyond its cap.
    Capacity "capacity",
    /// The rate stepped up.
    StepRise "step_rise",
    /// The rate stepped down.
    StepFall "step_fall",
    /// A flush became dearer.
    CostRise "cost_rise",
    /// A flush became cheaper.
    CostFall "cost_fall",
    /// The pipeline's share of a common budget of CPU time changed.
    Share "share",
    /// The queue passed 80 % of its capacity.
    Panic "panic",
    /// The slow trim asks what a small change does.
    Probe "probe",
    /// The slow trim found a small change to be better.
    Trim "trim",
    /// A change was taken back.
    RollBack "rolled_back",
    /// A change was taken back a short while ago: nothing is tried.
    Quarantine "quarantine",
    /// The breaker is open: the pipeline's own settings.
    BreakerOpen "breaker_open",
    /// What is wanted is what is.
    Steady "steady",
    /// A change is due, and the one before it is too recent.
    Dwell "dwell",
    /// No report has come yet.
    NoSignals "no_signals",
    /// The last good report is too old.
    Stale "stale",
    /// The newest report was ignored.
    BadReport "bad_report",
    /// Records of this tick could not be decoded: what it shows may be half of what happened.
    Lossy "lossy",
    /// A human pinned the knobs.
    Override "override",
    /// Somebody else turned the knobs, or the mode says so: hands off.
    Manual "manual",
    /// The knobs were freed.
    Freed "freed",
    /// The registration, or the mode, changed what is allowed.
    Registered "registered",
    /// Tuning is paused.
    Paused "paused",
}

impl Because {
    /// The reason of a proposal at a steady load.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Static => Reason::Static,
            Self::Greedy => Reason::Greedy,
            Self::Regime(Regime::Cold, _) => Reason::Cold,
            Self::Regime(Regime::Warm, _) => Reason::Warm,
            Self::Regime(Regime::Hot, _) => Reason::Hot,
            Self::Learning => Reason::Learning,
            Self::Model(grounds) => match grounds.constraint {
                Constraint::Busy => Reason::BusyCap,
                Constraint::Flushes => Reason::FlushCap,
                Constraint::Cpu => Reason::CpuCap,
                Constraint::Objective => Reason::Objective,
                Constraint::Middle => Reason::Middle,
                Constraint::Capacity => Reason::Capacity,
            },
        }
    }
}

/// What a decision rests on; the sentence is made from it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Basis {
    /// The policy proposed this, at this rate.
    Proposal(Proposal, EventsPerSec),
    /// The policy proposed this because the rate stepped.
    Step(Step, Proposal),
    /// The policy proposed this because the cost of a flush changed.
    Cost(CostStep, Proposal),
    /// The policy proposed this because the pipeline's share of the CPU time changed.
    Share(ShareStep, Proposal),
    /// The governor held what the policy proposed.
    Held(Hold, Proposal, EventsPerSec),
    /// The queue: bytes, capacity.
    Queue(u64, u64),
    /// The queue was nearly full again and again.
    AfterPanic,
    /// The signals cannot be trusted.
    Signals(Option<Degraded>),
    /// The breaker is open.
    Breaker(Cause),
    /// A human, until then.
    Human(Option<Nanos>),
    /// What the pipeline says it uses.
    Foreign(Settings),
    /// Nothing but the reason itself.
    Reason,
}

impl Basis {
    fn proposal(&self) -> Option<&Proposal> {
        match self {
            Self::Proposal(proposal, _)
            | Self::Step(_, proposal)
            | Self::Cost(_, proposal)
            | Self::Share(_, proposal)
            | Self::Held(_, proposal, _) => Some(proposal),
            _ => None,
        }
    }
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
    /// Policy that proposed it.
    pub policy: Policy,
    /// Why.
    pub reason: Reason,
    /// What it rests on.
    pub basis: Basis,
    /// Which limit bound it.
    pub bound_by: Option<Boundary>,
    /// Its inputs.
    pub signals: Signals,
    /// Measured effect of the change before it, when that has just become known.
    pub effect: Option<Effect>,
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
            policy: self.policy.word().to_owned(),
            reason: self.reason.word().to_owned(),
            explanation: self.explanation(),
            bound_by: self.bound_by,
            model: self.basis.proposal().and_then(|p| match p.because {
                Because::Model(grounds) => Some(model_json(&grounds)),
                _ => None,
            }),
            predicted: self
                .basis
                .proposal()
                .and_then(|p| p.predicted)
                .map(|Predicted { p99_ms, busy }| PredictedJson { p99_ms, busy_share: busy }),
            effect: None,
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
            Basis::Proposal(proposal, rate) => match self.reason {
                Reason::Probe => format!("{}; a small change is tried, to see what it does", sentence(&proposal, rate)),
                Reason::Trim => format!("{}; a small change was measured to be better", sentence(&proposal, rate)),
                _ => sentence(&proposal, rate),
            },
            Basis::Step(Step { from, to }, proposal) => {
                format!("the rate stepped from {:.0} to {:.0} events/s: {}", from.0, to.0, sentence(&proposal, to))
            }
            Basis::Cost(CostStep { from_ms, to_ms }, proposal) => format!(
                "a flush took {from_ms:.2} ms and now takes {to_ms:.2} ms: {}",
                sentence(&proposal, self.signals.rate.unwrap_or_default())
            ),
            Basis::Share(ShareStep { from, to }, proposal) => format!(
                "the share of the CPU time went from {from:.3} to {to:.3} cores: {}",
                sentence(&proposal, self.signals.rate.unwrap_or_default())
            ),
            Basis::Held(hold, proposal, rate) => format!("{}; {}", sentence(&proposal, rate), held(hold)),
            Basis::Queue(bytes, capacity) => {
                format!("{bytes} of {capacity} bytes are queued, above 80 %: drain in the largest batches")
            }
            Basis::AfterPanic => "the queue was nearly full again and again: drain a while longer".to_owned(),
            Basis::Signals(Some(degraded)) => format!("nothing changes while the signals are not whole: {degraded}"),
            Basis::Signals(None) => "nothing changes until two reports have come".to_owned(),
            Basis::Breaker(cause) => {
                format!("{}: the pipeline's own settings hold until it has been well for a while", cause.words())
            }
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
                Reason::Registered => "the registration or the mode changed what is allowed",
                Reason::Paused => "tuning is paused",
                Reason::Manual => "the mode is manual: hands off",
                Reason::RollBack => {
                    "the change before did harm, or a human took it back: as it was, and hands off for a while"
                }
                _ => "as before",
            }
            .to_owned(),
        }
    }
}

fn held(hold: Hold) -> &'static str {
    match hold {
        Hold::Deadband => "that is within 10 % of what is set",
        Hold::Dwell => "the last change is less than 1 s old",
        Hold::Reversal => "the last change of direction is too recent",
        Hold::Quarantine => "a change was taken back a short while ago, so nothing is tried",
        Hold::OnTrial => "the change before is still on trial",
        Hold::SinkDecides => "the sink's own pace begins the flushes, so that no knob decides anything",
    }
}

/// What the policy proposes, as a sentence.
fn sentence(proposal: &Proposal, rate: EventsPerSec) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for reading")]
    let ms = proposal.settings.interval.0 as f64 / 1e3;
    let (rate, kib) = (rate.0, proposal.settings.batch.0 / 1_024);
    match proposal.because {
        Because::Static => "the policy keeps the pipeline's own settings".to_owned(),
        Because::Greedy => "the policy flushes as soon as the sink is free".to_owned(),
        Because::Regime(regime, age) => {
            let age = match age {
                Age::Regime => "",
                Age::Fill => ", the time to fill it at the newest rate",
                Age::Objective => ", what the wanted p99 leaves after a flush",
            };
            by_regime(regime, rate, kib, ms, age)
        }
        Because::Learning => format!("what a flush costs is not known yet: flush every {ms:.1} ms, to learn it"),
        Because::Model(grounds) => by_model(&grounds, ms),
    }
}

fn by_regime(regime: Regime, rate: f64, kib: u64, ms: f64, age: &str) -> String {
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

fn by_model(grounds: &Grounds, ms: f64) -> String {
    let Grounds { fixed_ms, per_kib_us, rate, busy_cap, constraint, .. } = *grounds;
    let percent = 100.0 * busy_cap;
    let cost = match per_kib_us {
        Some(kib) => format!("a flush costs {fixed_ms:.2} ms and {kib:.1} us a KiB, at {rate:.0} events/s"),
        None => format!("a flush takes {fixed_ms:.2} ms, at {rate:.0} events/s"),
    };
    match constraint {
        Constraint::Busy => {
            format!("{cost}: {ms:.2} ms is the shortest interval with the flusher busy {percent:.0} % at most")
        }
        Constraint::Flushes => format!("{cost}: {ms:.2} ms keeps the cap on flushes a second"),
        Constraint::Cpu => format!("{cost}: {ms:.2} ms keeps the cap on CPU time"),
        Constraint::Objective => format!("{cost}: {ms:.2} ms is the longest interval within the wanted p99"),
        Constraint::Middle => format!("{cost}: {ms:.2} ms lies midway between the caps and the wanted p99"),
        Constraint::Capacity => format!(
            "{cost}: the bytes alone keep the flusher busy beyond {percent:.0} %, no interval helps; flush every {ms:.1} ms \
             and give the sink more capacity"
        ),
    }
}

fn model_json(grounds: &Grounds) -> ModelJson {
    let Grounds { fixed_ms, per_kib_us, rate, busy_cap, by_caps_us, by_objective_us, constraint: _ } = *grounds;
    ModelJson { fixed_ms, per_kib_us, rate, busy_cap, by_caps_us, by_objective_us }
}

impl Effect {
    /// As the socket shows it.
    pub fn to_json(&self) -> EffectJson {
        let plain = |BeforeAfter { before, after }| BeforeAfterJson { before, after };
        let BeforeAfter { before, after } = self.ln_p99;
        EffectJson {
            after_ms: self.after_ms,
            same_load: self.load == SameLoad::Yes,
            p99_ms: BeforeAfterJson { before: before.map(exp), after: after.map(exp) },
            busy_share: plain(self.busy),
            cpu_us_per_event: plain(self.cpu_us),
            flushes_per_s: plain(self.flushes),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
