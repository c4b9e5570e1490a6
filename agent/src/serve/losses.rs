//! Losses over time: cumulative counters in, what was lost within a span out. Bounded; one entry a second.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::aggregate::lost::Lost;
use crate::units::Nanos;

/// Entries kept: an hour.
const KEPT: usize = 3_600;

/// The counters as they stood, second by second; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct LossLog(Arc<VecDeque<(Nanos, Lost)>>);

impl LossLog {
    /// Notes how the counters stand.
    pub fn note(&mut self, now: Nanos, lost: Lost) {
        if self.0.back().is_some_and(|(last, _)| now.since(*last) < Nanos::SECOND) {
            return;
        }
        let log = Arc::make_mut(&mut self.0);
        if log.len() >= KEPT {
            log.pop_front();
        }
        log.push_back((now, lost));
    }

    /// What was lost between two instants, to the second, at the edges rather too much than too little.
    pub fn between(&self, from: Nanos, to: Nanos) -> Lost {
        let before = self.0.iter().rev().find(|(at, _)| *at <= from).map(|(_, lost)| *lost).unwrap_or_default();
        let after = self.0.iter().find(|(at, _)| *at >= to).or_else(|| self.0.back());
        after.map_or_else(Lost::default, |(_, lost)| lost.since(&before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_losses_of_the_span_are_told() {
        let mut log = LossLog::default();
        for second in 0..10_u64 {
            let lost = Lost { ring_full: second * 10, ..Lost::default() };
            log.note(Nanos::from_secs(second), lost);
            log.note(Nanos::from_secs(second) + Nanos::TICK, Lost { ring_full: 999, ..Lost::default() });
        }
        let between = |from, to| log.between(Nanos::from_secs(from), Nanos::from_secs(to)).ring_full;
        assert_eq!(between(3, 5), 20);
        assert_eq!(between(0, 99), 90);
        assert_eq!(LossLog::default().between(Nanos(0), Nanos::MAX), Lost::default());
    }
}
