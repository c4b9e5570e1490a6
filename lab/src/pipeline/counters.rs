//! What a pipeline counts, whether or not it keeps a report page.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use tidegate_client::rule::Cause;
use tidegate_client::{Nanos, Tuner, clock};

/// Counters since the start; shared by the threads.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    events_in: AtomicU64,
    events_out: AtomicU64,
    bytes_out: AtomicU64,
    compressed: AtomicU64,
    flush_ns: AtomicU64,
    by_age: AtomicU64,
    by_size: AtomicU64,
    by_backlog: AtomicU64,
    by_panic: AtomicU64,
    by_waiting: AtomicU64,
    sink_errors: AtomicU64,
}

/// A copy of the counters at one instant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stats {
    /// When, on the monotonic clock.
    pub(crate) at_ns: u64,
    /// CPU time of the process so far.
    pub(crate) cpu_ns: u64,
    /// Records taken in.
    pub(crate) events_in: u64,
    /// Records acknowledged by the sink.
    pub(crate) events_out: u64,
    /// Their bytes.
    pub(crate) bytes_out: u64,
    /// Their bytes after compression.
    pub(crate) compressed_bytes: u64,
    /// Flushes acknowledged.
    pub(crate) flushes: u64,
    /// Flushes by age.
    pub(crate) by_age: u64,
    /// Flushes by size.
    pub(crate) by_size: u64,
    /// Flushes of a backlog.
    pub(crate) by_backlog: u64,
    /// Panic flushes.
    pub(crate) by_panic: u64,
    /// Flushes because the waiting of all queued records had come to the cost of a flush.
    pub(crate) by_waiting: u64,
    /// Sum of flush durations.
    pub(crate) flush_ns: u64,
    /// Writes to the sink that failed and were tried again.
    pub(crate) sink_errors: u64,
    /// Batch size in use.
    pub(crate) batch_bytes: u64,
    /// Flush interval in use.
    pub(crate) flush_interval_us: u64,
    /// Their generation.
    pub(crate) generation: u64,
    /// Where the tuning stands, for the policy `tuned`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tuning: Option<Tuning>,
}

/// Where the tuning stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tuning {
    /// `connected`, `held` or `default`.
    pub(crate) state: String,
    /// Why.
    pub(crate) cause: String,
}

impl Tuning {
    pub(crate) fn of(tuner: &Tuner) -> Self {
        let status = tuner.status();
        Self { state: status.state.to_string(), cause: status.contact.to_string() }
    }
}

impl Counters {
    pub(crate) fn taken(&self, events: u64) {
        self.events_in.fetch_add(events, Ordering::Relaxed);
    }

    pub(crate) fn sink_failed(&self) {
        self.sink_errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn flushed(&self, cause: Cause, events: u64, bytes: u64, compressed: u64, took: Nanos) {
        let by_cause = match cause {
            Cause::Age => &self.by_age,
            Cause::Size => &self.by_size,
            Cause::Backlog => &self.by_backlog,
            Cause::Panic => &self.by_panic,
            Cause::Waiting => &self.by_waiting,
        };
        for (counter, n) in [
            (by_cause, 1),
            (&self.events_out, events),
            (&self.bytes_out, bytes),
            (&self.compressed, compressed),
            (&self.flush_ns, took.0),
        ] {
            counter.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// The counters as they stand; settings and tuning are filled in by the caller.
    pub(crate) fn stats(&self) -> Stats {
        let get = |c: &AtomicU64| c.load(Ordering::Relaxed);
        let (by_age, by_size) = (get(&self.by_age), get(&self.by_size));
        let (by_backlog, by_panic, by_waiting) = (get(&self.by_backlog), get(&self.by_panic), get(&self.by_waiting));
        Stats {
            at_ns: clock::monotonic().0,
            cpu_ns: clock::process_cpu().0,
            events_in: get(&self.events_in),
            events_out: get(&self.events_out),
            bytes_out: get(&self.bytes_out),
            compressed_bytes: get(&self.compressed),
            flushes: by_age + by_size + by_backlog + by_panic + by_waiting,
            by_age,
            by_size,
            by_backlog,
            by_panic,
            by_waiting,
            flush_ns: get(&self.flush_ns),
            sink_errors: get(&self.sink_errors),
            ..Stats::default()
        }
    }
}
