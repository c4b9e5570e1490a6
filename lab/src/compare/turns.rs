//! Constants that take turns in one lane: candidates in, one job that holds a rate and switches among them out; and its
//! outcome, read turn by turn. The first second of a turn is left out. Judges nothing.

use tidegate_client::Nanos;

use super::job::{Check, Downstream, Job};
use super::lane::Outcome;
use super::plan::TRANSITION;
use crate::load::schedule::{Phase, Phases};
use crate::pipeline::policy::{Constant, Policy};
use crate::stats::{Pool, Weighted};

const SECOND: u64 = 1_000_000_000;

/// One candidate's turn.
#[derive(Clone, Debug)]
pub(crate) struct Turn {
    pub(crate) constant: Constant,
    /// Share of the time in which a flush was in flight.
    pub(crate) busy: f64,
    pub(crate) p99_ms: f64,
    /// CPU time of the pipeline.
    pub(crate) cpu_us_per_event: f64,
    /// Events of a flush, as they came about.
    pub(crate) events_per_flush: f64,
    /// Time between flushes, as it came about.
    pub(crate) gap_ms: f64,
}

/// One phase at the rate of `phase`, in which the candidates take turns of `seconds` measured seconds.
pub(crate) fn turns_job(
    label: String,
    downstream: Downstream,
    phase: Phase,
    record_bytes: usize,
    candidates: &[Constant],
    seconds: u64,
) -> Job {
    let turns = u64::try_from(candidates.len()).unwrap_or(1);
    let at = |i: u64| Nanos((seconds + 1) * SECOND * i);
    Job {
        label,
        policy: Policy::Schedule,
        switches: (0..turns).map(at).zip(candidates.iter().copied()).collect(),
        downstream,
        phases: Phases(vec![Phase { span: at(turns), ..phase }]),
        warmup: Nanos(SECOND),
        record_bytes,
        busy_cap: None,
        batch_max: None,
        marks: (0..turns).flat_map(|i| [at(i) + TRANSITION, at(i + 1)]).collect(),
        check: Check::Nothing,
        drain: Nanos::from_millis(30_000),
    }
}

/// What one turn measured, as counts that can be added to those of other turns.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counted {
    pub(crate) counts: Vec<(u64, u64)>,
    pub(crate) busy_ns: u64,
    pub(crate) span_ns: u64,
    pub(crate) flushes: u64,
    pub(crate) events: u64,
    pub(crate) cpu_ns: u64,
}

/// Turn `at` of a lane; `None` when it did not run.
pub(crate) fn counted(lane: &Outcome, at: usize, seconds: u64) -> Option<Counted> {
    let turn = usize::try_from(seconds + 1).ok()?;
    let slices = lane.load.slices.iter().filter(|s| s.second / turn == at && s.second % turn > 0);
    let (from, to) = (lane.marks.get(2 * at)?, lane.marks.get(2 * at + 1)?);
    Some(Counted {
        counts: slices.flat_map(|s| s.counts.iter().copied()).collect(),
        busy_ns: to.flush_ns.saturating_sub(from.flush_ns),
        span_ns: to.at_ns.saturating_sub(from.at_ns),
        flushes: to.flushes.saturating_sub(from.flushes),
        events: to.events_out.saturating_sub(from.events_out),
        cpu_ns: to.cpu_ns.saturating_sub(from.cpu_ns),
    })
}

impl Counted {
    #[expect(clippy::cast_precision_loss, reason = "spans of a search")]
    pub(crate) fn busy(&self) -> f64 {
        self.busy_ns as f64 / self.span_ns.max(1) as f64
    }

    pub(crate) fn p99_ms(&self) -> f64 {
        let pool = Pool::new(&[vec![Weighted { weight: 1.0, counts: &self.counts, sum_ns: 0 }]]);
        pool.quantile(0.99, &[0]).unwrap_or(f64::INFINITY)
    }

    pub(crate) fn add(&mut self, other: Self) {
        let Self { counts, busy_ns, span_ns, flushes, events, cpu_ns } = other;
        self.counts.extend(counts);
        self.busy_ns += busy_ns;
        self.span_ns += span_ns;
        self.flushes += flushes;
        self.events += events;
        self.cpu_ns += cpu_ns;
    }
}

/// Every candidate's turn, those without a flush left out.
#[expect(clippy::cast_precision_loss, reason = "counts of a turn")]
pub(crate) fn turns_of(candidates: &[Constant], lane: &Outcome, seconds: u64) -> Vec<Turn> {
    let turn = |(at, constant): (usize, &Constant)| {
        let counted = counted(lane, at, seconds).filter(|c| c.flushes > 0 && c.events > 0)?;
        Some(Turn {
            constant: *constant,
            busy: counted.busy(),
            p99_ms: counted.p99_ms(),
            cpu_us_per_event: counted.cpu_ns as f64 / 1e3 / counted.events as f64,
            events_per_flush: counted.events as f64 / counted.flushes as f64,
            gap_ms: counted.span_ns as f64 / 1e6 / counted.flushes as f64,
        })
    };
    candidates.iter().enumerate().filter_map(turn).collect()
}
