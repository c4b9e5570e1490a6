//! What one lane of a comparison is to do: a policy, a load and a sink, with the instants at which its counters are read.
//! Words for its three processes come out; nothing is started here.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use tidegate_client::Nanos;

use crate::load::schedule::Phases;
use crate::pipeline::policy::{Constant, Policy};
use crate::pipeline::rules::Switch;
use crate::sink::delay::Steps;
use crate::time::parse_span;

/// Where flushes go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Downstream {
    /// A process that acknowledges after a planted delay, over TCP.
    Tcp {
        /// Of every flush.
        delay: Nanos,
        /// Instead of it from instants on, from the begin of the first phase.
        steps: Steps,
    },
    /// A file that is written and synced.
    File,
    /// A server that the laboratory starts: `postgres` or `redis`.
    Server(String),
}

impl Downstream {
    /// Whether lanes may run at once: planted delays do not get in each other's way, a disk and a server do.
    pub(crate) fn bears_company(&self) -> bool {
        matches!(self, Self::Tcp { .. })
    }

    /// The span within which records go out in one write, and the shortest interval that may be set. Lanes that run at once
    /// share the processors; one that runs alone affords a finer grain. Its sink answers within tenths of a millisecond,
    /// and would idle between two writes of a coarse load: every policy would flush once a write.
    fn grain(&self) -> Nanos {
        if self.bears_company() { Nanos::from_millis(1) } else { Nanos::from_micros(100) }
    }
}

impl FromStr for Downstream {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "file" => Ok(Self::File),
            None if text == "postgres" || text == "redis" => Ok(Self::Server(text.into())),
            Some(("tcp", steps)) if steps.contains('@') => {
                let steps: Steps = steps.parse()?;
                let delay = steps.0.first().map_or(Nanos(0), |step| step.fixed);
                Ok(Self::Tcp { delay, steps })
            }
            Some(("tcp", delay)) => Ok(Self::Tcp { delay: parse_span(delay)?, steps: Steps::default() }),
            _ => Err(format!(
                "sink {text:?}: want tcp:DELAY, file, postgres or redis, like tcp:2ms, or tcp:1ms@0s,10ms@4s for a delay \
                 that changes"
            )),
        }
    }
}

impl fmt::Display for Downstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { delay, steps } if steps.0.is_empty() => write!(f, "tcp:{}us", delay.as_micros()),
            Self::Tcp { steps, .. } => write!(f, "tcp:{steps}"),
            Self::File => f.write_str("file"),
            Self::Server(kind) => f.write_str(kind),
        }
    }
}

/// One lane.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// What the report calls it.
    pub(crate) label: String,
    /// How it flushes.
    pub(crate) policy: Policy,
    /// Constants from instants on, counted from the begin of the first phase, for the policy `schedule`; the first holds
    /// during the warm-up too.
    pub(crate) switches: Vec<(Nanos, Constant)>,
    /// Where it flushes to.
    pub(crate) downstream: Downstream,
    /// What it is loaded with.
    pub(crate) phases: Phases,
    /// Before the first phase.
    pub(crate) warmup: Nanos,
    /// Bytes of a record.
    pub(crate) record_bytes: usize,
    /// Cap on the busy share of the flusher, told to the agent.
    pub(crate) busy_cap: Option<f64>,
    /// Largest flush, where it is not the usual one.
    pub(crate) batch_max: Option<u64>,
    /// When its counters are read, from the begin of the first phase.
    pub(crate) marks: Vec<Nanos>,
    /// Whether the sink checks what it gets.
    pub(crate) check: Check,
    /// How long acknowledgements are waited for at the end.
    pub(crate) drain: Nanos,
}

/// Whether the sink unpacks what it gets and looks for gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    Sequence,
    Nothing,
}

fn words(pairs: &[(&str, &str)]) -> Vec<String> {
    pairs.iter().flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()]).collect()
}

fn us(span: Nanos) -> String {
    format!("{}us", span.as_micros())
}

impl Job {
    /// Of the sink process, if it needs one. Steps count from `begin`.
    pub(crate) fn sink_words(&self, begin: Nanos) -> Option<Vec<String>> {
        let Downstream::Tcp { delay, steps } = &self.downstream else { return None };
        let mut all = vec!["sink".to_owned()];
        all.extend(words(&[("--listen", "127.0.0.1:0"), ("--delay", &us(*delay))]));
        if !steps.0.is_empty() {
            all.extend(words(&[("--delay-steps", &steps.to_string()), ("--steps-from", &begin.0.to_string())]));
        }
        if self.check == Check::Sequence {
            all.push("--verify".to_owned());
        }
        Some(all)
    }

    /// Of the pipeline.
    pub(crate) fn pipeline_words(&self, name: &str, target: &str, directory: &Path, socket: &Path) -> Vec<String> {
        let mut all = vec!["pipeline".to_owned(), "--stats-on-stdin".to_owned()];
        all.extend(words(&[
            ("--listen", "127.0.0.1:0"),
            ("--sink", target),
            ("--policy", &self.policy.to_string()),
            ("--name", name),
            ("--event-bytes", &self.record_bytes.to_string()),
            ("--report-dir", &directory.to_string_lossy()),
            ("--interval-min", &us(self.downstream.grain())),
        ]));
        if let Some(most) = self.batch_max {
            all.extend(words(&[("--batch-max", &most.to_string())]));
        }
        if self.policy.of_agent().is_some() {
            all.extend(words(&[("--socket", &socket.to_string_lossy())]));
            if let Some(cap) = self.busy_cap {
                all.extend(words(&[("--busy-cap", &cap.to_string())]));
            }
        }
        all
    }

    /// Of the load, which begins with its warm-up at `start`.
    pub(crate) fn load_words(&self, connect: &str, start: Nanos) -> Vec<String> {
        let mut all = vec!["load".to_owned(), "--slices".to_owned()];
        all.extend(words(&[
            ("--connect", connect),
            ("--phases", &self.phases.to_string()),
            ("--warmup", &us(self.warmup)),
            ("--record-bytes", &self.record_bytes.to_string()),
            ("--coalesce", &us(self.downstream.grain())),
            ("--drain", &us(self.drain)),
            ("--start-at", &start.0.to_string()),
            ("--json", "-"),
        ]));
        all
    }

    /// The switches on the monotonic clock.
    pub(crate) fn switches_from(&self, begin: Nanos) -> Vec<Switch> {
        let at = |i: usize, offset: Nanos| if i == 0 { 0 } else { (begin + offset).0 };
        self.switches
            .iter()
            .enumerate()
            .map(|(i, (offset, constant))| Switch { at_ns: at(i, *offset), constant: *constant })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sinks_are_read_as_they_are_written() {
        for text in ["tcp:2000us", "tcp:1000us@0us,10000us@4000000us", "file", "postgres", "redis"] {
            assert_eq!(text.parse::<Downstream>().map(|d| d.to_string()), Ok(text.to_owned()));
        }
        for bad in ["", "tcp", "tcp:2", "tcp:2ms@", "udp:2ms", "files"] {
            assert!(bad.parse::<Downstream>().is_err(), "{bad:?} was taken");
        }
    }
}
