//! What an event costs: kernel evidence over reported events in; calls, CPU time and context switches out.
//!
//! Only ticks in which both sides are known and cover the same time count: a quotient of unlike spans means nothing.

use crate::aggregate::rows::Continuity;
use crate::aggregate::window::PipelineWindow;
use crate::signal::quotient::Quotient;
use crate::units::Nanos;

/// What an event costs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// System calls per event, while somebody looks.
    pub syscalls_per_event: Option<f64>,
    /// CPU time per event, microseconds.
    pub cpu_us_per_event: Option<f64>,
    /// Context switches per flush.
    pub switches_per_flush: Option<f64>,
}

/// Follows the cost of a pipeline.
#[derive(Debug)]
pub struct CostTracker {
    calls: Quotient,
    cpu_ns: Quotient,
    switches: Quotient,
    /// Ticks with events and without a count of calls, in a row.
    uncounted: u32,
}

/// Calls that have not been counted for so many ticks with events are not counted any more.
const UNCOUNTED: u32 = 5;
/// Events that make a mean.
const ENOUGH_EVENTS: u64 = 1_000;
/// Flushes that make a mean.
const ENOUGH_FLUSHES: u64 = 10;
/// Ticks looked back over.
const TICKS: usize = 50;

impl Default for CostTracker {
    fn default() -> Self {
        Self {
            calls: Quotient::over(ENOUGH_EVENTS, TICKS),
            cpu_ns: Quotient::over(ENOUGH_EVENTS, TICKS),
            switches: Quotient::over(ENOUGH_FLUSHES, TICKS),
            uncounted: 0,
        }
    }
}

impl CostTracker {
    /// Takes in a tick of length `tick`.
    pub fn observe(&mut self, tick: Nanos, pipeline: &PipelineWindow) {
        let Some(report) = pipeline.report.as_ref().filter(|r| r.span.0 <= tick.0.saturating_add(tick.0 / 2)) else {
            return; // After a report that did not come, the next one covers two ticks and the kernel's rows one.
        };
        match pipeline.syscalls.filter(|s| s.continuity == Continuity::Whole) {
            Some(syscalls) => {
                self.uncounted = 0;
                self.calls.push(syscalls.calls, report.events_in);
            }
            None if report.events_in > 0 => {
                self.uncounted = self.uncounted.saturating_add(1);
                if self.uncounted >= UNCOUNTED {
                    self.calls.forget();
                }
            }
            None => {}
        }
        if let Some(cpu_ns) = pipeline.task.and_then(|t| t.cpu_ns) {
            self.cpu_ns.push(cpu_ns, report.events_in);
        }
        if let Some(switches) = pipeline.task.and_then(|t| t.switches) {
            self.switches.push(switches, report.flushes);
        }
    }

    /// What is known now.
    pub fn value(&self) -> Cost {
        Cost {
            syscalls_per_event: self.calls.value(),
            cpu_us_per_event: self.cpu_ns.value().map(|ns| ns / 1e3),
            switches_per_flush: self.switches.value(),
        }
    }
}
