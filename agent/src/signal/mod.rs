//! Windows in, signals out: numbers with units, one statistic a file. Never reads a clock.
//!
//! A number that is not known is absent, never 0, and what makes a number doubtful is named. Only basic IEEE operations
//! are used, so that a replay computes the same bits on every machine.

pub mod causes;
pub mod cost;
pub mod exact;
pub mod flush;
pub mod flush_cause;
pub mod flush_cost;
pub mod kernel_grade;
pub mod kernel_grades;
pub mod latency;
mod line;
pub mod quotient;
pub mod rate;
pub mod residency;
pub mod roles;
pub mod substitute;
pub mod usage;

use agent_common::LossReason;
use std::fmt;

use tidegate_client::abi::{CausesJson, KernelGradeJson, SignalsJson};

use crate::aggregate::report::ReportFault;
use crate::aggregate::rows::Continuity;
use crate::aggregate::window::{PipelineWindow, Window};
use crate::signal::cost::{Cost, CostTracker};
use crate::signal::flush::{FlushTracker, Flushes};
use crate::signal::kernel_grade::KernelGrade;
use crate::signal::latency::LatencyTracker;
use crate::signal::quotient::Quotient;
use crate::signal::rate::{RateTracker, Step};
use crate::signal::residency::ResidencyTracker;
use crate::signal::usage::{Usage, UsageTracker};
use crate::units::{Bytes, EventsPerSec, Generation, Nanos, PipelineName, Settings};

/// A report older than this says nothing about now.
pub const STALE_AFTER: Nanos = Nanos::SECOND;

/// Signals of one pipeline at one tick.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Signals {
    /// The tick.
    pub time: Nanos,
    /// Event rate over the rolling window: 5 s, or since the last detected step.
    pub rate: Option<EventsPerSec>,
    /// Event rate of the newest ticks that hold enough events to tell.
    pub newest_rate: Option<EventsPerSec>,
    /// A step of the rate that this tick revealed.
    pub step: Option<Step>,
    /// Variance over mean of the events of a tick: 1 for chance, near 0 for even arrivals.
    pub dispersion: Option<f64>,
    /// Mean size of an event, bytes.
    pub event_bytes: Option<f64>,
    /// Queue of the pipeline.
    pub queue: Option<Queue>,
    /// Bytes unread in its sockets.
    pub receive_queue: Option<Bytes>,
    /// Packets that its sockets refused in this tick.
    pub overflows: Option<u64>,
    /// Mean residency of bytes in its sockets, ms, while somebody looks.
    pub residency_ms: Option<f64>,
    /// Its flushes.
    pub flushes: Flushes,
    /// What an event costs.
    pub cost: Cost,
    /// 99th percentile of the latency, ms.
    pub p99_ms: Option<f64>,
    /// Settings that it says it uses.
    pub in_use: Option<InUse>,
    /// What its process uses and waits for.
    pub usage: Usage,
    /// What the kernel alone tells of it; absent before it has told of its process, and while nobody looks.
    pub kernel: Option<KernelGrade>,
    /// Where the numbers above come from.
    pub evidence: Evidence,
    /// Time since its last good report; absent when there never was one.
    pub report_age: Option<Nanos>,
    /// Why a signal is missing or doubtful.
    pub degraded: Vec<Degraded>,
}

/// Where signals come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Evidence {
    /// The pipeline reports.
    #[default]
    Report,
    /// The kernel alone: the process was never changed.
    Kernel,
}

/// A queue and its room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Bytes that wait.
    pub bytes: Bytes,
    /// Bytes that fit; absent when there is no bound.
    pub capacity: Option<Bytes>,
}

/// Settings that a pipeline says it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InUse {
    /// Their generation; 0 for its own defaults.
    pub generation: Generation,
    /// Their values.
    pub settings: Settings,
}

/// Why a signal is missing or doubtful.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Degraded {
    /// The report of this tick was ignored.
    Report(ReportFault),
    /// No report has come yet.
    NoReport,
    /// The last good report is too old.
    Stale(Nanos),
    /// Kernel evidence that did not come.
    Missing(&'static str),
    /// Kernel counters that fell: this tick's delta is left out.
    Reset(&'static str),
    /// Evidence that this host does not give, and how it would.
    NotHere(&'static str, &'static str),
    /// Something was lost in this tick.
    Lost(&'static str, u64),
}

impl fmt::Display for Degraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Report(fault) => fault.fmt(f),
            Self::NoReport => f.write_str("report page: none has come yet"),
            Self::Stale(age) => write!(f, "report page: the last good one is {:.1} s old", age.as_secs_f64()),
            Self::Missing(what) => write!(f, "{what}: no rows from the kernel"),
            Self::NotHere(what, remedy) => write!(f, "{what}: this host does not tell it ({remedy})"),
            Self::Reset(what) => write!(f, "{what}: counters fell, taken as a restart"),
            Self::Lost(what, count) => write!(f, "lost: {what} {count}"),
        }
    }
}

/// Follows one pipeline from window to window.
#[derive(Debug)]
pub struct Tracker {
    rate: RateTracker,
    event_bytes: Quotient,
    flushes: FlushTracker,
    cost: CostTracker,
    residency: ResidencyTracker,
    latency: LatencyTracker,
    last_good: Option<Nanos>,
    usage: UsageTracker,
    evidence: Evidence,
}

impl Default for Tracker {
    fn default() -> Self {
        Self {
            rate: RateTracker::default(),
            event_bytes: Quotient::over(1_000, 50),
            flushes: FlushTracker::default(),
            cost: CostTracker::default(),
            residency: ResidencyTracker::default(),
            latency: LatencyTracker::default(),
            last_good: None,
            usage: UsageTracker::default(),
            evidence: Evidence::Report,
        }
    }
}

impl Tracker {
    /// Of a process that was never changed.
    pub fn watching() -> Self {
        Self { evidence: Evidence::Kernel, ..Self::default() }
    }

    /// Takes in what happened to the pipeline within `window`, and what the kernel alone tells of its process.
    pub fn observe(&mut self, window: &Window, pipeline: &PipelineWindow, kernel: Option<&KernelGrade>) -> Signals {
        let now = window.end;
        if pipeline.levels.is_some() {
            self.last_good = Some(now);
        }
        let report = pipeline.report.as_ref();
        let step = report.and_then(|r| self.rate.observe(r.span, r.events_in));
        if let Some(report) = report {
            self.event_bytes.push(report.bytes_in, report.events_in);
            self.latency.push(&report.histogram);
        }
        self.flushes.observe(report);
        self.cost.observe(window.end.since(window.start), pipeline);
        self.residency.observe(pipeline.sockets.as_ref());
        let tick = window.end.since(window.start);
        let report_age = self.last_good.map(|then| now.since(then));
        let fresh = report_age.is_some_and(|age| age <= STALE_AFTER);
        let mut signals = Signals {
            time: now,
            rate: self.rate.rolling().filter(|_| fresh),
            newest_rate: self.rate.newest().filter(|_| fresh),
            step,
            dispersion: self.rate.dispersion().filter(|_| fresh),
            event_bytes: self.event_bytes.value(),
            queue: pipeline.levels.map(|l| Queue {
                bytes: Bytes(l.queue_bytes),
                capacity: (l.queue_capacity > 0).then_some(Bytes(l.queue_capacity)),
            }),
            receive_queue: pipeline.sockets.map(|s| Bytes(s.receive_queue)),
            overflows: pipeline.sockets.map(|s| s.overflows),
            residency_ms: self.residency.mean_ms(),
            flushes: self.flushes.value(),
            cost: self.cost.value(),
            p99_ms: self.latency.quantile_ms(0.99),
            in_use: pipeline.levels.map(|l| InUse { generation: l.generation, settings: l.in_use }),
            usage: self.usage.observe(tick, pipeline),
            kernel: kernel.cloned(),
            evidence: self.evidence,
            report_age,
            degraded: degraded(self.evidence, window, pipeline, report_age),
        };
        if self.evidence == Evidence::Kernel {
            match kernel {
                Some(kernel) => substitute::substitute(&mut signals, kernel),
                None => signals.degraded.push(Degraded::Missing("flows")),
            }
        }
        signals
    }
}

fn degraded(
    evidence: Evidence,
    window: &Window,
    pipeline: &PipelineWindow,
    report_age: Option<Nanos>,
) -> Vec<Degraded> {
    let lost = &window.lost;
    let mut found = Vec::new();
    found.extend(pipeline.fault.map(Degraded::Report));
    match report_age {
        None if evidence == Evidence::Kernel => {} // Nobody writes one.
        None => found.push(Degraded::NoReport),
        Some(age) if age > STALE_AFTER => found.push(Degraded::Stale(age)),
        Some(_) => {}
    }
    let active = pipeline.report.as_ref().is_some_and(|r| r.events_in > 0 || r.flushes > 0);
    match pipeline.task.map(|t| t.continuity) {
        None if active => found.push(Degraded::Missing("task cost")),
        Some(Continuity::Reset) => found.push(Degraded::Reset("task cost")),
        None | Some(Continuity::Whole) => {}
    }
    // System calls are counted while somebody looks, and their rows come when something changed: their absence is no sign of
    // anything.
    if pipeline.syscalls.is_some_and(|s| s.continuity == Continuity::Reset) {
        found.push(Degraded::Reset("system calls"));
    }
    if let Some(usage) = pipeline.usage.filter(|usage| usage.span > Nanos(0)) {
        // The first row is a baseline; from the second on what is absent is not told here.
        if usage.host.iter().all(Option::is_none) {
            found.push(Degraded::NotHere("pressure", "boot the kernel with psi=1"));
        }
    }
    if pipeline.sockets.is_some_and(|s| s.continuity == Continuity::Reset) {
        found.push(Degraded::Reset("sockets"));
    }
    let tables = [LossReason::SyscallTableFull, LossReason::SocketTableFull, LossReason::FlowTableFull]
        .map(|reason| (reason.name(), lost[reason]));
    let losses = tables.into_iter().chain([("undecodable", lost.undecodable)]);
    found.extend(losses.filter(|(_, count)| *count > 0).map(|(what, n)| Degraded::Lost(what, n)));
    found
}

impl Signals {
    /// CPU time of the process over wall time, cores.
    pub fn cpu_cores(&self) -> Option<f64> {
        // From the process itself, so that what it uses while no event comes counts too.
        self.usage.cpu_cores.or_else(|| {
            let by_events = self.cost.cpu_us_per_event.zip(self.rate);
            by_events.map(|(us, rate)| us * rate.0 / 1e6)
        })
    }

    /// As the socket shows them.
    pub fn to_json(&self, name: &PipelineName) -> SignalsJson {
        SignalsJson {
            name: name.as_str().to_owned(),
            time_ns: self.time.0,
            rate: self.rate.map(|r| r.0),
            newest_rate: self.newest_rate.map(|r| r.0),
            event_bytes: self.event_bytes,
            queue_bytes: self.queue.map(|q| q.bytes.0),
            queue_capacity: self.queue.and_then(|q| q.capacity).map(|c| c.0),
            receive_queue_bytes: self.receive_queue.map(|b| b.0),
            residency_ms: self.residency_ms,
            flush_bytes: self.flushes.bytes,
            flush_ms: self.flushes.duration_ms,
            flushes_per_s: self.flushes.per_s,
            flush_gap_ms: self.flushes.per_s.filter(|per_s| *per_s > 0.0).map(|per_s| 1e3 / per_s),
            busy_share: self.flushes.busy.map(|share| share.0),
            flush_causes: self.flushes.causes.map(|c| CausesJson {
                age: c.age.0,
                size: c.size.0,
                backlog: c.backlog.0,
                panic: c.panic.0,
                waiting: c.waiting.0,
            }),
            flush_errors_per_s: self.flushes.failed_per_s,
            flush_fixed_ms: self.flushes.cost.and_then(|cost| cost.line).map(|line| line.fixed_ms),
            flush_per_kib_us: self.flushes.cost.and_then(|cost| cost.line).map(|line| line.per_kib_us),
            stalled_share: self.flushes.stalled.map(|share| share.0),
            syscalls_per_event: self.cost.syscalls_per_event,
            cpu_us_per_event: self.cost.cpu_us_per_event,
            switches_per_flush: self.cost.switches_per_flush,
            p99_ms: self.p99_ms,
            usage: self.usage.to_json().map(Box::new),
            kernel: self.kernel.as_ref().map(|kernel| {
                Box::new(KernelGradeJson { alone: self.evidence == Evidence::Kernel, ..kernel.to_json() })
            }),
            degraded: self.degraded.iter().map(ToString::to_string).collect(),
        }
    }
}
