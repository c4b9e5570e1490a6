//! Sampled waits and runs with the exact totals of threads in, profiles that sum to those totals out.
//!
//! What was sampled says where in the program time went, the totals say how much there was: the samples of one process and
//! one kind of time are scaled so that they sum to what its threads were charged with, to the nanosecond. Time of which no
//! sample exists stands in a frame of its own, never in somebody else's.

use std::collections::{BTreeMap, BTreeSet};

use agent_common::{SampleKind, UnwindEnd, WaitReason};

use super::builder::Builder;
use super::model::{Origin, Owner};
use super::naming::samples_of;
use super::path::Path;
use crate::aggregate::stacks::{StackCounts, StackKey};
use crate::aggregate::threads::{ThreadId, ThreadTotals};
use crate::symbolize::Names;
use crate::units::{Pid, ProfileKind, Tid, Uid};

/// What becomes of threads that did nothing but wait for something to happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Idle {
    /// Their time stands in one frame.
    #[default]
    Folded,
    /// They are shown like any other.
    Shown,
}

/// A kind of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Running,
    Runnable,
    Blocked(WaitReason),
}

/// Totals of one kind of time of one process, and what was sampled of it.
#[derive(Default)]
struct Group<'a> {
    total: u64,
    /// In whose name the rest goes of which there is no sample.
    owner: Option<StackKey>,
    samples: Vec<(&'a StackKey, u64, u64)>,
}

/// Adds the stacks of a profile of `kind` (waiting or wall-clock time) that `keep` says yes to.
pub(super) fn add_times(
    builder: &mut Builder,
    counts: &StackCounts,
    kind: ProfileKind,
    names: &Names,
    idle: Idle,
    keep: &impl Fn(&StackKey) -> bool,
    label: &impl Fn(&StackKey) -> Owner,
) {
    let wanted = samples_of(kind);
    let mut groups: BTreeMap<(Pid, Part), Group<'_>> = BTreeMap::new();
    let mut idlers: BTreeSet<(Pid, Tid)> = BTreeSet::new();
    let mut known: BTreeSet<Pid> = BTreeSet::new();
    let users: BTreeMap<Pid, Uid> = counts.counts.keys().map(|key| (key.pid, key.uid)).collect();
    for (id, totals) in &counts.threads {
        let key = key_of(*id, totals, users.get(&id.pid).copied().unwrap_or_default());
        if !keep(&key) {
            continue;
        }
        known.insert(id.pid);
        let parts = parts(totals).filter(|(part, _)| wanted.contains(&part.kind()));
        if idle == Idle::Folded && totals.is_idle() {
            idlers.insert((id.pid, id.tid));
            let all = parts.fold(0_u64, |sum, (_, time)| sum.saturating_add(time));
            note(builder, label(&key), &["[idle]".to_owned()], all);
            continue;
        }
        for (part, time) in parts {
            let group = groups.entry((id.pid, part)).or_default();
            group.total = group.total.saturating_add(time);
            // The same one whatever the order of the table.
            if group.owner.as_ref().is_none_or(|owner| key < *owner) {
                group.owner = Some(key.clone());
            }
        }
    }
    for (key, tally) in counts.counts.iter().filter(|(key, _)| wanted.contains(&key.kind) && keep(key)) {
        if key.thread.is_some_and(|tid| idlers.contains(&(key.pid, tid))) {
            continue;
        }
        let group = groups.entry((key.pid, Part::of(key))).or_default();
        group.samples.push((key, tally.samples, tally.weight));
    }
    for ((pid, part), mut group) in groups {
        group.samples.sort_unstable_by_key(|(key, _, _)| *key);
        let sampled = group.samples.iter().fold(0_u64, |sum, (_, _, weight)| sum.saturating_add(*weight));
        // Without totals (an old recording, say) samples stand for themselves.
        let total = if known.contains(&pid) { group.total } else { sampled };
        if sampled == 0 {
            if let Some(owner) = group.owner.filter(|_| total > 0) {
                let mut path = vec!["[not sampled]".to_owned()];
                path.extend(part.note());
                note(builder, label(&owner), &path, total);
            }
            continue;
        }
        let mut path = Path::new(names);
        let (mut before, mut given) = (0_u128, 0_u64);
        for (key, samples, weight) in group.samples {
            // By running sums, so that nothing is lost to rounding.
            before += u128::from(weight);
            let upto = u64::try_from(before * u128::from(total) / u128::from(sampled)).unwrap_or(u64::MAX);
            let share = upto.saturating_sub(given);
            given = upto;
            if share == 0 {
                continue;
            }
            path.begin();
            path.stacks(builder, key);
            if let Some(text) = part.note() {
                path.note(builder, &text);
            }
            let owner = builder.owner(label(key));
            builder.add(owner, path.frames(), samples, share);
        }
    }
}

impl Part {
    fn of(key: &StackKey) -> Self {
        match key.kind {
            SampleKind::OffCpu => Self::Blocked(key.reason),
            SampleKind::RunQueue => Self::Runnable,
            _ => Self::Running,
        }
    }

    fn kind(self) -> SampleKind {
        match self {
            Self::Running => SampleKind::Cpu,
            Self::Runnable => SampleKind::RunQueue,
            Self::Blocked(_) => SampleKind::OffCpu,
        }
    }

    /// The innermost frame that says what this time is; running time needs none.
    fn note(self) -> Option<String> {
        match self {
            Self::Running => None,
            Self::Runnable => Some("[runnable]".to_owned()),
            Self::Blocked(reason) => Some(format!("[blocked: {}]", reason_name(reason))),
        }
    }
}

/// A wait reason in a word.
pub fn reason_name(reason: WaitReason) -> &'static str {
    match reason {
        WaitReason::Other => "other",
        WaitReason::Io => "io",
        WaitReason::Lock => "lock",
        WaitReason::Sleep => "sleep",
        WaitReason::Socket => "socket",
        WaitReason::Poll => "poll",
        WaitReason::Pipe => "pipe",
        WaitReason::Child => "child",
        WaitReason::Stopped => "stopped",
        WaitReason::Page => "page",
    }
}

fn parts(totals: &ThreadTotals) -> impl Iterator<Item = (Part, u64)> + '_ {
    let blocked = WaitReason::ALL.into_iter().map(|reason| (Part::Blocked(reason), totals.blocked[reason as usize].0));
    let rest = [(Part::Running, totals.run.0), (Part::Runnable, totals.runq.0)];
    rest.into_iter().chain(blocked).filter(|(_, time)| *time > 0)
}

/// A key without a stack, in the name of a thread.
fn key_of(id: ThreadId, totals: &ThreadTotals, uid: Uid) -> StackKey {
    StackKey {
        kind: SampleKind::OffCpu,
        pid: id.pid,
        comm: totals.comm,
        cgroup: totals.cgroup,
        uid,
        thread: None,
        reason: WaitReason::Other,
        user_end: UnwindEnd::NoUser,
        kernel: Box::new([]),
        user: Box::new([]),
        waker: None,
    }
}

fn note(builder: &mut Builder, owner: Owner, texts: &[String], weight: u64) {
    let owner = builder.owner(owner);
    let frames: Vec<u32> = texts.iter().map(|text| builder.frame(text, Origin::Note)).collect();
    builder.add(owner, &frames, 0, weight);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::lost::Lost;
    use crate::aggregate::stacks::Tally;
    use crate::aggregate::threads::Threads;
    use crate::event::Comm;
    use crate::profile::{Profile, folded_text, name_stacks_and, plain_owner};
    use crate::symbolize::Space;
    use crate::units::{CgroupId, Nanos};
    use agent_common::WAIT_REASONS;
    use proptest::prelude::*;

    fn key(kind: SampleKind, tid: u32, reason: WaitReason, user: u64) -> StackKey {
        StackKey {
            kind,
            pid: Pid(1),
            comm: Comm(*b"app\0\0\0\0\0\0\0\0\0\0\0\0\0"),
            cgroup: CgroupId(0),
            uid: Uid(0),
            thread: (kind != SampleKind::Cpu).then_some(Tid(tid)),
            reason,
            user_end: UnwindEnd::Entry,
            kernel: Box::new([]),
            user: Box::new([user]),
            waker: None,
        }
    }

    fn thread(threads: &mut Threads, tid: u32, run: u64, runq: u64, blocked: &[(WaitReason, u64)]) {
        let mut times = [Nanos(0); WAIT_REASONS];
        for (reason, time) in blocked {
            times[*reason as usize] = Nanos(*time);
        }
        let totals = ThreadTotals {
            comm: Comm(*b"app\0\0\0\0\0\0\0\0\0\0\0\0\0"),
            cgroup: CgroupId(0),
            run: Nanos(run),
            runq: Nanos(runq),
            blocked: times,
            switches: 1,
        };
        threads.insert(ThreadId { pid: Pid(1), tid: Tid(tid), started: Nanos(0) }, totals);
    }

    fn profile(counts: &StackCounts, kind: ProfileKind, idle: Idle) -> Profile {
        let mut names = Names::default();
        for (address, name) in [(0xa000, "work"), (0xb000, "lock"), (0xc000, "accept")] {
            names.insert(Space::User(Pid(1)), address, [name.to_owned()]);
        }
        name_stacks_and(counts, kind, &names, &Lost::default(), idle, |_| true, plain_owner)
    }

    fn server() -> StackCounts {
        let mut counts = StackCounts::default();
        thread(&mut counts.threads, 1, 600, 100, &[(WaitReason::Lock, 200), (WaitReason::Page, 100)]);
        thread(&mut counts.threads, 2, 0, 0, &[(WaitReason::Poll, 1000)]);
        for (key, samples, weight) in [
            (key(SampleKind::Cpu, 1, WaitReason::Other, 0xa000), 5, 500),
            (key(SampleKind::OffCpu, 1, WaitReason::Lock, 0xb000), 2, 90),
            (key(SampleKind::OffCpu, 1, WaitReason::Lock, 0xa000), 1, 30),
            (key(SampleKind::OffCpu, 2, WaitReason::Poll, 0xc000), 1, 1000),
        ] {
            counts.add(key, Tally { samples, weight });
        }
        counts
    }

    #[test]
    fn the_wall_graph_holds_all_the_time_there_was_and_what_was_not_sampled_stands_apart() {
        let text = folded_text(&profile(&server(), ProfileKind::Wall, Idle::Folded));
        let expected = "app;[idle] 1000\napp;[not sampled];[blocked: page] 100\napp;[not sampled];[runnable] 100\n\
                        app;lock;[blocked: lock] 150\napp;work 600\napp;work;[blocked: lock] 50\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn idle_threads_are_shown_when_they_are_asked_for() {
        let text = folded_text(&profile(&server(), ProfileKind::Offcpu, Idle::Shown));
        assert!(text.contains("app;accept;[blocked: poll] 1000\n"), "{text}");
        assert!(!text.contains("[idle]"), "{text}");
    }

    #[test]
    fn without_totals_samples_stand_for_themselves() {
        let counts = StackCounts { threads: Threads::new(), ..server() };
        let text = folded_text(&profile(&counts, ProfileKind::Offcpu, Idle::Folded));
        assert!(text.contains("app;lock;[blocked: lock] 90\n"), "{text}");
    }

    proptest! {
        #[test]
        fn scaled_samples_sum_to_the_total_to_the_nanosecond(
            total in 1_u64..u64::MAX / 2,
            weights in prop::collection::vec(0_u64..1 << 40, 1..40),
        ) {
            let mut counts = StackCounts::default();
            thread(&mut counts.threads, 1, 0, 0, &[(WaitReason::Io, total)]);
            for (user, weight) in (1..).zip(&weights) {
                counts.add(key(SampleKind::OffCpu, 1, WaitReason::Io, user << 16), Tally { samples: 1, weight: *weight });
            }
            prop_assert_eq!(profile(&counts, ProfileKind::Offcpu, Idle::Folded).total(), total);
        }
    }
}
