//! The sampler's own account in, the sum that has to come out out: expected = delivered + lost. Never estimates: each number
//! was counted where it arose.

use agent_common::LedgerRow;

use crate::units::Nanos;

/// What became of the firings of the sampler's timers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger(pub LedgerRow);

impl Ledger {
    /// What was counted since `earlier`. Counters that fell (the probes were loaded anew) count from zero.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let LedgerRow { period_ns, fired, idle, unwatched, delivered, refused, late, late_elsewhere } = self.0;
        let then = earlier.0;
        if fired < then.fired {
            return *self;
        }
        Self(LedgerRow {
            period_ns,
            fired: fired - then.fired,
            idle: idle.saturating_sub(then.idle),
            unwatched: unwatched.saturating_sub(then.unwatched),
            delivered: delivered.saturating_sub(then.delivered),
            refused: refused.saturating_sub(then.refused),
            late: late.saturating_sub(then.late),
            late_elsewhere: late_elsewhere.saturating_sub(then.late_elsewhere),
        })
    }

    /// Samples that there should be of what was watched.
    pub fn expected(&self) -> u64 {
        self.0.delivered.saturating_add(self.lost())
    }

    /// Samples that there are not, whatever the reason.
    pub fn lost(&self) -> u64 {
        self.lost_by_reason().iter().fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// The reasons for what was lost, each with its count.
    pub fn lost_by_reason(&self) -> [(&'static str, u64); 2] {
        [("refused", self.0.refused), ("timer_late", self.0.late)]
    }

    /// CPU time that the delivered samples stand for.
    pub fn delivered_time(&self) -> Nanos {
        Nanos(self.0.delivered.saturating_mul(self.0.period_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_expected_is_what_was_delivered_and_what_was_lost() {
        let row = LedgerRow {
            period_ns: 10,
            fired: 100,
            idle: 50,
            unwatched: 20,
            delivered: 28,
            refused: 2,
            late: 3,
            late_elsewhere: 7,
        };
        let ledger = Ledger(row);
        assert_eq!(ledger.expected(), 33);
        assert_eq!(ledger.delivered_time(), Nanos(280));
        let later = Ledger(LedgerRow { fired: 110, delivered: 38, ..row });
        assert_eq!(later.since(&ledger).expected(), 10);
        assert_eq!(ledger.since(&later), ledger, "counters that fell belong to probes that were loaded anew");
    }
}
