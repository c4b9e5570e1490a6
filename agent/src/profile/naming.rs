//! Counted stacks and names in, profiles out: one kind at a time. Losses become frames of their own, so that they are
//! seen where one looks.

use std::sync::Arc;

use agent_common::{LossReason, SampleKind};

use super::model::{Builder, Origin, Owner, Profile};
use super::path::Path;
use super::times::{Idle, add_times};
use crate::aggregate::lost::Lost;
use crate::aggregate::stacks::{StackCounts, StackKey};
use crate::symbolize::Names;
use crate::symbolize::names::clean;
use crate::units::ProfileKind;

/// The samples that a profile of `kind` is made of.
pub fn samples_of(kind: ProfileKind) -> &'static [SampleKind] {
    match kind {
        ProfileKind::Cpu => &[SampleKind::Cpu],
        ProfileKind::Offcpu => &[SampleKind::OffCpu],
        ProfileKind::Runq => &[SampleKind::RunQueue],
        ProfileKind::Wakeup => &[SampleKind::Wakeup],
        ProfileKind::Sock => &[SampleKind::Socket],
        ProfileKind::Wall => &[SampleKind::Cpu, SampleKind::OffCpu, SampleKind::RunQueue],
    }
}

/// Names the stacks of `counts` that `keep` says yes to. `label` tells whose a stack is. Threads that only wait for
/// something to happen are folded away.
pub fn name_stacks(
    counts: &StackCounts,
    kind: ProfileKind,
    names: &Names,
    lost: &Lost,
    keep: impl Fn(&StackKey) -> bool,
    label: impl Fn(&StackKey) -> Owner,
) -> Profile {
    name_stacks_and(counts, kind, names, lost, Idle::Folded, keep, label)
}

/// As [`name_stacks`], with a choice of what becomes of idle threads. The one place that makes a profile of any kind.
pub fn name_stacks_and(
    counts: &StackCounts,
    kind: ProfileKind,
    names: &Names,
    lost: &Lost,
    idle: Idle,
    keep: impl Fn(&StackKey) -> bool,
    label: impl Fn(&StackKey) -> Owner,
) -> Profile {
    let mut builder = Builder::default();
    match kind {
        ProfileKind::Offcpu | ProfileKind::Runq | ProfileKind::Wall => {
            add_times(&mut builder, counts, kind, names, idle, &keep, &label);
        }
        ProfileKind::Cpu | ProfileKind::Wakeup | ProfileKind::Sock => {
            let wanted = samples_of(kind);
            let mut path = Path::new(names);
            for (key, tally) in counts.counts.iter().filter(|(key, _)| wanted.contains(&key.kind) && keep(key)) {
                let owner = builder.owner(label(key));
                path.begin();
                path.stacks(&mut builder, key);
                if kind == ProfileKind::Wakeup {
                    path.waker(&mut builder, key);
                }
                builder.add(owner, path.frames(), tally.samples, tally.weight);
            }
        }
    }
    if kind == ProfileKind::Cpu {
        add_losses(&mut builder, counts, lost);
    }
    builder.finish(kind, counts.start, counts.end, *lost)
}

/// An owner that is known by what the sample says alone.
pub fn plain_owner(key: &StackKey) -> Owner {
    let comm = Arc::from(clean(&key.comm.to_text()));
    Owner { pid: Some(key.pid), uid: Some(key.uid.0), comm, cgroup: None, container: None }
}

fn add_losses(builder: &mut Builder, counts: &StackCounts, lost: &Lost) {
    let of_kernel = [LossReason::RingFull, LossReason::ScratchMissing].map(|reason| (reason.name(), lost[reason]));
    let reasons = of_kernel.into_iter().chain([("table_full", counts.overflow)]);
    for (reason, count) in reasons.filter(|(_, count)| *count > 0) {
        let owner = builder.owner(Owner { pid: None, uid: None, comm: "[lost]".into(), cgroup: None, container: None });
        let frame = builder.frame(&format!("[lost: {reason}]"), Origin::Note);
        builder.add(owner, &[frame], count, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::stacks::Tally;
    use crate::event::Comm;
    use crate::profile::folded_text;
    use crate::symbolize::Space;
    use crate::units::{CgroupId, Nanos, Pid, Uid};
    use agent_common::{UnwindEnd, WaitReason};

    fn key(kind: SampleKind, kernel: &[u64], user: &[u64]) -> StackKey {
        StackKey {
            kind,
            pid: Pid(1),
            comm: Comm(*b"app\0\0\0\0\0\0\0\0\0\0\0\0\0"),
            cgroup: CgroupId(0),
            uid: Uid(0),
            reason: WaitReason::Other,
            user_end: UnwindEnd::Entry,
            kernel: kernel.into(),
            user: user.into(),
            thread: None,
            waker: None,
        }
    }

    #[test]
    fn kernel_frames_stand_below_the_user_frames_that_called_them() {
        let key = key(SampleKind::Cpu, &[0xf001, 0xf003], &[0xa001, 0xa003, 0]);
        let mut counts = StackCounts::starting(Nanos(0));
        counts.counts.insert(key, Tally { samples: 3, weight: 30 });
        let mut names = Names::default();
        for (space, address, name) in [
            (Space::Kernel, 0xf001, "copy_page"),
            (Space::Kernel, 0xf002, "do_syscall_64"),
            (Space::User(Pid(1)), 0xa001, "write"),
            (Space::User(Pid(1)), 0xa002, "app::main"),
        ] {
            names.insert(space, address, [name.to_owned()]);
        }
        let lost = Lost::of(LossReason::RingFull, 2);
        let profile = name_stacks(&counts, ProfileKind::Cpu, &names, &lost, |_| true, plain_owner);
        let text = folded_text(&profile);
        assert_eq!(text, "[lost];[lost: ring_full] 2\napp;app::main;write;do_syscall_64_[k];copy_page_[k] 3\n");
        let none = name_stacks(&counts, ProfileKind::Cpu, &names, &Lost::default(), |_| false, plain_owner);
        assert!(none.is_empty());
    }

    #[test]
    fn a_probe_leaves_no_frame_of_its_own_in_the_stacks_that_it_takes() {
        let names = ["__kfree_skb", "tcp_recvmsg", "bpf_trace_run1", "bpf_prog_6deef7357e7b4530_recv"];
        let mut table = Names::default();
        let mut kernel = Vec::new();
        for (at, name) in names.iter().rev().enumerate() {
            let address = 0xf000 + at as u64 * 16;
            // A caller is looked up one byte before where it goes on.
            table.insert(Space::Kernel, if at == 0 { address } else { address - 1 }, [(*name).to_owned()]);
            kernel.push(address);
        }
        let key = key(SampleKind::Socket, &kernel, &[]);
        let mut counts = StackCounts::starting(Nanos(0));
        counts.counts.insert(key, Tally { samples: 3, weight: 3 });
        let profile = name_stacks(&counts, ProfileKind::Sock, &table, &Lost::default(), |_| true, plain_owner);
        assert_eq!(folded_text(&profile), "app;__kfree_skb_[k];tcp_recvmsg_[k] 3\n");
    }
}
