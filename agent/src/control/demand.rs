//! Who needs what: watches, pipelines and defaults in, what the source shall bring out. Pure.
//!
//! What nobody wants is not in the answer, and the source detaches it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::event::{Watch, WatchKind};
use crate::source::{ReportFile, Scope, Wanted};
use crate::units::{Nanos, Pid, PipelineName, Uid};

/// Watches held at once; more replace a look at a pipeline, or else the one that ends first.
pub const MAX_WATCHES: usize = 256;

/// Whether on-CPU stacks are sampled when nobody asks for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CpuSampling {
    /// Always, the whole host: any past window can be drawn.
    #[default]
    Always,
    /// Only while somebody watches.
    OnDemand,
}

/// Whether something is recorded when nobody asks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recording {
    /// Always.
    Always,
    /// Only while somebody watches.
    #[default]
    OnDemand,
}

/// What is recorded of the whole host when nobody asks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// On-CPU stacks.
    pub cpu: CpuSampling,
    /// Off-CPU and run-queue stacks.
    pub sched: Recording,
    /// Wakers' stacks.
    pub wakeups: Recording,
    /// Stacks of those who read from watched sockets.
    pub socket_stacks: Recording,
}

/// What a registered pipeline needs.
#[derive(Clone, Copy, Debug)]
pub struct Need<'a> {
    /// Its name.
    pub name: &'a PipelineName,
    /// Its process.
    pub pid: Pid,
    /// Its user.
    pub uid: Uid,
    /// Its report page, if it writes one.
    pub report: Option<&'a Path>,
    /// It was never changed, and tells nothing of itself.
    pub is_silent: bool,
}

/// The watches in force.
#[derive(Clone, Debug, Default)]
pub struct Demand {
    watches: BTreeMap<(WatchKind, Option<Pid>), Nanos>,
}

impl Demand {
    /// Somebody watches; the same watch again only ever prolongs it.
    pub fn watch(&mut self, watch: Watch) {
        let key = (watch.what, watch.pid);
        if self.watches.len() >= MAX_WATCHES && !self.watches.contains_key(&key) {
            // A look at a pipeline makes room for a question that somebody waits for, never the other way round.
            let looks = |(what, _): &(WatchKind, Option<Pid>)| *what == WatchKind::Flows;
            let first = self.watches.iter().min_by_key(|(held, until)| (!looks(held), **until, **held));
            match first.map(|(held, _)| *held) {
                Some(first) if looks(&first) || !looks(&key) => self.watches.remove(&first),
                _ => return,
            };
        }
        let until = self.watches.entry(key).or_default();
        *until = (*until).max(watch.until);
    }

    /// Whether somebody waits for what is being recorded; looks at pipelines do not count, they may go on for ever.
    pub fn is_watched(&self) -> bool {
        self.watches.keys().any(|(what, _)| *what != WatchKind::Flows)
    }

    /// Processes that somebody looks at.
    pub fn looked_at(&self, now: Nanos) -> impl Iterator<Item = Pid> {
        let looks = self.watches.iter().filter(move |((what, _), until)| *what == WatchKind::Flows && **until > now);
        looks.filter_map(|((_, pid), _)| *pid)
    }

    /// Forgets the watches that have ended.
    pub fn expire(&mut self, now: Nanos) {
        self.watches.retain(|_, until| *until > now);
    }

    /// What the source shall bring at `now`.
    pub fn wanted<'a>(&self, now: Nanos, standing: Standing, needs: impl IntoIterator<Item = Need<'a>>) -> Wanted {
        let Standing { cpu, sched, wakeups, socket_stacks } = standing;
        let mut wanted = Wanted {
            cpu: (cpu == CpuSampling::Always).then_some(Scope::Host),
            sched: (sched == Recording::Always).then_some(Scope::Host),
            wakeups: wakeups == Recording::Always,
            socket_stacks: socket_stacks == Recording::Always,
            ..Wanted::default()
        };
        for need in needs {
            wanted.tasks.insert(need.pid);
            wanted.queues.insert(need.pid);
            if let Some(path) = need.report {
                let report = ReportFile { name: need.name.clone(), path: path.to_owned(), uid: need.uid };
                wanted.reports.push(report);
            }
            if need.is_silent {
                // Of one that tells nothing itself; the second opinion on one that does is for those who ask for it,
                // because every system call of its process pays for it.
                look(&mut wanted, need.pid);
            }
        }
        for ((what, pid), _) in self.watches.iter().filter(|(_, until)| **until > now) {
            match what {
                WatchKind::Cpu => widen(&mut wanted.cpu, *pid),
                WatchKind::Syscalls => widen(&mut wanted.syscalls, *pid),
                // Sockets are found by their process; there is no such thing as all of them.
                WatchKind::Sockets => wanted.sockets.get_or_insert_default().extend(*pid),
                WatchKind::Sched => widen(&mut wanted.sched, *pid),
                WatchKind::Wakeups => wanted.wakeups = true,
                WatchKind::SocketStacks => wanted.socket_stacks = true,
                // Descriptors, too, are those of a process.
                WatchKind::Flows => {
                    if let Some(pid) = *pid {
                        look(&mut wanted, pid);
                        wanted.counted.insert(pid);
                    }
                }
            }
        }
        if wanted.socket_stacks {
            wanted.sockets.get_or_insert_default().extend(&wanted.queues);
        }
        wanted.sockets = wanted.sockets.filter(|pids| !pids.is_empty());
        wanted
    }
}

/// Every call of a process, what moves through its descriptors, and how long it waits in its sockets.
fn look(wanted: &mut Wanted, pid: Pid) {
    widen(&mut wanted.syscalls, Some(pid));
    wanted.sockets.get_or_insert_default().insert(pid);
    wanted.flows.insert(pid);
}

fn widen(scope: &mut Option<Scope>, pid: Option<Pid>) {
    match (scope, pid) {
        (Some(Scope::Host), _) => {}
        // Two kinds of scope at once: the host holds both.
        (scope, None) | (scope @ Some(Scope::Cgroups(_)), Some(_)) => *scope = Some(Scope::Host),
        (Some(Scope::Pids(pids)), Some(pid)) => {
            pids.insert(pid);
        }
        (scope @ None, Some(pid)) => *scope = Some(Scope::Pids(BTreeSet::from([pid]))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Standing = Standing {
        cpu: CpuSampling::OnDemand,
        sched: Recording::OnDemand,
        wakeups: Recording::OnDemand,
        socket_stacks: Recording::OnDemand,
    };

    fn watch(what: WatchKind, pid: Option<u32>, until: u64) -> Watch {
        Watch { what, pid: pid.map(Pid), until: Nanos(until) }
    }

    #[test]
    fn what_nobody_needs_is_not_wanted() {
        assert_eq!(Demand::default().wanted(Nanos(0), QUIET, []), Wanted::default());
        let always = Demand::default().wanted(Nanos(0), Standing::default(), []);
        assert_eq!(always, Wanted { cpu: Some(Scope::Host), ..Wanted::default() });
    }

    #[test]
    fn what_is_always_recorded_and_what_somebody_watches_are_both_wanted() {
        let mut demand = Demand::default();
        demand.watch(watch(WatchKind::Sched, Some(7), 100));
        let wanted = demand.wanted(Nanos(0), QUIET, []);
        assert_eq!((wanted.sched, wanted.wakeups), (Some(Scope::Pids(BTreeSet::from([Pid(7)]))), false));
        demand.watch(watch(WatchKind::Wakeups, Some(7), 100));
        let standing = Standing { sched: Recording::Always, ..QUIET };
        let wanted = demand.wanted(Nanos(0), standing, []);
        assert_eq!((wanted.sched, wanted.wakeups, wanted.socket_stacks), (Some(Scope::Host), true, false));
    }

    #[test]
    fn a_watch_ends_by_itself() {
        let mut demand = Demand::default();
        demand.watch(watch(WatchKind::Syscalls, Some(7), 100));
        let wanted = demand.wanted(Nanos(99), QUIET, []);
        assert_eq!(wanted.syscalls, Some(Scope::Pids(BTreeSet::from([Pid(7)]))));
        assert_eq!(demand.wanted(Nanos(100), QUIET, []), Wanted::default());
    }

    #[test]
    fn a_pipeline_brings_its_evidence_and_the_host_includes_it() {
        let name = PipelineName::try_from("p".to_owned()).unwrap();
        let need = Need { name: &name, pid: Pid(3), uid: Uid(1), report: Some(Path::new("/r")), is_silent: false };
        let mut demand = Demand::default();
        let wanted = demand.wanted(Nanos(0), QUIET, [need]);
        assert_eq!((&wanted.sockets, &wanted.queues), (&None, &BTreeSet::from([Pid(3)])));
        assert_eq!((wanted.tasks.len(), wanted.reports.len(), wanted.cpu), (1, 1, None));
        demand.watch(watch(WatchKind::Syscalls, None, 10));
        assert_eq!(demand.wanted(Nanos(0), QUIET, [need]).syscalls, Some(Scope::Host));
    }

    #[test]
    fn every_call_is_counted_of_one_that_reports_nothing_and_of_one_that_somebody_looks_at() {
        let name = PipelineName::try_from("p".to_owned()).unwrap();
        let reports = Need { name: &name, pid: Pid(3), uid: Uid(1), report: None, is_silent: false };
        let silent = Need { pid: Pid(4), is_silent: true, ..reports };
        let mut demand = Demand::default();
        let alone = demand.wanted(Nanos(0), QUIET, [reports, silent]);
        assert_eq!(alone.flows, BTreeSet::from([Pid(4)]));
        assert_eq!((alone.syscalls, alone.counted.len()), (Some(Scope::Pids(alone.flows.clone())), 0));
        demand.watch(watch(WatchKind::Flows, Some(3), 10));
        let both = demand.wanted(Nanos(9), QUIET, [reports, silent]);
        assert_eq!(both.flows, BTreeSet::from([Pid(3), Pid(4)]));
        assert_eq!(both.sockets, Some(both.flows.clone()));
        assert_eq!((both.syscalls, both.counted), (Some(Scope::Pids(both.flows)), BTreeSet::from([Pid(3)])));
        let always = Standing { socket_stacks: Recording::Always, ..QUIET };
        assert_eq!(Demand::default().wanted(Nanos(0), always, [reports]).sockets, Some(BTreeSet::from([Pid(3)])));
    }

    #[test]
    fn watches_are_bounded_and_the_one_that_ends_first_makes_room() {
        let mut demand = Demand::default();
        for pid in 0..1_000 {
            demand.watch(watch(WatchKind::Cpu, Some(pid), 1_000 + u64::from(pid)));
        }
        let wanted = demand.wanted(Nanos(0), QUIET, []);
        assert_eq!(wanted.cpu, Some(Scope::Pids((744..1_000).map(Pid).collect())));
    }

    #[test]
    fn looks_at_pipelines_take_no_room_from_questions_and_hold_nobody_up() {
        let mut demand = Demand::default();
        for pid in 0..1_000 {
            demand.watch(watch(WatchKind::Flows, Some(pid), 5_000));
        }
        assert!(!demand.is_watched());
        for pid in 0..256 {
            demand.watch(watch(WatchKind::Cpu, Some(pid), 100));
        }
        demand.watch(watch(WatchKind::Flows, Some(7), 5_000));
        let wanted = demand.wanted(Nanos(0), QUIET, []);
        assert_eq!((wanted.cpu, wanted.flows), (Some(Scope::Pids((0..256).map(Pid).collect())), BTreeSet::new()));
        assert!(demand.is_watched());
    }
}
