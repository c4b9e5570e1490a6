//! The flush rule (L0): settings, the state of a queue, the sink and the time come in; flush or wait comes out. Pure, so
//! that the simulator runs the very same rule. Never reads a clock, never blocks, never allocates.
//!
//! One flush is in flight. Once the sink is free a flush begins when the oldest event is a flush interval old, when a
//! batch is full, or when the queue passes four fifths of its capacity (panic). The batch size triggers a flush, it never
//! limits the drain: a flush takes all that is queued, up to the pipeline's own largest batch.
//!
//! A pipeline that asks for it (`kappa`) also flushes when all queued events together have waited as long as a flush costs
//! (∫q dt ≥ κa, after the ski-rental argument: waiting on can then only cost more than a flush would have). That is the
//! trigger for a pipeline that nobody tunes: it follows the load without being told. It is off otherwise, because an
//! interval that somebody chose is a wish, and this trigger would overrule it.

pub mod flush_cost;

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
    /// What the queued events have waited so far; `None` while no flush has shown what one costs.
    pub waiting: Option<Waiting>,
}

/// The waiting of all queued events, in a form that does not change while only time passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Events queued.
    pub events: u64,
    /// Sum of their arrival times, ns on the clock of `now`.
    pub arrivals_ns: u128,
    /// Cost of a flush whatever is in it, as the pipeline's own flushes showed it.
    pub flush_cost: Nanos,
}

impl Waiting {
    /// When the events will have waited `kappa` flush costs in all; `None` when that is never.
    fn reaches(&self, kappa: f64) -> Option<Nanos> {
        let events = u128::from(self.events);
        let enough = u128::from(self.flush_cost.scaled(kappa).0);
        // The sum of (t - arrival) over all events is events * t - arrivals.
        let at = enough.saturating_add(self.arrivals_ns).checked_add(events.checked_sub(1)?)? / events;
        Some(Nanos(u64::try_from(at).unwrap_or(u64::MAX)))
    }
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
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct L0 {
    /// Largest flush, the pipeline's own upper bound.
    pub batch_max: Bytes,
    /// Flush costs that the queued events may wait in all before they are flushed; `None`: as long as the settings say.
    pub kappa: Option<f64>,
}

impl L0 {
    /// A little above 1: at 1 a flush begins where waiting and flushing cost the same, and the estimate of the cost is
    /// never exact.
    pub const KAPPA: f64 = 1.2;

    /// By the settings alone.
    pub const fn by_settings(batch_max: Bytes) -> Self {
        Self { batch_max, kappa: None }
    }

    /// By the waiting too, for a pipeline that nobody tunes.
    pub const fn by_waiting(batch_max: Bytes) -> Self {
        Self { batch_max, kappa: Some(Self::KAPPA) }
    }

    /// When the waiting alone calls for a flush.
    fn waited(&self, queue: &Queue) -> Option<Nanos> {
        queue.waiting?.reaches(self.kappa?)
    }
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
            match self.waited(queue) {
                Some(at) if now >= at => Cause::Waiting,
                waited => return Verdict::Wait { until: Some(waited.map_or(due, |at| at.min(due))) },
            }
        };
        Verdict::Flush { cause, take: queue.bytes.min(self.batch_max) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SETTINGS: Settings = Settings { batch: Bytes::from_kib(256), interval: Nanos::from_millis(250) };
    const RULE: L0 = L0::by_settings(Bytes::from_kib(512));

    /// A queue of `bytes` of 1,000 KiB, its oldest event from time zero, at `ms` milliseconds.
    fn at(bytes: Bytes, sink: Sink, ms: u64) -> Verdict {
        let oldest = (bytes.0 > 0).then_some(Nanos(0));
        let queue = Queue { bytes, oldest, capacity: Bytes::from_kib(1000), waiting: None };
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
        let rule = L0::by_settings(Bytes(100));
        let queue = Queue { bytes: Bytes(100), oldest: Some(Nanos(0)), capacity: Bytes(10_000), waiting: None };
        assert_eq!(rule.decide(&SETTINGS, &queue, Sink::Idle, Nanos(0)), flush(Cause::Size, Bytes(100)));
    }

    /// Ten events of 1 KiB that arrived at 0, 1, … 9 ms: at `t` ms they have waited 10 t - 45 ms in all.
    fn ten_waiting(rule: L0, flush_cost: Nanos, ms: u64) -> Verdict {
        let waiting = Some(Waiting { events: 10, arrivals_ns: 45_000_000, flush_cost });
        let queue =
            Queue { bytes: Bytes::from_kib(10), oldest: Some(Nanos(0)), capacity: Bytes::from_kib(1000), waiting };
        rule.decide(&SETTINGS, &queue, Sink::Idle, Nanos::from_millis(ms))
    }

    #[test]
    fn events_that_together_waited_as_long_as_a_flush_costs_are_flushed() {
        let rule = L0 { kappa: Some(1.5), ..RULE };
        let cost = Nanos::from_millis(50);
        // 1.5 * 50 ms = 10 t - 45 ms at t = 12 ms.
        assert_eq!(ten_waiting(rule, cost, 11), Verdict::Wait { until: Some(Nanos::from_millis(12)) });
        assert_eq!(ten_waiting(rule, cost, 12), flush(Cause::Waiting, Bytes::from_kib(10)));
        assert_eq!(
            ten_waiting(RULE, cost, 249),
            Verdict::Wait { until: Some(Nanos::from_millis(250)) },
            "not asked for"
        );
    }

    #[test]
    fn waiting_never_prolongs_the_interval() {
        let rule = L0 { kappa: Some(1.0), ..RULE };
        let long = Nanos::from_millis(1 << 40);
        assert_eq!(ten_waiting(rule, long, 10), Verdict::Wait { until: Some(Nanos::from_millis(250)) });
        assert_eq!(ten_waiting(rule, long, 250), flush(Cause::Age, Bytes::from_kib(10)));
    }

    #[test]
    fn a_kappa_that_is_no_number_leaves_the_settings_in_force() {
        for kappa in [f64::NAN, f64::INFINITY] {
            let rule = L0 { kappa: Some(kappa), ..RULE };
            let verdict = ten_waiting(rule, Nanos::from_millis(1), 100);
            assert_eq!(verdict, Verdict::Wait { until: Some(Nanos::from_millis(250)) }, "{kappa}");
        }
    }

    prop_compose! {
        fn any_state()(
            batch in 1_u64..1 << 30, interval in 0_u64..1 << 40, batch_max in 1_u64..1 << 30,
            bytes in 0_u64..1 << 32, capacity in 1_u64..1 << 32, oldest in any::<u64>(), now in any::<u64>(),
            sink in prop_oneof![Just(Sink::Busy), Just(Sink::Freed), Just(Sink::Idle)],
            kappa in proptest::option::of(0.0_f64..4.0), events in 1_u64..1 << 20, spread in 0_u64..1 << 30,
            cost in proptest::option::of(0_u64..1 << 40),
        ) -> (Settings, L0, Queue, Sink, Nanos) {
            // Arrivals between `oldest` and `oldest + spread`.
            let arrivals_ns = u128::from(oldest) + u128::from(oldest.saturating_add(spread)) * u128::from(events - 1);
            let queue = Queue {
                bytes: Bytes(bytes), oldest: (bytes > 0).then_some(Nanos(oldest)), capacity: Bytes(capacity),
                waiting: cost.map(|cost| Waiting { events, arrivals_ns, flush_cost: Nanos(cost) }),
            };
            (Settings { batch: Bytes(batch), interval: Nanos(interval) }, L0 { batch_max: Bytes(batch_max), kappa },
                queue, sink, Nanos(now))
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
                let then = now + Nanos(more);
                let waiting = queue.waiting.map(|w| Waiting {
                    events: w.events + 1, arrivals_ns: w.arrivals_ns + u128::from(then.0), ..w
                });
                let fuller = Queue { bytes: Bytes(queue.bytes.0 + more), waiting, ..queue };
                let later = rule.decide(&settings, &fuller, sink, then);
                prop_assert!(matches!(later, Verdict::Flush { .. }), "{later:?}");
            }
        }
    }
}
