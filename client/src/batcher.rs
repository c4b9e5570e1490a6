//! A bounded queue with the flush rule at its end: events go in on any thread, batches come out on the flusher's. Loses
//! nothing: a full queue makes the sender wait, and a batch that is dropped unacknowledged is counted as lost.

mod alarm;
mod batch;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

pub use batch::Batch;

use alarm::Alarm;

use crate::abi::ReportWord;
use crate::clock;
use crate::lease::Phase;
use crate::report::ReportPage;
use crate::rule::flush_cost::FlushCost;
use crate::rule::{Cause, L0, Queue, Rule, Settings, Sink, Verdict, Waiting};
use crate::settings::Reading;
use crate::tuner::Tuner;
use crate::units::{Bytes, Nanos};

/// Where the settings come from.
#[derive(Debug)]
pub enum Source {
    /// Fixed.
    Own(Settings),
    /// The agent, within the registered bounds.
    Tuned(Box<Tuner>),
}

/// How a batcher works.
pub struct Options {
    /// Where the settings come from.
    pub source: Source,
    /// When to flush, and how much.
    pub rule: Box<dyn Rule>,
    /// Bytes that the queue holds before a sender has to wait.
    pub capacity: Bytes,
    /// Where to report to.
    pub report: Option<ReportPage>,
}

impl Default for Options {
    /// 256 KiB or 250 ms, at most 512 KiB a flush, a queue of 64 MiB, no report.
    fn default() -> Self {
        Self {
            source: Source::Own(Settings { batch: Bytes::from_kib(256), interval: Nanos::from_millis(250) }),
            rule: Box::new(L0::by_settings(Bytes::from_kib(512))),
            capacity: Bytes::from_mib(64),
            report: None,
        }
    }
}

impl Options {
    /// The settings of `tuner`; the largest flush is the upper bound of its batch size.
    pub fn tuned(tuner: Tuner) -> Self {
        let batch_max = Bytes(tuner.registration().knobs.batch_bytes.max);
        Self { source: Source::Tuned(Box::new(tuner)), rule: Box::new(L0::by_settings(batch_max)), ..Self::default() }
    }
}

/// The batcher has been closed; what was handed in comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("batcher is closed (push before `close`, or start another)")]
pub struct Closed<T>(pub T);

/// A batcher; a clone is a further handle on the same queue.
pub struct Batcher<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    /// Held by the thread that waits for a batch; taken before the state.
    turn: Mutex<()>,
    state: Mutex<State<T>>,
    /// The flusher sleeps on it: until an event is due, a batch is full, the flush in flight has ended.
    alarm: Alarm,
    /// Senders wait here for room.
    room: Condvar,
    capacity: Bytes,
    report: Option<ReportPage>,
}

struct State<T> {
    queue: VecDeque<Entry<T>>,
    bytes: u64,
    /// Sum of the arrival times of what is queued, ns.
    arrivals_ns: u128,
    flush_cost: FlushCost,
    source: Source,
    rule: Box<dyn Rule>,
    sink: Sink,
    flusher: Flusher,
    /// Senders that wait for room.
    held_up: usize,
    intake: Intake,
}

struct Entry<T> {
    item: T,
    bytes: u64,
    arrived: Nanos,
}

/// What the flusher waits for, so that a sender sets its alarm only when that has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flusher {
    Away,
    Waits { until: Option<Nanos> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Intake {
    Open,
    Closed,
}

impl<T> Batcher<T> {
    /// A batcher with an empty queue. Fails where the process may have no further file, for the flusher's timer is one.
    ///
    /// Make it after `fork`: both sides would share the timer. A program that closes files which it did not open must
    /// leave it alone.
    pub fn new(options: Options) -> io::Result<Self> {
        let alarm = Alarm::new()?;
        let Options { source, rule, capacity, report } = options;
        if let Some(report) = &report {
            report.set(ReportWord::QueueCapacity, capacity.0);
        }
        let state = State {
            queue: VecDeque::new(),
            bytes: 0,
            arrivals_ns: 0,
            flush_cost: FlushCost::default(),
            source,
            rule,
            sink: Sink::Idle,
            flusher: Flusher::Away,
            held_up: 0,
            intake: Intake::Open,
        };
        let (turn, state) = (Mutex::new(()), Mutex::new(state));
        let shared = Shared { turn, state, alarm, room: Condvar::new(), capacity, report };
        shared.report_settings(&mut shared.lock());
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Queues one event of `bytes` bytes; waits while the queue is full.
    pub fn push(&self, item: T, bytes: Bytes) -> Result<(), Closed<T>> {
        let mut state = self.shared.wait_for_room(self.shared.lock(), bytes);
        if state.intake == Intake::Closed {
            return Err(Closed(item));
        }
        let now = clock::monotonic();
        state.put(item, bytes, now);
        self.shared.report_taken(&state, Taken { events: 1, bytes: bytes.0 });
        self.shared.set_alarm(&mut state, now);
        Ok(())
    }

    /// Queues events from the front of `items` until none is left; waits while the queue is full. Cheaper than one at a
    /// time. When the batcher is closed, those not taken stay in `items`.
    pub fn push_all(&self, items: &mut VecDeque<(T, Bytes)>) -> Result<(), Closed<()>> {
        let mut taken = Taken::default();
        let mut state = self.shared.lock();
        let mut now = clock::monotonic();
        while let Some(bytes) = items.front().map(|(_, bytes)| *bytes) {
            if !self.shared.has_room(&state, bytes) {
                state = self.shared.wait_for_room(state, bytes);
                now = clock::monotonic();
            }
            if state.intake == Intake::Closed {
                break;
            }
            let Some((item, bytes)) = items.pop_front() else { break };
            state.put(item, bytes, now);
            taken.events += 1;
            taken.bytes += bytes.0;
        }
        self.shared.report_taken(&state, taken);
        self.shared.set_alarm(&mut state, now);
        if items.is_empty() { Ok(()) } else { Err(Closed(())) }
    }

    /// Waits until the rule says flush, and hands out the batch; the flush in flight ends when that is acknowledged.
    /// `None` once the batcher is closed and empty. Of several threads that ask, one at a time waits for a batch.
    pub fn next_batch(&self) -> Option<Batch<T>> {
        let _turn = self.shared.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.shared.lock();
        loop {
            if state.sink != Sink::Busy && state.intake == Intake::Closed && state.queue.is_empty() {
                return None;
            }
            let now = clock::monotonic();
            match self.shared.decide(&mut state, now) {
                Verdict::Flush { cause, take } => return Some(self.take(&mut state, cause, take, now)),
                Verdict::Wait { until } => state = self.shared.wait(state, until),
            }
        }
    }

    /// Takes no more events; what is queued is still flushed, without waiting for its time.
    pub fn close(&self) {
        let mut state = self.shared.lock();
        state.intake = Intake::Closed;
        self.shared.wake(&mut state);
        self.shared.room.notify_all();
    }

    /// Events and bytes queued now, not counting the flush in flight.
    pub fn queued(&self) -> (u64, Bytes) {
        let state = self.shared.lock();
        (state.queue.len() as u64, Bytes(state.bytes))
    }

    /// Settings in use now.
    pub fn reading(&self) -> Reading {
        self.shared.lock().reading()
    }

    fn take(&self, state: &mut State<T>, cause: Cause, take: Bytes, now: Nanos) -> Batch<T> {
        let mut batch = Batch::begin(Arc::clone(&self.shared), cause, now);
        while let Some(entry) = state.queue.front() {
            if batch.events() > 0 && batch.bytes().0 + entry.bytes > take.0 {
                break;
            }
            let Some(entry) = state.queue.pop_front() else { break };
            state.bytes -= entry.bytes;
            state.arrivals_ns -= u128::from(entry.arrived.0);
            batch.add(entry);
        }
        state.sink = Sink::Busy;
        self.shared.report_queue(state);
        self.shared.report_settings(state);
        if state.held_up > 0 {
            self.shared.room.notify_all();
        }
        batch
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Every critical section leaves the state whole, so a poisoned lock is still good.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An event larger than the whole queue is let into an empty one.
    fn has_room(&self, state: &State<T>, bytes: Bytes) -> bool {
        state.bytes == 0 || state.bytes.saturating_add(bytes.0) <= self.capacity.0
    }

    /// Waits until there is room or the batcher is closed.
    fn wait_for_room<'a>(&self, mut state: MutexGuard<'a, State<T>>, bytes: Bytes) -> MutexGuard<'a, State<T>> {
        if state.intake == Intake::Closed || self.has_room(&state, bytes) {
            return state;
        }
        let began = clock::monotonic();
        while state.intake == Intake::Open && !self.has_room(&state, bytes) {
            self.set_alarm(&mut state, clock::monotonic());
            state.held_up += 1;
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.held_up -= 1;
        }
        if let Some(report) = &self.report {
            report.add(ReportWord::StalledNs, (clock::monotonic() - began).0);
        }
        state
    }

    fn decide(&self, state: &mut State<T>, now: Nanos) -> Verdict {
        let mut settings = state.reading().settings;
        if state.intake == Intake::Closed {
            settings.interval = Nanos(0);
        }
        let queue = Queue {
            bytes: Bytes(state.bytes),
            oldest: state.queue.front().map(|e| e.arrived),
            capacity: self.capacity,
            waiting: state.flush_cost.fixed().map(|flush_cost| Waiting {
                events: state.queue.len() as u64,
                arrivals_ns: state.arrivals_ns,
                flush_cost,
            }),
        };
        state.rule.decide(&settings, &queue, state.sink, now)
    }

    fn wait<'a>(&'a self, mut state: MutexGuard<'a, State<T>>, until: Option<Nanos>) -> MutexGuard<'a, State<T>> {
        // The first look after a flush has been taken: from here on a full batch is a batch, not a backlog.
        if state.sink == Sink::Freed {
            state.sink = Sink::Idle;
        }
        state.flusher = Flusher::Waits { until };
        if let Some(until) = until {
            self.alarm.set(until);
        }
        drop(state);
        // An alarm that was set after it had rung, before the flusher looked, is still to come: one look too many.
        self.alarm.sleep();
        let mut state = self.lock();
        state.flusher = Flusher::Away;
        state
    }

    /// Sets the flusher's alarm to when the rule now wants it, if that is sooner; shorter settings are found here, too.
    fn set_alarm(&self, state: &mut State<T>, now: Nanos) {
        let Flusher::Waits { until: planned } = state.flusher else { return };
        match self.decide(state, now) {
            Verdict::Flush { .. } => self.wake(state),
            Verdict::Wait { until: Some(until) } if planned.is_none_or(|planned| is_sooner(until, planned, now)) => {
                state.flusher = Flusher::Waits { until: Some(until) };
                self.alarm.set(until);
            }
            Verdict::Wait { .. } => {}
        }
    }

    /// Wakes the flusher if it sleeps, once: until it has looked, further events need not tell it again.
    fn wake(&self, state: &mut State<T>) {
        if let Flusher::Waits { .. } = std::mem::replace(&mut state.flusher, Flusher::Away) {
            self.alarm.set(Nanos(0));
        }
    }

    fn report_taken(&self, state: &State<T>, taken: Taken) {
        let Some(report) = &self.report else { return };
        report.add(ReportWord::EventsIn, taken.events);
        report.add(ReportWord::BytesIn, taken.bytes);
        self.report_queue(state);
        report.touch();
    }

    fn report_queue(&self, state: &State<T>) {
        let Some(report) = &self.report else { return };
        report.set(ReportWord::QueueEvents, state.queue.len() as u64);
        report.set(ReportWord::QueueBytes, state.bytes);
    }

    fn report_settings(&self, state: &mut State<T>) {
        let Some(report) = &self.report else { return };
        let Reading { settings, generation, phase: _ } = state.reading();
        report.set(ReportWord::Generation, generation);
        report.set(ReportWord::BatchBytes, settings.batch.0);
        report.set(ReportWord::FlushIntervalUs, settings.interval.as_micros());
    }
}

/// A rule that comes a little sooner with every event sets no alarm for every event: an eighth of the time left is enough.
fn is_sooner(until: Nanos, planned: Nanos, now: Nanos) -> bool {
    planned - until > Nanos((planned - now).0 / 8)
}

impl<T> State<T> {
    fn put(&mut self, item: T, bytes: Bytes, arrived: Nanos) {
        self.bytes = self.bytes.saturating_add(bytes.0);
        self.arrivals_ns += u128::from(arrived.0);
        self.queue.push_back(Entry { item, bytes: bytes.0, arrived });
    }

    fn reading(&mut self) -> Reading {
        match &mut self.source {
            Source::Own(settings) => Reading { settings: *settings, generation: 0, phase: Phase::Own },
            Source::Tuned(tuner) => tuner.read(),
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    events: u64,
    bytes: u64,
}

impl<T> Clone for Batcher<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> fmt::Debug for Batcher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (events, bytes) = self.queued();
        f.debug_struct("Batcher").field("events", &events).field("bytes", &bytes).finish_non_exhaustive()
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("source", &self.source)
            .field("capacity", &self.capacity)
            .field("report", &self.report)
            .finish_non_exhaustive()
    }
}
