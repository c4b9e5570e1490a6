//! The cgroup (version 2) of a thread that need not be the current one, and those above it.

use core::ffi::c_void;

use agent_common::WATCHED_CGROUPS;

use crate::kernel_read::{at, field};
use crate::maps::CGROUPS;
use crate::offsets::{
    OFF_CGROUP_ANCESTORS, OFF_CGROUP_LEVEL, OFF_CGROUP_NODE, OFF_CSS_DEFAULT, OFF_NODE_ID, OFF_TASK_CGROUPS, of,
    present,
};
use crate::threads::Task;

/// Id of the cgroup of a thread; 0 where it cannot be told.
#[inline(always)]
pub fn id(task: Task) -> u64 {
    id_of(group(task))
}

/// Whether a thread is in a cgroup that is watched for `bit`, or in one below it.
#[inline(always)]
pub fn is_below_watched(task: Task, bit: u32) -> bool {
    if !present(&OFF_CGROUP_ANCESTORS) || !present(&OFF_CGROUP_LEVEL) {
        return false;
    }
    let group = group(task);
    let own = field::<u32>(group as *const c_void, &OFF_CGROUP_LEVEL).unwrap_or(0);
    for index in 0..WATCHED_CGROUPS as u32 {
        let Some(watched) = CGROUPS.get(index) else { return false };
        if watched.id == 0 {
            return false;
        }
        if watched.bits & bit == 0 || watched.level > own {
            continue;
        }
        // The ancestors of a cgroup, itself the last.
        let place = of(&OFF_CGROUP_ANCESTORS) + watched.level as usize * 8;
        if id_of(at::<u64>(group as *const c_void, place).unwrap_or(0)) == watched.id {
            return true;
        }
    }
    false
}

#[inline(always)]
fn group(task: Task) -> u64 {
    let set: u64 = task.get(&OFF_TASK_CGROUPS);
    field::<u64>(set as *const c_void, &OFF_CSS_DEFAULT).unwrap_or(0)
}

#[inline(always)]
fn id_of(group: u64) -> u64 {
    let node = field::<u64>(group as *const c_void, &OFF_CGROUP_NODE).unwrap_or(0);
    field::<u64>(node as *const c_void, &OFF_NODE_ID).unwrap_or(0)
}
