//! A batch in flight: handed out by the batcher, given back by its acknowledgement. Never gives its events back to the
//! queue.

use std::sync::Arc;

use super::{Entry, Shared};
use crate::abi::ReportWord;
use crate::clock;
use crate::report::Flushed;
use crate::rule::{Cause, Sink};
use crate::units::{Bytes, Nanos};

/// Events on their way to the sink. While it lives no other flush begins.
///
/// Acknowledge it when the sink has. A write that failed can be tried again as long as the batch is kept; a batch that is
/// dropped is counted as failed and its events as lost.
#[must_use = "a batch that is dropped unacknowledged counts as lost"]
pub struct Batch<T> {
    items: Vec<T>,
    /// Arrival times, each with how many events in a row share it.
    arrivals: Vec<(Nanos, u64)>,
    bytes: u64,
    cause: Cause,
    began: Nanos,
    end: End,
    shared: Arc<Shared<T>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Acknowledged,
    Dropped,
}

impl<T> Batch<T> {
    pub(super) fn begin(shared: Arc<Shared<T>>, cause: Cause, began: Nanos) -> Self {
        Self { items: Vec::new(), arrivals: Vec::new(), bytes: 0, cause, began, end: End::Dropped, shared }
    }

    pub(super) fn add(&mut self, entry: Entry<T>) {
        self.bytes += entry.bytes;
        self.items.push(entry.item);
        match self.arrivals.last_mut() {
            Some((arrived, events)) if *arrived == entry.arrived => *events += 1,
            _ => self.arrivals.push((entry.arrived, 1)),
        }
    }

    /// The events, oldest first.
    pub fn items(&self) -> &[T] {
        &self.items
    }

    /// How many there are.
    pub fn events(&self) -> u64 {
        self.items.len() as u64
    }

    /// Their bytes, as they were pushed.
    pub fn bytes(&self) -> Bytes {
        Bytes(self.bytes)
    }

    /// Why the flush began.
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// Counts a write that failed and will be tried again.
    pub fn note_failure(&self) {
        if let Some(report) = &self.shared.report {
            report.add(ReportWord::FlushErrors, 1);
        }
    }

    /// The sink has the events: ends the flush.
    pub fn acknowledge(mut self) {
        self.end = End::Acknowledged;
    }
}

impl<T> Drop for Batch<T> {
    fn drop(&mut self) {
        let now = clock::monotonic();
        if let Some(report) = &self.shared.report {
            match self.end {
                End::Acknowledged => {
                    let (events, bytes) = (self.events(), self.bytes());
                    report.flushed(&Flushed { cause: self.cause, events, bytes, took: now - self.began });
                    for (arrived, events) in &self.arrivals {
                        report.latency(now - *arrived, *events);
                    }
                }
                End::Dropped => {
                    report.add(ReportWord::FlushErrors, 1);
                    report.add(ReportWord::EventsLost, self.events());
                }
            }
            report.touch();
        }
        {
            let mut state = self.shared.lock();
            state.sink = Sink::Freed;
            if self.end == End::Acknowledged {
                state.flush_cost.observe(Bytes(self.bytes), now - self.began);
            }
            self.shared.wake(&mut state);
        }
    }
}
