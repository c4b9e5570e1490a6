//! Folded stacks: `comm;outermost;…;innermost COUNT`, kernel frames marked `_[k]`, sorted, so that the same profile is
//! the same bytes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::aggregate::lost::Lost;
use crate::aggregate::stacks::{StackCounts, StackKey};
use crate::symbolize::names::clean;
use crate::symbolize::resolver::frames;
use crate::symbolize::{Names, Space};
use crate::units::Pid;

/// Stacks by their frames, outermost first, the thread's name at the root.
pub type Folded = BTreeMap<Vec<String>, u64>;

/// Names the stacks of `counts`, of one process or of all. What was lost stands beside them as a frame of its own.
pub fn fold(counts: &StackCounts, names: &Names, pid: Option<Pid>, lost: &Lost) -> Folded {
    let mut folded = Folded::new();
    for (key, count) in &counts.counts {
        if pid.is_none_or(|pid| pid == key.pid) {
            *folded.entry(line(key, names)).or_insert(0) += count;
        }
    }
    for (reason, count) in
        [("ring_full", lost.ring_full), ("scratch_missing", lost.scratch_missing), ("table_full", counts.overflow)]
    {
        if count > 0 {
            folded.insert(vec!["[lost]".to_owned(), format!("[lost: {reason}]")], count);
        }
    }
    folded
}

fn line(key: &StackKey, names: &Names) -> Vec<String> {
    let user = Space::User(key.pid);
    let mut line = vec![clean(&key.comm.to_text())];
    let user: Vec<(Space, u64)> = frames(&key.user, user).collect();
    for (space, address) in user.into_iter().rev() {
        match names.get(space, address) {
            Some(frames) => line.extend(frames.iter().cloned()),
            None => line.push(format!("unnamed+{address:#x}")),
        }
    }
    let kernel: Vec<(Space, u64)> = frames(&key.kernel, Space::Kernel).collect();
    for (space, address) in kernel.into_iter().rev() {
        match names.get(space, address) {
            Some(frames) => line.extend(frames.iter().map(|f| format!("{f}_[k]"))),
            None => line.push("vmlinux+0x?_[k]".to_owned()),
        }
    }
    line
}

/// The lines as text.
pub fn folded_text(folded: &Folded) -> String {
    let mut text = String::new();
    for (stack, count) in folded {
        let mut line = stack.join(";");
        // Two numbers at the end are read as a comparison of two profiles: the name's own is tied to its word.
        if let Some((before, last)) = line.rsplit_once(' ')
            && last.parse::<f64>().is_ok()
        {
            line = format!("{before}_{last}");
        }
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "{line} {count}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Comm;
    use crate::units::Nanos;

    #[test]
    fn kernel_frames_stand_below_the_user_frames_that_called_them() {
        let key = StackKey {
            pid: Pid(1),
            comm: Comm(*b"app\0\0\0\0\0\0\0\0\0\0\0\0\0"),
            kernel: vec![0xf001, 0xf003],
            user: vec![0xa001, 0xa003, 0],
        };
        let mut counts = StackCounts::starting(Nanos(0));
        counts.counts.insert(key, 3);
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
        let text = folded_text(&fold(&counts, &names, None, &lost));
        assert_eq!(text, "[lost];[lost: ring_full] 2\napp;app::main;write;do_syscall_64_[k];copy_page_[k] 3\n");
        assert!(fold(&counts, &names, Some(Pid(2)), &Lost::default()).is_empty());
    }
}
