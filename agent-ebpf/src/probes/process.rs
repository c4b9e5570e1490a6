//! Births of processes and changes of program: whose mappings a process has, and whether it is watched, known before it
//! runs.

use core::ffi::c_void;

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use crate::kernel_read::field;
use crate::maps::{switched_on, watch_like};
use crate::offsets::OFF_TASK_TGID;
use crate::task;
use crate::unwind::SPACES;
use agent_common::WITH_OFFSPRING;

// tp_btf sched_process_fork(struct task_struct *parent, struct task_struct *child), since 5.5. Runs in the parent, before
// the child can run. Threads come by here too.
#[btf_tracepoint(function = "sched_process_fork")]
fn process_fork(ctx: BtfTracePointContext) -> i32 {
    let child: *const c_void = ctx.arg(1);
    let Some(child) = field::<u32>(child, &OFF_TASK_TGID) else { return 0 };
    let parent = task::tgid();
    if child == parent {
        return 0;
    }
    if switched_on(WITH_OFFSPRING) {
        watch_like(child, parent);
    }
    // SAFETY: a copy is made at once; an entry that is replaced meanwhile stays whole.
    let done = match unsafe { SPACES.get(parent) }.copied() {
        Some(space) => SPACES.insert(child, space, u64::from(BPF_ANY)),
        // Its number may have belonged to a process that was known.
        None => SPACES.remove(child),
    };
    // Without room or without an entry the child is a process that is not known: the agent hears of it all the same.
    let _known_or_not = done;
    0
}

// tp_btf sched_process_exec(struct task_struct *task, pid_t old_pid, struct linux_binprm *bprm), since 5.5. Runs when the
// new program is in place and has not run yet.
#[btf_tracepoint(function = "sched_process_exec")]
fn process_exec(_ctx: BtfTracePointContext) -> i32 {
    let _known_or_not = SPACES.remove(task::tgid());
    0
}
