//! Who works through `io_uring`: what a process asks for there passes the system call tracepoints by, so that its counts
//! are too small, and somebody has to say so. Looks at descriptors, never at what goes through them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::units::Pid;

const RING: &str = "anon_inode:[io_uring]";

/// Those of `pids` that have a ring open now.
pub fn users(proc: &Path, pids: impl IntoIterator<Item = Pid>) -> BTreeSet<Pid> {
    pids.into_iter().filter(|pid| has_ring(&proc.join(pid.0.to_string()).join("fd"))).collect()
}

/// All processes that have one, as far as they may be looked at.
pub fn all_users(proc: &Path) -> BTreeSet<Pid> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid));
    users(proc, pids.collect::<Vec<_>>())
}

fn has_ring(descriptors: &Path) -> bool {
    let entries = fs::read_dir(descriptors).into_iter().flatten().flatten();
    entries.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|target| target == Path::new(RING))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_a_ring_among_its_descriptors_is_named_and_others_are_not() {
        let proc = tempfile::tempdir().unwrap();
        for (pid, targets) in [("7", &["/dev/null", RING][..]), ("8", &["/dev/null", "anon_inode:[eventpoll]"])] {
            let fd = proc.path().join(pid).join("fd");
            fs::create_dir_all(&fd).unwrap();
            for (number, target) in targets.iter().enumerate() {
                std::os::unix::fs::symlink(target, fd.join(number.to_string())).unwrap();
            }
        }
        fs::create_dir(proc.path().join("sys")).unwrap();
        assert_eq!(all_users(proc.path()), BTreeSet::from([Pid(7)]));
        assert_eq!(users(proc.path(), [Pid(8), Pid(9)]), BTreeSet::new());
    }
}
