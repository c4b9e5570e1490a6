//! Flushes: report deltas in; size, duration and rate out.
//!
//! The newest ten flushes or so, not the newest tick: at two flushes a second a tick holds none.

use crate::aggregate::report::ReportDelta;
use crate::signal::quotient::Quotient;
use crate::units::Nanos;

/// What is known of the flushes of a pipeline.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Flushes {
    /// Mean size, bytes.
    pub bytes: Option<f64>,
    /// Mean duration, ms.
    pub duration_ms: Option<f64>,
    /// How many a second.
    pub per_s: Option<f64>,
}

/// Follows the flushes of a pipeline.
#[derive(Debug)]
pub struct FlushTracker {
    bytes: Quotient,
    duration_ns: Quotient,
    per_ns: Quotient,
}

/// Flushes that make a mean.
const ENOUGH: u64 = 10;
/// Ticks looked back over.
const TICKS: usize = 50;

impl Default for FlushTracker {
    fn default() -> Self {
        Self {
            bytes: Quotient::over(ENOUGH, TICKS),
            duration_ns: Quotient::over(ENOUGH, TICKS),
            per_ns: Quotient::over(Nanos::SECOND.0, TICKS),
        }
    }
}

impl FlushTracker {
    /// Takes in the report of a tick, if a good one came.
    pub fn observe(&mut self, report: Option<&ReportDelta>) {
        if let Some(report) = report {
            self.bytes.push(report.bytes_out, report.flushes);
            self.duration_ns.push(report.flush_ns, report.flushes);
            self.per_ns.push(report.flushes, report.span.0);
        }
    }

    /// What is known now.
    pub fn value(&self) -> Flushes {
        Flushes {
            bytes: self.bytes.value(),
            duration_ms: self.duration_ns.value().map(|ns| ns / 1e6),
            per_s: self.per_ns.value().map(|per_ns| per_ns * 1e9),
        }
    }
}
