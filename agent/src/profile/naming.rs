//! Counted stacks and names in, profiles out: one kind at a time. Losses become frames of their own, so that they are
//! seen where one looks.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use agent_common::SampleKind;
use foldhash::fast::RandomState;

use super::model::{Builder, Frame, Origin, Owner, Profile};
use crate::aggregate::lost::Lost;
use crate::aggregate::stacks::{StackCounts, StackKey};
use crate::symbolize::names::clean;
use crate::symbolize::resolver::place;
use crate::symbolize::{Names, Space};
use crate::units::ProfileKind;

/// The samples that a profile of `kind` is made of; empty for those that are made of other profiles.
pub fn samples_of(kind: ProfileKind) -> &'static [SampleKind] {
    match kind {
        ProfileKind::Cpu => &[SampleKind::Cpu],
        ProfileKind::Offcpu => &[SampleKind::OffCpu],
        ProfileKind::Runq => &[SampleKind::RunQueue],
        ProfileKind::Wakeup => &[SampleKind::Wakeup],
        ProfileKind::Sock => &[SampleKind::Socket],
        ProfileKind::Wall => &[],
    }
}

/// Names the stacks of `counts` that `keep` says yes to. `label` tells whose a stack is.
pub fn name_stacks(
    counts: &StackCounts,
    kind: ProfileKind,
    names: &Names,
    lost: &Lost,
    keep: impl Fn(&StackKey) -> bool,
    label: impl Fn(&StackKey) -> Owner,
) -> Profile {
    let (mut builder, mut known, mut path) = (Builder::default(), Known::default(), Vec::new());
    let wanted = samples_of(kind);
    for (key, tally) in counts.counts.iter().filter(|(key, _)| wanted.contains(&key.kind) && keep(key)) {
        let owner = builder.owner(label(key));
        path.clear();
        append_path(&mut path, &mut known, &mut builder, key, names);
        builder.add(owner, &path, tally.samples, tally.weight);
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

/// Frames of the addresses that were met before: looking a name up costs more than everything else here.
#[derive(Default)]
struct Known {
    places: HashMap<(Space, u64), Range<u32>, RandomState>,
    frames: Vec<u32>,
}

impl Known {
    /// Appends the frames at an address, outermost first.
    fn append(&mut self, builder: &mut Builder, names: &Names, space: Space, address: u64, path: &mut Vec<u32>) {
        let place = self.places.entry((space, address)).or_insert_with(|| {
            let start = self.frames.len();
            add_frames(builder, names, space, address, &mut self.frames);
            index(start)..index(self.frames.len())
        });
        path.extend_from_slice(&self.frames[place.start as usize..place.end as usize]);
    }
}

fn index(at: usize) -> u32 {
    u32::try_from(at).expect("fewer than 2^32 frames fit into memory")
}

fn add_frames(builder: &mut Builder, names: &Names, space: Space, address: u64, to: &mut Vec<u32>) {
    let origin = if space == Space::Kernel { Origin::Kernel } else { Origin::User };
    match names.get(space, address) {
        Some(found) => to.extend(found.iter().map(|name| builder.frame(Frame { name: Arc::clone(name), origin }))),
        None if origin == Origin::Kernel => to.push(builder.frame(Frame { name: "vmlinux+0x?".into(), origin })),
        None => to.push(builder.frame(Frame { name: format!("unnamed+{address:#x}").into(), origin })),
    }
}

/// The frames of a stack, outermost first: the user's, then those of the kernel that they called.
fn append_path(path: &mut Vec<u32>, known: &mut Known, builder: &mut Builder, key: &StackKey, names: &Names) {
    for (stack, space) in [(&key.user, Space::User(key.pid)), (&key.kernel, Space::Kernel)] {
        for (at, address) in stack.iter().enumerate().rev() {
            if let Some((space, address)) = place(at, *address, space) {
                known.append(builder, names, space, address, path);
            }
        }
    }
}

fn add_losses(builder: &mut Builder, counts: &StackCounts, lost: &Lost) {
    let reasons =
        [("ring_full", lost.ring_full), ("scratch_missing", lost.scratch_missing), ("table_full", counts.overflow)];
    for (reason, count) in reasons.into_iter().filter(|(_, count)| *count > 0) {
        let owner = builder.owner(Owner { pid: None, uid: None, comm: "[lost]".into(), cgroup: None, container: None });
        let frame = builder.frame(Frame { name: format!("[lost: {reason}]").into(), origin: Origin::Note });
        builder.add(owner, &[frame], count, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::stacks::Tally;
    use crate::event::Comm;
    use crate::profile::folded_text;
    use crate::units::{CgroupId, Nanos, Pid, Uid};
    use agent_common::{UnwindEnd, WaitReason};

    #[test]
    fn kernel_frames_stand_below_the_user_frames_that_called_them() {
        let key = StackKey {
            kind: SampleKind::Cpu,
            pid: Pid(1),
            comm: Comm(*b"app\0\0\0\0\0\0\0\0\0\0\0\0\0"),
            cgroup: CgroupId(0),
            uid: Uid(0),
            reason: WaitReason::Other,
            user_end: UnwindEnd::Entry,
            kernel: Box::new([0xf001, 0xf003]),
            user: Box::new([0xa001, 0xa003, 0]),
        };
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
        let lost = Lost { ring_full: 2, ..Lost::default() };
        let profile = name_stacks(&counts, ProfileKind::Cpu, &names, &lost, |_| true, plain_owner);
        let text = folded_text(&profile);
        assert_eq!(text, "[lost];[lost: ring_full] 2\napp;app::main;write;do_syscall_64_[k];copy_page_[k] 3\n");
        let none = name_stacks(&counts, ProfileKind::Cpu, &names, &Lost::default(), |_| false, plain_owner);
        assert!(none.is_empty());
    }
}
