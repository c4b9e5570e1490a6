//! What is compared under which load: phases, sinks and policies in, jobs and groups of phases out. Pure.
//!
//! Phases of the same rate and the same plant are pooled: one tail of four seconds at 300 records a second is twelve
//! records, and no figure of a 99th percentile should rest on those.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tidegate_client::Nanos;

use super::job::{Check, Downstream, Job};
use crate::load::schedule::Phases;
use crate::pipeline::policy::{Constant, Policy};

/// After a change of the load, panic flushes are forgiven for so long.
pub(crate) const GRACE: Nanos = Nanos::from_millis(200);
/// The first second of a phase is the transition.
pub(crate) const TRANSITION: Nanos = Nanos::from_millis(1_000);
/// Marks of a phase: begin, end of the grace, end of the transition; its end is the next one's begin.
pub(crate) const MARKS: usize = 3;

/// A policy and what the report calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contender {
    /// Its name in the report.
    pub(crate) label: String,
    /// The policy.
    pub(crate) policy: Policy,
    /// A constant a phase, for the policy `schedule`.
    pub(crate) constants: Vec<Constant>,
}

impl FromStr for Contender {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (label, policy) = text.split_once('=').unwrap_or((text, text));
        let policy: Policy = policy.parse()?;
        if policy == Policy::Schedule {
            return Err("policy schedule: it comes from the search (see --oracle)".into());
        }
        Ok(Self { label: label.to_owned(), policy, constants: Vec::new() })
    }
}

/// Which part of a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Part {
    /// All of it.
    Whole,
    /// Its first second, where a change went before it.
    FirstSecond,
    /// The rest.
    Settled,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Whole => "whole",
            Self::FirstSecond => "first second",
            Self::Settled => "settled",
        })
    }
}

/// Phases that are pooled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// As the report calls it.
    pub(crate) name: String,
    /// Their places in the run.
    pub(crate) phases: Vec<usize>,
}

impl Group {
    /// Whether second `second` of phase `phase` belongs to `part` of it. The first phase of a run has no transition: the
    /// warm-up goes on at its rate.
    pub(crate) fn holds(&self, part: Part, phase: usize, second: usize) -> bool {
        self.phases.contains(&phase)
            && match part {
                Part::Whole => true,
                Part::FirstSecond => phase > 0 && second == 0,
                Part::Settled => second > 0,
            }
    }
}

/// One comparison.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// What the report calls it.
    pub(crate) title: String,
    pub(crate) downstream: Downstream,
    pub(crate) phases: Phases,
    pub(crate) warmup: Nanos,
    pub(crate) record_bytes: usize,
    pub(crate) busy_cap: Option<f64>,
    pub(crate) contenders: Vec<Contender>,
    /// Blocks that are wanted.
    pub(crate) blocks: usize,
    /// Lanes at once.
    pub(crate) side_by_side: usize,
    pub(crate) seed: u64,
}

impl Plan {
    /// The phases by rate and plant, in the order in which they first occur.
    pub(crate) fn groups(&self) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        let mut begin = Nanos(0);
        for (i, phase) in self.phases.0.iter().enumerate() {
            let name = match &self.downstream {
                Downstream::Tcp { steps, .. } if !steps.0.is_empty() => {
                    let step = steps.0.iter().rev().find(|s| s.from <= begin);
                    let delay = step.map_or(Nanos(0), |s| s.fixed);
                    format!("{}/s, {} ms a flush", phase.rate, crate::time::as_ms(delay))
                }
                _ => format!("{}/s", phase.rate),
            };
            match groups.iter_mut().find(|g| g.name == name) {
                Some(group) => group.phases.push(i),
                None => groups.push(Group { name, phases: vec![i] }),
            }
            begin = begin + phase.span;
        }
        groups
    }

    /// When counters are read: three marks a phase and one at the end.
    pub(crate) fn marks(&self) -> Vec<Nanos> {
        let (mut marks, mut begin) = (Vec::new(), Nanos(0));
        for phase in &self.phases.0 {
            marks.extend([begin, begin + GRACE.min(phase.span), begin + TRANSITION.min(phase.span)]);
            begin = begin + phase.span;
        }
        marks.push(begin);
        marks
    }

    /// What a contender is to do.
    pub(crate) fn job(&self, contender: &Contender) -> Job {
        let mut begin = Nanos(0);
        let mut switches = Vec::new();
        for (phase, constant) in self.phases.0.iter().zip(&contender.constants) {
            switches.push((begin, *constant));
            begin = begin + phase.span;
        }
        Job {
            label: contender.label.clone(),
            policy: contender.policy,
            switches,
            downstream: self.downstream.clone(),
            phases: self.phases.clone(),
            warmup: self.warmup,
            record_bytes: self.record_bytes,
            busy_cap: self.busy_cap,
            batch_max: None,
            marks: self.marks(),
            check: Check::Sequence,
            drain: Nanos::from_millis(30_000),
        }
    }

    /// Seconds that a block takes, about.
    pub(crate) fn lanes_at_once(&self) -> usize {
        if self.downstream.bears_company() { self.side_by_side.max(1) } else { 1 }
    }
}

/// `lanes` in groups of at most `most`, as equal in size as can be: lanes that have less company have it easier.
pub(crate) fn divide<T: Clone>(lanes: &[T], most: usize) -> Vec<Vec<T>> {
    let groups = lanes.len().div_ceil(most.max(1)).max(1);
    (0..groups).map(|g| lanes[lanes.len() * g / groups..lanes.len() * (g + 1) / groups].to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(phases: &str, downstream: &str) -> Plan {
        Plan {
            title: String::new(),
            downstream: downstream.parse().unwrap(),
            phases: phases.parse().unwrap(),
            warmup: Nanos(0),
            record_bytes: 512,
            busy_cap: None,
            contenders: Vec::new(),
            blocks: 1,
            side_by_side: 4,
            seed: 1,
        }
    }

    #[test]
    fn phases_of_one_rate_are_pooled_unless_the_plant_differs() {
        let names = |plan: &Plan| plan.groups().into_iter().map(|g| (g.name, g.phases)).collect::<Vec<_>>();
        let same = plan("300x4s,5000x4s,300x4s", "tcp:2ms");
        assert_eq!(names(&same), [("300/s".to_owned(), vec![0, 2]), ("5000/s".to_owned(), vec![1])]);
        let mut stepped = plan("500x4s,500x4s,500x4s", "tcp:2ms");
        let steps = "1ms@0s,10ms@4s,1ms@8s".parse().unwrap();
        stepped.downstream = Downstream::Tcp { delay: Nanos(0), steps };
        let want = [("500/s, 1 ms a flush".to_owned(), vec![0, 2]), ("500/s, 10 ms a flush".to_owned(), vec![1])];
        assert_eq!(names(&stepped), want);
    }

    #[test]
    fn every_second_lies_in_one_part_and_the_first_phase_has_no_transition() {
        let group = &plan("300x4s,5000x4s,300x4s", "file").groups()[0];
        let parts = |phase, second| {
            [Part::Whole, Part::FirstSecond, Part::Settled].map(|part| group.holds(part, phase, second))
        };
        assert_eq!(parts(0, 0), [true, false, false]);
        assert_eq!(parts(2, 0), [true, true, false]);
        assert_eq!(parts(2, 3), [true, false, true]);
        assert_eq!(parts(1, 0), [false, false, false]);
    }

    #[test]
    fn a_schedule_switches_with_the_phases() {
        let plan = plan("300x4s,5000x2s", "file");
        let constants = vec!["4KiB/1ms".parse().unwrap(), "8KiB/2ms".parse().unwrap()];
        let job = plan.job(&Contender { label: "oracle".into(), policy: Policy::Schedule, constants });
        let switches: Vec<_> = job.switches_from(Nanos(1_000)).iter().map(|s| s.at_ns).collect();
        assert_eq!(switches, [0, 4_000_001_000]);
        assert_eq!(job.marks.len(), 2 * MARKS + 1);
    }

    #[test]
    fn lanes_are_divided_evenly() {
        let sizes = |n: usize, most| divide(&vec![0; n], most).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(9, 4), [3, 3, 3]);
        assert_eq!(sizes(4, 4), [4]);
        assert_eq!(sizes(3, 1), [1, 1, 1]);
    }
}
