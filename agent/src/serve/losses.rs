//! Losses over time: cumulative counters in, what was lost within a span out. Bounded; one entry a second.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::aggregate::lost::Lost;
use crate::units::Nanos;

/// Runs kept: at least an hour, and far more while nothing is lost.
const KEPT: usize = 3_600;

/// Some time in which the counters did not change.
#[derive(Clone, Copy, Debug)]
struct Run {
    since: Nanos,
    until: Nanos,
    lost: Lost,
}

/// The counters as they stood, second by second. A clone shares everything but the newest run, and as long as nothing is
/// lost no more than that one changes.
#[derive(Clone, Debug, Default)]
pub struct LossLog {
    closed: Arc<VecDeque<Run>>,
    newest: Option<Run>,
}

impl LossLog {
    /// Notes how the counters stand.
    pub fn note(&mut self, now: Nanos, lost: Lost) {
        let Some(newest) = &mut self.newest else {
            self.newest = Some(Run { since: now, until: now, lost });
            return;
        };
        if now.since(newest.until) < Nanos::SECOND {
            return;
        }
        if newest.lost == lost {
            newest.until = now;
            return;
        }
        let ended = std::mem::replace(newest, Run { since: now, until: now, lost });
        let closed = Arc::make_mut(&mut self.closed);
        if closed.len() >= KEPT {
            closed.pop_front();
        }
        closed.push_back(ended);
    }

    /// What was lost between two instants, to the second, at the edges rather too much than too little.
    pub fn between(&self, from: Nanos, to: Nanos) -> Lost {
        let runs = || self.closed.iter().chain(&self.newest);
        let before = runs().rev().find(|run| run.since <= from).map(|run| run.lost).unwrap_or_default();
        let after = runs().find(|run| run.until >= to).or(self.newest.as_ref());
        after.map_or_else(Lost::default, |run| run.lost.since(&before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_common::LossReason;

    #[test]
    fn only_the_losses_of_the_span_are_told() {
        let mut log = LossLog::default();
        for second in 0..10_u64 {
            let lost = Lost::of(LossReason::RingFull, second * 10);
            log.note(Nanos::from_secs(second), lost);
            log.note(Nanos::from_secs(second) + Nanos::TICK, Lost::of(LossReason::RingFull, 999));
        }
        let between = |from, to| log.between(Nanos::from_secs(from), Nanos::from_secs(to))[LossReason::RingFull];
        assert_eq!(between(3, 5), 20);
        assert_eq!(between(0, 99), 90);
        assert_eq!(between(9, 9), 0);
        assert_eq!(LossLog::default().between(Nanos(0), Nanos::MAX), Lost::default());
    }

    #[test]
    fn while_nothing_is_lost_a_copy_shares_all_of_it() {
        let mut log = LossLog::default();
        for second in 0..10_000_u64 {
            let lost = Lost::of(LossReason::RingFull, u64::from(second >= 5_000));
            let copy = log.clone();
            log.note(Nanos::from_secs(second), lost);
            assert_eq!(Arc::ptr_eq(&copy.closed, &log.closed), second != 5_000);
        }
        let between = |from, to| log.between(Nanos::from_secs(from), Nanos::from_secs(to))[LossReason::RingFull];
        assert_eq!((between(10, 4_000), between(4_998, 4_999), between(4_998, 5_000)), (0, 0, 1));
        assert_eq!((between(5_000, 9_999), between(0, 99_999)), (0, 1));
    }
}
