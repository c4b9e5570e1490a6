//! The census of followed threads: one row each, also of those that have not been switched for long. It begins to follow
//! threads that were there before, and gives waits that go on the same chance of being sampled as those that have ended.

use core::ffi::c_void;

use agent_common::{CensusRow, LossReason, ThreadState, ThreadTimes};
use aya_ebpf::bindings::{pt_regs, seq_file};
use aya_ebpf::helpers::generated::{bpf_get_task_stack, bpf_seq_write, bpf_task_pt_regs};
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;

use crate::cgroup;
use crate::maps::lost;
use crate::offsets::{OFF_TASK_COMM, OFF_TASK_ON_CPU, OFF_TASK_PID, OFF_TASK_STATE, OFF_TASK_TGID};
use crate::probes::sched::{chosen, follow};
use crate::threads::{PREEMPTED, Task, begin, control, runs_since, tell, write_fence};
use crate::wait::reason;

/// Kernel frames of a wait that goes on.
const FRAMES: usize = 64;
/// How often a thread that is being switched at this moment is looked at again.
const TRIES: usize = 4;

/// `struct bpf_iter__task`: an interface of the kernel, the same since 5.8.
#[repr(C)]
struct IterTask {
    meta: *mut Meta,
    task: *mut c_void,
}

/// `struct bpf_iter_meta`, likewise.
#[repr(C)]
struct Meta {
    seq: *mut seq_file,
}

/// A row under construction; only the census writes it, one at a time.
#[repr(C)]
struct Scratch {
    row: CensusRow,
    /// Twice what is used: verifiers before 6.18 know a length that is at most [`FRAMES`] by its bits alone, and those allow
    /// nearly the double.
    frames: [u64; 2 * FRAMES],
    times: ThreadTimes,
}

#[map]
static CENSUS: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

// iter/task, since 5.8
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
extern "C" fn sched_census(ctx: *mut IterTask) -> i32 {
    // SAFETY: the kernel passes a valid context; the task is null at the end of the walk.
    let task = Task(unsafe { (*ctx).task });
    if task.0.is_null() {
        return 0;
    }
    let Some(control) = control() else { return 0 };
    if !follow(task) {
        return 0;
    }
    let Some(times) = task.times_made() else {
        lost(LossReason::ThreadTableFull);
        return 0;
    };
    let now = control.census_ns;
    if times.epoch != control.epoch {
        let (state, why) = state_of(task);
        begin(times, task, control.epoch, now, state, why);
    }
    let Some(scratch) = CENSUS.get_ptr_mut(0) else {
        lost(LossReason::ScratchMissing);
        return 0;
    };
    // SAFETY: a per-CPU value that only this program uses; it is not nested and does not migrate.
    let scratch = unsafe { &mut *scratch };
    let tid = task.get(&OFF_TASK_PID);
    let running = copy_whole(times, task, tid, &mut scratch.times);
    let Scratch { row, frames, times: copy } = scratch;
    row.row.pid = task.get(&OFF_TASK_TGID);
    row.row.tid = tid;
    row.row.comm = task.get(&OFF_TASK_COMM);
    row.row.cgroup = cgroup::id(task);
    row.row.reserved = 0;
    row.time_ns = tell(copy, task, now, running, &mut row.row);
    // SAFETY: a trusted pointer to a thread that has user registers.
    let regs = unsafe { bpf_task_pt_regs(task.0.cast()) } as *const pt_regs;
    // SAFETY: the helper returns a trusted pointer.
    unsafe { (row.ip, row.sp, row.bp) = ((*regs).rip, (*regs).rsp, (*regs).rbp) };
    // SAFETY: the same.
    unsafe { (row.bx, row.di) = ((*regs).rbx, (*regs).rdi) };
    row.weight_ns = 0;
    row.kernel_len = 0;
    row.told = u32::from(copy.charged_ns > copy.since_ns);
    let off_cpu = copy.state == ThreadState::Blocked as u16 || copy.state == ThreadState::Runnable as u16;
    let uncharged = now.saturating_sub(copy.charged_ns);
    if off_cpu && chosen(uncharged, control.period_ns) {
        row.weight_ns = uncharged.max(control.period_ns);
        // SAFETY: `frames` has room for as many bytes.
        let taken = unsafe { bpf_get_task_stack(task.0.cast(), frames.as_mut_ptr().cast(), (FRAMES * 8) as u32, 0) };
        if taken > 0 && taken <= (FRAMES * 8) as i64 {
            row.kernel_len = taken as u32 & !7;
        }
    }
    let len = size_of::<CensusRow>() + row.kernel_len as usize;
    if len > size_of::<CensusRow>() + FRAMES * 8 {
        return 0; // Cannot be; the verifier wants to read it.
    }
    // SAFETY: `seq` is valid while the iterator runs, and `len` bytes of the record are initialised: the frames follow
    // the row without a gap.
    let refused = unsafe { bpf_seq_write((*(*ctx).meta).seq, (&raw const *row).cast(), len as u32) };
    // A row that found the buffer full is asked for again.
    if refused == 0 && off_cpu && times.since_ns == row.row.since_ns {
        times.charged_ns = now;
    }
    0
}

/// A copy whose parts fit together, or the last that could be had, and since when the thread runs; 0 if it does not.
#[inline(always)]
fn copy_whole(times: &ThreadTimes, task: Task, tid: u32, copy: &mut ThreadTimes) -> u64 {
    let mut running = 0;
    for _ in 0..TRIES {
        // SAFETY: a valid reference; volatile, because another CPU may be writing it.
        let before = unsafe { (&raw const times.seq).read_volatile() };
        write_fence();
        *copy = *times;
        running = runs_since(task, tid, copy);
        write_fence();
        // SAFETY: as above.
        if before & 1 == 0 && unsafe { (&raw const times.seq).read_volatile() } == before {
            break;
        }
    }
    running
}

/// What a thread that was there before is doing.
#[inline(always)]
fn state_of(task: Task) -> (ThreadState, u16) {
    let state: u32 = task.get(&OFF_TASK_STATE);
    if task.get::<u32>(&OFF_TASK_ON_CPU) != 0 {
        (ThreadState::Running, 0)
    } else if state == 0 {
        (ThreadState::Runnable, PREEMPTED)
    } else {
        (ThreadState::Blocked, reason(task, u64::from(state)) as u16)
    }
}
