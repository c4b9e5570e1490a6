//! The log of a pipeline's decisions: decisions of every tick in, those worth keeping out, in a bounded row.
//!
//! Kept is what changed something, and a hold whose reason is news; "as before", ten times a second, is not. A hold is
//! kept at most once a second, so that signals that flicker cannot push out what matters.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tidegate_client::abi::{Applied, DecisionJson};

use crate::control::decision::{Decision, Reason};
use crate::control::trial::Effect;
use crate::units::{Nanos, PipelineName};

/// Decisions kept of a pipeline.
pub const KEPT: usize = 512;
/// Shortest time between two holds that are kept.
pub const HOLD_SPACING: Nanos = Nanos::SECOND;

/// Decisions of one pipeline.
#[derive(Clone, Debug, Default)]
pub struct Log {
    kept: Arc<VecDeque<Arc<DecisionJson>>>,
    sequence: u64,
    last: Option<Reason>,
    last_hold: Option<Nanos>,
    by_reason: BTreeMap<Reason, u64>,
}

impl Log {
    /// Keeps the decision when it is worth it, and returns what was kept.
    ///
    /// The effect of a change is known some seconds after it. The change is then returned once more with its effect, under
    /// its old sequence number, before whatever this tick decided.
    pub fn note(&mut self, name: &PipelineName, decision: &Decision) -> Vec<DecisionJson> {
        let told = decision.effect.and_then(|effect| self.tell(effect));
        told.into_iter().chain(self.keep(name, decision)).collect()
    }

    /// The newest applied change learns what it did.
    fn tell(&mut self, effect: Effect) -> Option<DecisionJson> {
        let kept = Arc::make_mut(&mut self.kept);
        let change = kept.iter_mut().rev().find(|d| d.applied == Applied::Applied && d.effect.is_none())?;
        let change = Arc::make_mut(change);
        change.effect = Some(effect.to_json());
        Some(change.clone())
    }

    fn keep(&mut self, name: &PipelineName, decision: &Decision) -> Option<DecisionJson> {
        if !self.is_news(decision) {
            return None;
        }
        if decision.applied == Applied::Held {
            self.last_hold = Some(decision.time);
        }
        self.last = Some(decision.reason);
        self.sequence += 1;
        *self.by_reason.entry(decision.reason).or_default() += 1;
        let json = decision.to_json(name, self.sequence);
        // The newest view nearly always holds the row: what is copied then is pointers, never decisions.
        let kept = Arc::make_mut(&mut self.kept);
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back(Arc::new(json.clone()));
        Some(json)
    }

    /// What was kept, oldest first.
    pub fn kept(&self) -> Arc<VecDeque<Arc<DecisionJson>>> {
        Arc::clone(&self.kept)
    }

    /// Decisions kept so far, by reason.
    pub fn by_reason(&self) -> Vec<(&'static str, u64)> {
        self.by_reason.iter().map(|(reason, count)| (reason.word(), *count)).collect()
    }

    fn is_news(&self, decision: &Decision) -> bool {
        if decision.applied != Applied::Held {
            return true;
        }
        let news = match decision.reason {
            // "As before" is news only after something else held the knobs.
            Reason::Steady | Reason::Dwell => self.last.is_none_or(holds),
            reason => self.last != Some(reason),
        };
        news && self.last_hold.is_none_or(|then| decision.time.since(then) >= HOLD_SPACING)
    }
}

/// Whether tuning stands still for this reason.
fn holds(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::NoSignals
            | Reason::Stale
            | Reason::BadReport
            | Reason::Lossy
            | Reason::Manual
            | Reason::Paused
            | Reason::Quarantine
            | Reason::BreakerOpen
    )
}
