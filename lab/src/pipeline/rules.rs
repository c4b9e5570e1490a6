//! The flush rules that are compared, beside the client's own: the state of a queue in, flush or wait out. Each works on
//! the very same queue and never blocks.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tidegate_client::rule::{Cause, L0, Queue, Rule, Settings, Sink, Verdict};
use tidegate_client::{Bytes, Nanos};

use super::policy::Constant;

/// The constant that suffers both pathologies: it waits for its timer at low load, and its size limits the drain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plain(pub(crate) Settings);

impl Rule for Plain {
    fn decide(&self, _: &Settings, queue: &Queue, sink: Sink, now: Nanos) -> Verdict {
        let Settings { batch, interval } = self.0;
        let Some(oldest) = queue.oldest.filter(|_| sink != Sink::Busy) else { return Verdict::Wait { until: None } };
        let due = oldest + interval;
        if queue.bytes >= batch {
            Verdict::Flush { cause: Cause::Size, take: batch }
        } else if now >= due {
            Verdict::Flush { cause: Cause::Age, take: batch }
        } else {
            Verdict::Wait { until: Some(due) }
        }
    }
}

/// The baseline to respect: never waits while the sink is free.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Greedy {
    /// Largest flush.
    pub(crate) batch_max: Bytes,
}

impl Rule for Greedy {
    fn decide(&self, _: &Settings, queue: &Queue, sink: Sink, _: Nanos) -> Verdict {
        if sink == Sink::Busy || queue.oldest.is_none() {
            return Verdict::Wait { until: None };
        }
        let cause = if sink == Sink::Freed { Cause::Backlog } else { Cause::Age };
        Verdict::Flush { cause, take: queue.bytes.min(self.batch_max) }
    }
}

/// One switch of a schedule: from this instant on, this constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Switch {
    /// On the monotonic clock.
    pub(crate) at_ns: u64,
    /// What holds from then on.
    #[serde(flatten)]
    pub(crate) constant: Constant,
}

/// The switches of a pipeline, in order of time; set while it runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Switches(Arc<Mutex<Vec<Switch>>>);

impl Switches {
    pub(crate) fn set(&self, mut switches: Vec<Switch>) {
        switches.sort_by_key(|s| s.at_ns);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = switches;
    }

    /// What holds at `now`, and when that ends.
    fn at(&self, now: Nanos) -> (Option<Constant>, Option<Nanos>) {
        let switches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = switches.partition_point(|s| s.at_ns <= now.0);
        let current = next.checked_sub(1).and_then(|i| switches.get(i)).map(|s| s.constant);
        (current, switches.get(next).map(|s| Nanos(s.at_ns)))
    }
}

/// The client's rule on constants that somebody who knows the load switches in time: what no policy can know.
#[derive(Clone, Debug)]
pub(crate) struct Scheduled {
    /// The rule.
    pub(crate) rule: L0,
    /// What holds when; before the first switch the pipeline's own settings do.
    pub(crate) switches: Switches,
}

impl Rule for Scheduled {
    fn decide(&self, own: &Settings, queue: &Queue, sink: Sink, now: Nanos) -> Verdict {
        let (constant, next) = self.switches.at(now);
        let settings = constant.map_or(*own, Constant::settings);
        match (self.rule.decide(&settings, queue, sink, now), next) {
            (Verdict::Wait { until: Some(until) }, Some(next)) => Verdict::Wait { until: Some(until.min(next)) },
            (verdict, _) => verdict,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: Settings = Settings { batch: Bytes(1), interval: Nanos(0) };

    fn queue(bytes: u64) -> Queue {
        Queue { bytes: Bytes(bytes), oldest: (bytes > 0).then_some(Nanos(0)), capacity: Bytes(1 << 20), waiting: None }
    }

    #[test]
    fn a_plain_rule_takes_its_size_also_from_a_queue_that_overflows() {
        let rule = Plain(Settings { batch: Bytes(100), interval: Nanos(250) });
        let at = |bytes, sink, now| rule.decide(&ANY, &queue(bytes), sink, Nanos(now));
        assert_eq!(at(99, Sink::Idle, 249), Verdict::Wait { until: Some(Nanos(250)) });
        assert_eq!(at(99, Sink::Idle, 250), Verdict::Flush { cause: Cause::Age, take: Bytes(100) });
        assert_eq!(at(1 << 20, Sink::Freed, 0), Verdict::Flush { cause: Cause::Size, take: Bytes(100) });
        assert_eq!(at(1 << 20, Sink::Busy, 999), Verdict::Wait { until: None });
    }

    #[test]
    fn greedy_waits_for_nothing_but_the_sink() {
        let rule = Greedy { batch_max: Bytes(100) };
        let at = |bytes, sink| rule.decide(&ANY, &queue(bytes), sink, Nanos(0));
        assert_eq!(at(1, Sink::Idle), Verdict::Flush { cause: Cause::Age, take: Bytes(1) });
        assert_eq!(at(500, Sink::Freed), Verdict::Flush { cause: Cause::Backlog, take: Bytes(100) });
        assert_eq!(at(500, Sink::Busy), Verdict::Wait { until: None });
        assert_eq!(at(0, Sink::Idle), Verdict::Wait { until: None });
    }

    #[test]
    fn a_schedule_switches_at_its_instants_and_a_wait_ends_there() {
        let rule = Scheduled { rule: L0::by_settings(Bytes(1 << 20)), switches: Switches::default() };
        let ms = |n: u64| Nanos::from_millis(n);
        let constant = |interval_ms: u64| Constant { batch_bytes: 1 << 16, interval_us: interval_ms * 1_000 };
        rule.switches.set(vec![
            Switch { at_ns: ms(40).0, constant: constant(5) },
            Switch { at_ns: ms(10).0, constant: constant(100) },
        ]);
        let own = Settings { batch: Bytes(1 << 16), interval: ms(20) };
        let at = |now| rule.decide(&own, &queue(1), Sink::Idle, ms(now));
        assert_eq!(at(0), Verdict::Wait { until: Some(ms(10)) }, "its own settings, until the first switch");
        assert_eq!(at(25), Verdict::Wait { until: Some(ms(40)) }, "100 ms, until the second switch");
        assert_eq!(at(40), Verdict::Flush { cause: Cause::Age, take: Bytes(1) }, "5 ms since 0");
    }
}
