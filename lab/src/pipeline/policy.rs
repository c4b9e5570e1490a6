//! The flush policies that are compared: each a rule over the very same queue.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tidegate_client::rule::{Cause, Queue, Rule, Settings, Sink, Verdict};
use tidegate_client::{Bytes, Nanos};

/// When a pipeline flushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Policy {
    /// Exactly a full batch, or by the interval: no panic, no drain
    Fixed,
    /// What is queued, when the sink is free
    Greedy,
    /// The client's rule on its own settings, no agent
    Batcher,
    /// The client's rule on its own settings and by the accrued waiting, no agent
    L0,
    /// The client's rule on the agent's settings
    Tuned,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fixed => "fixed",
            Self::Greedy => "greedy",
            Self::Batcher => "batcher",
            Self::L0 => "l0",
            Self::Tuned => "tuned",
        })
    }
}

/// The constant that suffers both pathologies: it waits for its timer at low load, and its size limits the drain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fixed {
    /// Size of a flush, and its trigger.
    pub(crate) batch: Bytes,
    /// Age trigger.
    pub(crate) interval: Nanos,
}

impl Rule for Fixed {
    fn decide(&self, _: &Settings, queue: &Queue, sink: Sink, now: Nanos) -> Verdict {
        let Some(oldest) = queue.oldest.filter(|_| sink != Sink::Busy) else { return Verdict::Wait { until: None } };
        let due = oldest + self.interval;
        if queue.bytes >= self.batch {
            Verdict::Flush { cause: Cause::Size, take: self.batch }
        } else if now >= due {
            Verdict::Flush { cause: Cause::Age, take: self.batch }
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

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: Settings = Settings { batch: Bytes(1), interval: Nanos(0) };

    fn queue(bytes: u64) -> Queue {
        Queue { bytes: Bytes(bytes), oldest: (bytes > 0).then_some(Nanos(0)), capacity: Bytes(1_000), waiting: None }
    }

    #[test]
    fn fixed_takes_its_size_also_from_a_queue_that_overflows() {
        let rule = Fixed { batch: Bytes(100), interval: Nanos(250) };
        let at = |bytes, sink, now| rule.decide(&ANY, &queue(bytes), sink, Nanos(now));
        assert_eq!(at(99, Sink::Idle, 249), Verdict::Wait { until: Some(Nanos(250)) });
        assert_eq!(at(99, Sink::Idle, 250), Verdict::Flush { cause: Cause::Age, take: Bytes(100) });
        assert_eq!(at(999, Sink::Freed, 0), Verdict::Flush { cause: Cause::Size, take: Bytes(100) });
        assert_eq!(at(999, Sink::Busy, 999), Verdict::Wait { until: None });
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
}
