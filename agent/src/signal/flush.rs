//! Flushes: report deltas in; size, duration, rate, busy share, causes and cost out.
//!
//! The newest ten flushes or so, not the newest tick: at two flushes a second a tick holds none. The busy share looks at
//! a whole second, because a flush is counted when it ends, and one of 90 ms fills a tick and leaves the next one empty.

use crate::aggregate::report::{FlushCauses, ReportDelta};
use crate::signal::causes::{CauseShares, CauseTracker};
use crate::signal::flush_cost::{CostStep, FlushCost, FlushCostTracker, FlushSums};
use crate::signal::quotient::Quotient;
use crate::units::{Nanos, Ratio};

/// What is known of the flushes of a pipeline.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Flushes {
    /// Mean size, bytes.
    pub bytes: Option<f64>,
    /// Mean duration, ms.
    pub duration_ms: Option<f64>,
    /// How many a second.
    pub per_s: Option<f64>,
    /// Share of the time in which one is in flight.
    pub busy: Option<Ratio>,
    /// Why they began.
    pub causes: Option<CauseShares>,
    /// How many failed a second.
    pub failed_per_s: Option<f64>,
    /// What one costs.
    pub cost: Option<FlushCost>,
    /// This tick revealed that the cost has changed.
    pub cost_step: Option<CostStep>,
    /// Share of the time in which senders had to wait for room.
    pub stalled: Option<Ratio>,
}

/// Follows the flushes of a pipeline.
#[derive(Debug)]
pub struct FlushTracker {
    bytes: Quotient,
    duration_ns: Quotient,
    per_ns: Quotient,
    busy_ns: Quotient,
    failed_per_ns: Quotient,
    stalled_ns: Quotient,
    causes: CauseTracker,
    cost: FlushCostTracker,
    cost_step: Option<CostStep>,
}

/// Flushes that make a mean.
const ENOUGH: u64 = 10;
/// Ticks looked back over.
const TICKS: usize = 50;

impl Default for FlushTracker {
    fn default() -> Self {
        let by_second = || Quotient::over(Nanos::SECOND.0, TICKS);
        Self {
            bytes: Quotient::over(ENOUGH, TICKS),
            duration_ns: Quotient::over(ENOUGH, TICKS),
            per_ns: by_second(),
            busy_ns: by_second(),
            failed_per_ns: by_second(),
            stalled_ns: by_second(),
            causes: CauseTracker::default(),
            cost: FlushCostTracker::default(),
            cost_step: None,
        }
    }
}

impl FlushTracker {
    /// Takes in the report of a tick, if a good one came.
    pub fn observe(&mut self, report: Option<&ReportDelta>) {
        self.cost_step = None;
        let Some(report) = report else { return };
        self.bytes.push(report.bytes_out, report.flushes);
        self.duration_ns.push(report.flush_ns, report.flushes);
        let span = report.span.0;
        self.per_ns.push(report.flushes, span);
        self.busy_ns.push(report.flush_ns, span);
        self.failed_per_ns.push(report.flush_errors, span);
        self.stalled_ns.push(report.stalled_ns, span);
        let FlushCauses { age, size, backlog, panic, waiting } = report.by_cause;
        self.causes.push([age, size, backlog, panic, waiting]);
        if let Some(sums) = FlushSums::of_report(report) {
            self.cost_step = self.cost.observe(&sums);
        }
    }

    /// What is known now.
    pub fn value(&self) -> Flushes {
        let per_s = |quotient: &Quotient| quotient.value().map(|per_ns| per_ns * 1e9);
        // Several senders may wait at once, and a flush may have begun long before the second: at most all of it.
        let share = |quotient: &Quotient| quotient.value().map(|share| Ratio(share.min(1.0)));
        Flushes {
            bytes: self.bytes.value(),
            duration_ms: self.duration_ns.value().map(|ns| ns / 1e6),
            per_s: per_s(&self.per_ns),
            busy: share(&self.busy_ns),
            causes: self.causes.value(),
            failed_per_s: per_s(&self.failed_per_ns),
            cost: self.cost.value(),
            cost_step: self.cost_step,
            stalled: share(&self.stalled_ns),
        }
    }
}
