//! The flush rule (L0): settings, the state of a queue, the sink and the time come in; flush or wait comes out. Pure, so
//! that the simulator runs the very same rule. Never reads a clock, never blocks, never allocates.
//!
//! One flush is in flight. Once the sink is free a flush begins when the oldest event is a flush interval old, when a
//! batch is full, or when the queue passes four fifths of its capacity (panic). The batch size triggers a flush, it never
//! limits the drain: a flush takes all that is queued, up to the pipeline's own largest batch. A further trigger, the
//! waiting accrued by all queued events (∫q dt ≥ κa), belongs beside the age trigger once a flush cost is known.

use crate::units::{Bytes, Nanos};

/// What the tuning sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes at which a batch is full.
    pub batch: Bytes,
    /// Age of the oldest event at which a batch is flushed.
    pub interval: Nanos,
}

/// The queue before the sink at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Bytes queued.
    pub bytes: Bytes,
    /// Arrival of the oldest queued event, on the clock of `now`; `None` when the queue is empty.
    pub oldest: Option<Nanos>,
    /// Bytes the queue can hold.
    pub capacity: Bytes,
}

/// Whether a flush may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sink {
    /// A flush is in flight.
    Busy,
    /// The flush in flight has just ended: what is queued beyond a batch now is a backlog.
    Freed,
    /// No flush is in flight.
    Idle,
}

/// Why a flush begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The oldest event was old enough.
    Age,
    /// A batch was full.
    Size,
    /// More than a batch had gathered behind the flush before.
    Backlog,
    /// The queue passed four fifths of its capacity.
    Panic,
    /// All queued events together had waited as long as a flush costs.
    Waiting,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Begin a flush.
    Flush {
        /// Why.
        cause: Cause,
        /// Bytes to take at most; a single event larger than that is taken whole.
        take: Bytes,
    },
    /// Ask again when an event arrives or a flush ends, and at this time at the latest.
    Wait {
        /// When time alone will change the answer; `None` when only an event or a flush can.
        until: Option<Nanos>,
    },
}

/// When to flush, and how much. [`L0`] is the rule; a comparison brings others.
pub trait Rule: Send {
    /// What to do at `now`.
    fn decide(&self, settings: &Settings, queue: &Queue, sink: Sink, now: Nanos) -> Verdict;
}

/// The rule of this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct L0 {
    /// Largest flush, the pipeline's own upper bound.
    pub batch_max: Bytes,
}

impl Rule for L0 {
    fn decide(&self, settings: &Settings, queue: &Queue, sink: Sink, now: Nanos) -> Verdict {
        let Some(oldest) = queue.oldest.filter(|_| sink != Sink::Busy) else {
            return Verdict::Wait { until: None };
        };
        let due = oldest + settings.interval;
        let batch = settings.batch.min(self.batch_max);
        let panic_at = Bytes(queue.capacity.0 - queue.capacity.0 / 5);
        let cause = if queue.bytes >= panic_at {
            Cause::Panic
        } else if queue.bytes > batch && sink == Sink::Freed {
            Cause::Backlog
        } else if queue.bytes >= batch {
            Cause::Size
        } else if now >= due {
            Cause::Age
        } else {
            return Verdict::Wait { until: Some(due) };
        };
        Verdict::Flush { cause, take: queue.bytes.min(self.batch_max) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SETTINGS: Settings = Settings { batch: Bytes::from_kib(256), interval: Nanos::from_millis(250) };
    const RULE: L0 = L0 { batch_max: Bytes::from_kib(512) };

    /// A queue of `bytes` of 1,000 KiB, its oldest event from time zero, at `ms` milliseconds.
    fn at(bytes: Bytes, sink: Sink, ms: u64) -> Verdict {
        let oldest = (bytes.0 > 0).then_some(Nanos(0));
        let queue = Queue { bytes, oldest, capacity: Bytes::from_kib(1000) };
        RULE.decide(&SETTINGS, &queue, sink, Nanos::from_millis(ms))
    }

    fn flush(cause: Cause, take: Bytes) -> Verdict {
        Verdict::Flush { cause, take }
    }

    #[test]
    fn the_first_trigger_that_holds_names_the_cause() {
        let kib = Bytes::from_kib;
        assert_eq!(at(kib(1), Sink::Idle, 250), flush(Cause::Age, kib(1)));
        assert_eq!(at(kib(256), Sink::Idle, 0), flush(Cause::Size, kib(256)));
        assert_eq!(at(kib(256), Sink::Freed, 0), flush(Cause::Size, kib(256)));
        assert_eq!(at(kib(300), Sink::Freed, 0), flush(Cause::Backlog, kib(300)));
        assert_eq!(at(kib(700), Sink::Freed, 900), flush(Cause::Backlog, kib(512)));
        assert_eq!(at(kib(800), Sink::Freed, 0), flush(Cause::Panic, kib(512)));
    }

    #[test]
    fn below_every_trigger_it_waits_for_the_oldest_event() {
        assert_eq!(at(Bytes(1), Sink::Idle, 249), Verdict::Wait { until: Some(Nanos::from_millis(250)) });
        assert_eq!(at(Bytes(0), Sink::Idle, 999), Verdict::Wait { until: None });
    }

    #[test]
    fn settings_above_the_largest_batch_do_not_delay_a_flush() {
        let rule = L0 { batch_max: Bytes(100) };
        let queue = Queue { bytes: Bytes(100), oldest: Some(Nanos(0)), capacity: Bytes(10_000) };
        assert_eq!(rule.decide(&SETTINGS, &queue, Sink::Idle, Nanos(0)), flush(Cause::Size, Bytes(100)));
    }

    prop_compose! {
        fn any_state()(
            batch in 1_u64..1 << 30, interval in 0_u64..1 << 40, batch_max in 1_u64..1 << 30,
            bytes in 0_u64..1 << 32, capacity in 1_u64..1 << 32, oldest in any::<u64>(), now in any::<u64>(),
            sink in prop_oneof![Just(Sink::Busy), Just(Sink::Freed), Just(Sink::Idle)],
        ) -> (Settings, L0, Queue, Sink, Nanos) {
            let queue = Queue {
                bytes: Bytes(bytes), oldest: (bytes > 0).then_some(Nanos(oldest)), capacity: Bytes(capacity),
            };
            (Settings { batch: Bytes(batch), interval: Nanos(interval) }, L0 { batch_max: Bytes(batch_max) }, queue,
                sink, Nanos(now))
        }
    }

    proptest! {
        #[test]
        fn a_flush_is_never_empty_never_beyond_its_bound_and_never_into_a_busy_sink(state in any_state()) {
            let (settings, rule, queue, sink, now) = state;
            if let Verdict::Flush { take, .. } = rule.decide(&settings, &queue, sink, now) {
                prop_assert!(take > Bytes(0) && take <= rule.batch_max && take <= queue.bytes);
                prop_assert_ne!(sink, Sink::Busy);
            }
        }

        #[test]
        fn a_backlog_is_drained_up_to_the_largest_batch(state in any_state()) {
            let (settings, rule, queue, sink, now) = state;
            if let Verdict::Flush { take, .. } = rule.decide(&settings, &queue, sink, now) {
                prop_assert_eq!(take, queue.bytes.min(rule.batch_max));
            }
        }

        #[test]
        fn waiting_until_the_time_it_names_ends_in_a_flush(state in any_state()) {
            let (settings, rule, queue, sink, now) = state;
            match rule.decide(&settings, &queue, sink, now) {
                Verdict::Wait { until: Some(until) } => {
                    prop_assert!(until > now);
                    let later = rule.decide(&settings, &queue, sink, until);
                    prop_assert!(matches!(later, Verdict::Flush { .. }), "{later:?}");
                }
                Verdict::Wait { until: None } => prop_assert!(sink == Sink::Busy || queue.oldest.is_none()),
                Verdict::Flush { .. } => {}
            }
        }

        #[test]
        fn more_events_or_more_time_never_turn_a_flush_into_a_wait(state in any_state(), more in 0_u64..1 << 30) {
            let (settings, rule, queue, sink, now) = state;
            if matches!(rule.decide(&settings, &queue, sink, now), Verdict::Flush { .. }) {
                let fuller = Queue { bytes: Bytes(queue.bytes.0 + more), ..queue };
                let later = rule.decide(&settings, &fuller, sink, now + Nanos(more));
                prop_assert!(matches!(later, Verdict::Flush { .. }), "{later:?}");
            }
        }
    }
}
