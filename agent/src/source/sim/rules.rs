//! Flush rules to compare with the client's own: what a pipeline does without an agent. Pure.

use tidegate_client::rule::{Cause, Queue, Rule, Settings, Sink, Verdict};
use tidegate_client::units::{Bytes, Nanos};

/// Flushes at exactly its batch size or its interval: no drain of a backlog, no panic. The shipped default of many.
#[derive(Clone, Copy, Debug)]
pub struct Fixed;

impl Rule for Fixed {
    fn decide(&self, settings: &Settings, queue: &Queue, sink: Sink, now: Nanos) -> Verdict {
        let Some(oldest) = queue.oldest.filter(|_| sink != Sink::Busy) else {
            return Verdict::Wait { until: None };
        };
        let due = oldest + settings.interval;
        if queue.bytes >= settings.batch {
            Verdict::Flush { cause: Cause::Size, take: settings.batch }
        } else if now >= due {
            Verdict::Flush { cause: Cause::Age, take: queue.bytes }
        } else {
            Verdict::Wait { until: Some(due) }
        }
    }
}

/// Flushes what is queued whenever the sink is free.
#[derive(Clone, Copy, Debug)]
pub struct Greedy {
    /// Largest flush.
    pub batch_max: Bytes,
}

impl Rule for Greedy {
    fn decide(&self, _settings: &Settings, queue: &Queue, sink: Sink, _now: Nanos) -> Verdict {
        match queue.oldest {
            Some(_) if sink != Sink::Busy => {
                Verdict::Flush { cause: Cause::Backlog, take: queue.bytes.min(self.batch_max) }
            }
            _ => Verdict::Wait { until: None },
        }
    }
}
