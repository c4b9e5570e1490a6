//! What the kernel alone tells of a pipeline: what moved through its descriptors within a tick in; rate, batches, gaps,
//! cost and cause of its flushes out. Needs no report and no change of the process, and never guesses what it was not told.
//!
//! The sink is where the most bytes go out, the input where they come in besides it; how it was chosen is said with it.

use agent_common::{FLOW_ANSWERED, FLOW_EACH_WRITE, FLOW_READS, FLOW_WRITES, FlowFlushes};
use tidegate_client::abi::{DescriptorJson, KernelGradeJson};

use crate::aggregate::flows::FlowDelta;
use crate::signal::flush_cause::{CauseTracker, FlushCause};
use crate::signal::flush_cost::{CostStep, FlushCost, FlushCostTracker, FlushSums};
use crate::signal::quotient::Quotient;
use crate::signal::rate::{RateTracker, Step};
use crate::signal::roles::{Answering, Descriptor, Roles};
use crate::units::{EventsPerSec, Nanos};

/// What the kernel alone tells of a pipeline.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KernelGrade {
    /// Where most of its bytes come in.
    pub input: Option<Descriptor>,
    /// Where its flushes go.
    pub sink: Option<Descriptor>,
    /// Whether the sink answers its flushes.
    pub answering: Option<Answering>,
    /// Bytes that come in by all descriptors but the sink, a second.
    pub bytes_in_per_s: Option<f64>,
    /// Event rate over the rolling window; only where the size of an event is known.
    pub rate: Option<EventsPerSec>,
    /// Event rate of the newest ticks that hold enough to tell; likewise.
    pub newest_rate: Option<EventsPerSec>,
    /// A step of the rate that this tick revealed; in bytes where the size of an event is not known.
    pub step: Option<Step>,
    /// Size of an event, bytes, as it was registered.
    pub event_bytes: Option<f64>,
    /// Mean size of a flush, bytes as they went out.
    pub flush_bytes: Option<f64>,
    /// Mean number of events of a flush; only where the size of an event is known.
    pub flush_events: Option<f64>,
    /// Mean duration of a flush, ms.
    pub flush_ms: Option<f64>,
    /// Flushes a second.
    pub flushes_per_s: Option<f64>,
    /// Mean time from the end of a flush to the begin of the next, ms.
    pub gap_ms: Option<f64>,
    /// Share of the time in which a flush was in flight; above 1 where several were.
    pub busy: Option<f64>,
    /// Share of the time in which a thread was in a call that writes to the sink.
    pub in_writes: Option<f64>,
    /// What a flush costs.
    pub cost: Option<FlushCost>,
    /// Which bytes its sizes are.
    pub cost_of: Option<SizedBy>,
    /// This tick revealed that the cost has changed.
    pub cost_step: Option<CostStep>,
    /// Why flushes begin.
    pub cause: Option<FlushCause>,
}

/// What a flush is sized by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizedBy {
    /// The bytes that came in between its begin and that of the one before.
    Arrival,
    /// The bytes that went out, packed or not: there is no input.
    Departure,
}

/// Follows a process by its descriptors.
#[derive(Debug)]
pub struct KernelTracker {
    event_bytes: Option<u64>,
    roles: Roles,
    rate: RateTracker,
    /// Bytes that do not make a whole unit yet.
    rest: u64,
    flush_bytes: Quotient,
    duration_ns: Quotient,
    per_ns: Quotient,
    gap_ns: Quotient,
    busy: Quotient,
    in_writes: Quotient,
    by_arrival: FlushCostTracker,
    by_departure: FlushCostTracker,
    cost_step: Option<CostStep>,
    cause: CauseTracker,
}

/// Without a size of events, the rate is followed in units of so many bytes.
const UNIT: u64 = 1_024;
/// Flushes that make a mean.
const ENOUGH: u64 = 50;
/// Ticks looked back over.
const TICKS: usize = 50;

impl KernelTracker {
    /// Of a process whose events have `event_bytes`, if that is known.
    pub fn new(event_bytes: Option<u64>) -> Self {
        let second = || Quotient::over(Nanos::SECOND.0, TICKS);
        Self {
            event_bytes: event_bytes.filter(|bytes| *bytes > 0),
            roles: Roles::default(),
            rate: RateTracker::default(),
            rest: 0,
            flush_bytes: Quotient::over(ENOUGH, TICKS),
            duration_ns: Quotient::over(ENOUGH, TICKS),
            gap_ns: Quotient::over(ENOUGH, TICKS),
            per_ns: second(),
            busy: second(),
            in_writes: second(),
            by_arrival: FlushCostTracker::of_inexact_sizes(),
            by_departure: FlushCostTracker::default(),
            cost_step: None,
            cause: CauseTracker::default(),
        }
    }

    /// Takes in what moved within a tick of length `span`.
    pub fn observe(&mut self, span: Nanos, flows: &[FlowDelta]) -> KernelGrade {
        self.roles.observe(flows);
        let bytes_in: u64 = flows.iter().filter(|f| !self.roles.is_sink(f)).map(|f| f.ways[FLOW_READS].bytes).sum();
        let unit = self.event_bytes.unwrap_or(UNIT);
        let whole = self.rest.saturating_add(bytes_in);
        self.rest = whole % unit;
        let step = self.rate.observe(span, whole / unit);
        let account = match self.roles.answering() {
            Some(Answering::Never) => FLOW_EACH_WRITE,
            Some(Answering::Always) | None => FLOW_ANSWERED,
        };
        let sinks: Vec<&FlowDelta> = flows.iter().filter(|f| self.roles.is_sink(f)).collect();
        self.cost_step = None;
        let (mut flushes, mut duration, mut in_writes) = (0_u64, 0_u64, 0_u64);
        for sink in sinks {
            let of_sink = &sink.flushes[account];
            self.flushed(of_sink);
            flushes = flushes.saturating_add(of_sink.flushes);
            duration = duration.saturating_add(of_sink.duration_ns);
            in_writes = in_writes.saturating_add(sink.ways[FLOW_WRITES].total_ns);
        }
        self.per_ns.push(flushes, span.0);
        self.busy.push(duration, span.0);
        self.in_writes.push(in_writes, span.0);
        self.grade(step)
    }

    fn flushed(&mut self, flushes: &FlowFlushes) {
        self.flush_bytes.push(flushes.bytes, flushes.flushes);
        self.duration_ns.push(flushes.duration_ns, flushes.flushes);
        self.gap_ns.push(flushes.gap_ns, flushes.intervals);
        self.cause.observe(flushes);
        self.by_departure.observe(&FlushSums {
            flushes: flushes.flushes,
            bytes: flushes.bytes,
            bytes_squared: flushes.bytes_squared,
            duration_ns: flushes.duration_ns,
            bytes_us: flushes.bytes_us,
            us_squared: flushes.us_squared,
        });
        let step = self.by_arrival.observe(&FlushSums {
            flushes: flushes.intervals,
            bytes: flushes.arrived,
            bytes_squared: flushes.arrived_squared,
            duration_ns: flushes.paired_ns,
            bytes_us: flushes.arrived_us,
            us_squared: flushes.paired_us_squared,
        });
        self.cost_step = step.or(self.cost_step);
    }

    #[expect(clippy::cast_precision_loss, reason = "the size of an event is far below 2^52")]
    fn grade(&self, step: Option<Step>) -> KernelGrade {
        let unit = self.event_bytes.unwrap_or(UNIT) as f64;
        let known = |rate: EventsPerSec| self.event_bytes.map(|_| rate);
        let rolling = self.rate.rolling();
        let has_sink = self.roles.sink().is_some();
        let flushes_per_s = self.per_ns.value().map(|per_ns| per_ns * 1e9).filter(|_| has_sink);
        let rate = rolling.and_then(known).filter(|_| self.roles.input().is_some());
        let milli = |ns: f64| ns / 1e6;
        let (cost, sized_by) = match self.roles.input() {
            Some(_) => (self.by_arrival.value(), SizedBy::Arrival),
            None => (self.by_departure.value(), SizedBy::Departure),
        };
        KernelGrade {
            input: self.roles.input(),
            sink: self.roles.sink(),
            answering: self.roles.answering(),
            bytes_in_per_s: rolling.map(|rate| rate.0 * unit).filter(|_| self.roles.input().is_some()),
            rate,
            newest_rate: self.rate.newest().and_then(known),
            step,
            event_bytes: self.event_bytes.map(|_| unit),
            flush_bytes: self.flush_bytes.value(),
            flush_events: rate
                .zip(flushes_per_s)
                .filter(|(_, flushes)| *flushes > 0.0)
                .map(|(rate, flushes)| rate.0 / flushes),
            flush_ms: self.duration_ns.value().map(milli),
            flushes_per_s,
            gap_ms: self.gap_ns.value().map(milli),
            busy: self.busy.value().filter(|_| has_sink),
            in_writes: self.in_writes.value().filter(|_| has_sink),
            cost,
            cost_of: cost.map(|_| sized_by),
            cost_step: self.cost_step,
            cause: self.cause.value(),
        }
    }
}

impl KernelGrade {
    /// As the socket shows it.
    pub fn to_json(&self) -> KernelGradeJson {
        let shown = |descriptor: &Descriptor| DescriptorJson {
            fd: descriptor.fd,
            target: descriptor.target.to_string(),
            share: descriptor.share,
            among: descriptor.among,
        };
        let ends_with = |answering: Answering| match answering {
            Answering::Always => "answer",
            Answering::Never => "write",
        };
        let line = self.cost.and_then(|cost| cost.line);
        KernelGradeJson {
            alone: false,
            input: self.input.as_ref().map(shown),
            sink: self.sink.as_ref().map(shown),
            flush_ends_with: self.answering.map(|answering| ends_with(answering).to_owned()),
            bytes_in_per_s: self.bytes_in_per_s,
            rate: self.rate.map(|rate| rate.0),
            flush_bytes: self.flush_bytes,
            flush_events: self.flush_events,
            flush_ms: self.flush_ms,
            flushes_per_s: self.flushes_per_s,
            gap_ms: self.gap_ms,
            busy_share: self.busy,
            in_writes_share: self.in_writes,
            cause: self.cause.map(|cause| cause.word().to_owned()),
            flush_fixed_ms: line.map(|line| line.fixed_ms),
            flush_fixed_error_ms: line.map(|line| line.fixed_error_ms),
            flush_per_kib_us: line.map(|line| line.per_kib_us),
            flush_per_kib_error_us: line.map(|line| line.per_kib_error_us),
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
