//! Policies: what the settings should be, before any limit. A policy proposes; the governor decides how far to go.

pub mod model;
pub mod regime;

use tidegate_client::abi::Policy;

use crate::control::bounds::Bounds;
use crate::control::load::Load;
use crate::control::policy::model::{Grounds, Stretch};
use crate::control::policy::regime::{Age, Regime};
use crate::units::{BatchSize, FlushInterval, Settings};

/// What a policy proposes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Proposal {
    /// The settings.
    pub settings: Settings,
    /// What they rest on.
    pub because: Because,
    /// What should come of them, where the policy can tell.
    pub predicted: Option<Predicted>,
}

/// What a proposal rests on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Because {
    /// The pipeline's own settings, always.
    Static,
    /// The shortest interval, always.
    Greedy,
    /// A regime of the rate, and what set the age limit.
    Regime(Regime, Age),
    /// The regimes, while the cost of a flush is not known yet.
    Learning,
    /// The learnt cost of a flush.
    Model(Grounds),
}

/// What should come of settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Predicted {
    /// 99th percentile of the latency, ms.
    pub p99_ms: f64,
    /// Share of the time in which a flush is in flight.
    pub busy: f64,
}

/// What the policies remember from tick to tick.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    regime: Option<Regime>,
    stretch: Stretch,
    /// What was proposed last.
    proposed: Option<Settings>,
}

impl Memory {
    /// After a step the regime is told from the rate alone: hysteresis is for drift.
    pub fn forget_regime(&mut self) {
        self.regime = None;
    }
}

/// What the settings should be.
pub fn propose(policy: Policy, memory: &mut Memory, load: &Load, bounds: &Bounds, current: Settings) -> Proposal {
    let before = memory.regime;
    let regime = regime::regime(before, load.rate);
    memory.regime = Some(regime);
    let plain = |settings, because| Proposal { settings, because, predicted: None };
    let arrived = memory.proposed.is_none_or(|proposed| near(bounds.clamp(proposed).0, current));
    let proposal = match policy {
        Policy::Static => plain(bounds.defaults(), Because::Static),
        Policy::Greedy => plain(bounds.shortest(), Because::Greedy),
        Policy::Regime => regime::propose(regime, load),
        Policy::Model => model::propose(memory.stretch.when(arrived), load, before),
    };
    memory.proposed = Some(proposal.settings);
    proposal
}

/// Whether the interval in force is about what was proposed: only then does what is measured tell of the proposal.
fn near(proposed: Settings, current: Settings) -> bool {
    let (a, b) = (proposed.interval.0, current.interval.0);
    a.abs_diff(b) <= a.max(b) / 5 + 100
}

/// Whole KiB, and steps of the interval that a human reads: no digits that mean nothing.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float becomes an integer by saturation")]
fn rounded(batch: f64, interval_us: f64) -> Settings {
    let step = if interval_us < 10_000.0 { 50.0 } else { 100.0 };
    Settings {
        batch: BatchSize(((batch / 1_024.0).round().max(1.0) as u64).saturating_mul(1_024)),
        interval: FlushInterval((interval_us / step).round().min(3.6e9 / step) as u64 * step as u64),
    }
}
