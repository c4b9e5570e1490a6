//! System calls that have not returned: the kernel's own word on what each thread is blocked in, so that calls which
//! began before the probes were attached are seen too.

use std::collections::HashMap;

use procfs::process::{Process, Syscall, all_processes};

use super::Scope;
use crate::units::Pid;

/// Calls in flight by (process, call number).
pub fn in_flight(scope: &Scope) -> HashMap<(Pid, u32), u64> {
    let mut counts = HashMap::new();
    match scope {
        // Which processes belong to a cgroup changes all the time; a reader picks his own out of all.
        Scope::Host | Scope::Cgroups(_) => {
            for process in all_processes().into_iter().flatten().flatten() {
                count(&process, &mut counts);
            }
        }
        Scope::Pids(pids) => {
            for pid in pids {
                if let Some(process) = i32::try_from(pid.0).ok().and_then(|pid| Process::new(pid).ok()) {
                    count(&process, &mut counts);
                }
            }
        }
    }
    counts
}

fn count(process: &Process, counts: &mut HashMap<(Pid, u32), u64>) {
    let Ok(pid) = u32::try_from(process.pid) else { return };
    // A thread that ends while it is looked at has no call in flight.
    for task in process.tasks().into_iter().flatten().flatten() {
        if let Ok(Syscall::Blocked { syscall_number, .. }) = task.syscall()
            && let Ok(nr) = u32::try_from(syscall_number)
        {
            *counts.entry((Pid(pid), nr)).or_insert(0) += 1;
        }
    }
}
