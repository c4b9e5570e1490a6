//! What threads wait for: every switch is stamped, and the stack of a wait is taken by the thread itself once it runs.
//!
//! A wait as long as the period is always sampled, with its exact length; a shorter one with the chance of its share of
//! the period, and then stands for a whole one. So what is sampled adds up to what was waited, whatever the lengths and
//! rhythms, and no state is needed.

use agent_common::{
    LossReason, RecordHeader, RecordKind, SampleKind, SchedControl, ThreadRow, ThreadState, ThreadTimes, WaitReason,
};
use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_task_btf, bpf_get_prandom_u32,
};
use aya_ebpf::macros::{btf_tracepoint, kprobe, map};
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::{BtfTracePointContext, ProbeContext};
use core::ffi::c_void;

use crate::emit::{self, From, What};
use crate::maps::{SAMPLES, WATCH_SCHED, lost, watched};
use crate::offsets::{OFF_TASK_FLAGS, OFF_TASK_PID, OFF_TASK_RUN_DELAY, OFF_TASK_TGID};
use crate::task;
use crate::threads::{PREEMPTED, Task, begin, control, settle, share_of_queue, tell, write_fence};
use crate::wait::{known, reason};

const TASK_DEAD: u64 = 0x80;
const PF_KTHREAD: u32 = 0x0020_0000;

/// The thread that was switched in on each CPU and whose wait shall be sampled; 0 for none. It spares the look at every
/// other switch.
#[map]
static SWITCHED_IN: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);

// tp_btf sched_switch(bool preempt, struct task_struct *prev, struct task_struct *next, unsigned int prev_state), since
// 5.18 with four arguments
#[btf_tracepoint(function = "sched_switch")]
fn sched_switch(ctx: BtfTracePointContext) -> i32 {
    let Some(control) = control() else { return 0 };
    let prev = Task(ctx.arg(1));
    let next = Task(ctx.arg(2));
    // The clock is dear: it is read once, and only when one of the two is followed.
    let mut now = 0;
    if let Some(times) = prev.times(control.epoch) {
        now = task::now();
        times.seq += 1;
        write_fence();
        settle(times, prev);
        times.run_ns += now.saturating_sub(times.since_ns);
        times.since_ns = now;
        times.charged_ns = now;
        times.sample_ns = 0;
        times.switches += 1;
        let preempt: u64 = ctx.arg(0);
        let state: u64 = ctx.arg::<u64>(3) & 0xffff_ffff;
        if preempt & 0xff != 0 || state == 0 {
            times.state = ThreadState::Runnable as u16;
            times.reason = PREEMPTED;
        } else if state & TASK_DEAD != 0 {
            times.state = ThreadState::Ended as u16;
            last_row(times, prev, now);
        } else {
            times.state = ThreadState::Blocked as u16;
            times.reason = reason(prev, state) as u16;
        }
        write_fence();
        times.seq += 1;
    }
    if let Some(times) = next.times(control.epoch) {
        if now == 0 {
            now = task::now();
        }
        times.seq += 1;
        write_fence();
        times.off_ns += now.saturating_sub(times.since_ns);
        let uncharged = now.saturating_sub(times.charged_ns);
        times.since_ns = now;
        times.state = ThreadState::Running as u16;
        times.sample_ns = if chosen(uncharged, control.period_ns) { uncharged.max(1) } else { 0 };
        if (times.sample_ns != 0 || times.pair != 0)
            && let Some(slot) = SWITCHED_IN.get_ptr_mut(0)
        {
            // SAFETY: a per-CPU value, and no other program writes it while interrupts are off.
            unsafe { *slot = next.get(&OFF_TASK_PID) };
        }
        write_fence();
        times.seq += 1;
    }
    0
}

// tp_btf sched_process_fork(struct task_struct *parent, struct task_struct *child), since 5.5. It runs before the child
// does and holds no lock of the scheduler, so that room for its totals can be made.
#[btf_tracepoint(function = "sched_process_fork")]
fn sched_fork(ctx: BtfTracePointContext) -> i32 {
    let child = Task(ctx.arg(1));
    let Some(control) = control() else { return 0 };
    if !follow(child) {
        return 0;
    }
    let Some(times) = child.times_made() else {
        lost(LossReason::ThreadTableFull);
        return 0;
    };
    begin(times, child, control.epoch, task::now(), ThreadState::Runnable, PREEMPTED);
    0
}

/// Whether `task` is of a process that is watched. Threads of the kernel are not: they wait for work, all of them.
#[inline(always)]
pub fn follow(task: Task) -> bool {
    task.get::<u32>(&OFF_TASK_FLAGS) & PF_KTHREAD == 0 && watched(task.get(&OFF_TASK_TGID), WATCH_SCHED)
}

/// Whether a wait of this length is sampled.
#[inline(always)]
pub fn chosen(length: u64, period: u64) -> bool {
    // SAFETY: takes no pointer.
    period != 0 && (length >= period || (u64::from(unsafe { bpf_get_prandom_u32() }) * (period >> 8)) >> 24 < length)
}

// tp_btf sched_exit_tp(bool is_switch), since 6.18: the end of a switch, in the thread that was switched in
#[btf_tracepoint(function = "sched_exit_tp")]
fn sched_exit(ctx: BtfTracePointContext) -> i32 {
    switched_in(ctx.as_ptr());
    0
}

// kprobe finish_task_switch, whatever the compiler called it: the same place where there is no sched_exit_tp
#[kprobe]
fn sched_finish(ctx: ProbeContext) -> u32 {
    switched_in(ctx.as_ptr());
    0
}

// tp_btf sys_exit(struct pt_regs *regs, long ret): where there are no kprobes either, the thread's next return from a call
#[btf_tracepoint(function = "sys_exit")]
fn sched_sys_exit(ctx: BtfTracePointContext) -> i32 {
    let Some(control) = control() else { return 0 };
    sample(ctx.as_ptr(), control);
    0
}

#[inline(always)]
fn switched_in(ctx: *mut c_void) {
    let Some(slot) = SWITCHED_IN.get_ptr_mut(0) else { return };
    // SAFETY: a per-CPU value, and switches of one CPU come one after the other.
    let slot = unsafe { &mut *slot };
    if *slot == 0 || *slot != task::pid_tgid() as u32 {
        return;
    }
    *slot = 0;
    if let Some(control) = control() {
        sample(ctx, control);
    }
}

/// Takes the stack of the current thread if its last wait is to be sampled, or if the one who woke it told its own.
#[inline(always)]
fn sample(ctx: *mut c_void, control: &SchedControl) {
    // SAFETY: takes no pointer and returns a trusted one.
    let current = Task(unsafe { bpf_get_current_task_btf() }.cast());
    let Some(times) = current.times(control.epoch) else { return };
    let (wait, pair) = (times.sample_ns, times.pair);
    if wait == 0 && pair == 0 {
        return;
    }
    let queued = share_of_queue(times, current.get(&OFF_TASK_RUN_DELAY)).min(wait);
    (times.sample_ns, times.pair) = (0, 0);
    // A point within the wait says which part of it stands for the whole.
    // SAFETY: takes no pointer.
    let point = (u64::from(unsafe { bpf_get_prandom_u32() }) * (wait >> 8)) >> 24;
    let kind = if point < queued { SampleKind::RunQueue } else { SampleKind::OffCpu };
    // Of the waker alone: the stack is wanted, and stands for no time.
    let weight = if wait == 0 { 0 } else { wait.max(control.period_ns) };
    let what = What { kind, weight, reason: known(u32::from(times.reason)), other_tid: 0, pair };
    emit::stack(ctx, From::Tracepoint, &what);
}

// tp_btf sched_waking(struct task_struct *p), since 5.5: in the one who wakes, be it an interrupt
#[btf_tracepoint(function = "sched_waking")]
fn sched_waking(ctx: BtfTracePointContext) -> i32 {
    let Some(control) = control() else { return 0 };
    let one_in = control.wake_one_in;
    // SAFETY: takes no pointer.
    let chance = unsafe { bpf_get_prandom_u32() };
    if one_in == 0 || (u64::from(chance) * u64::from(one_in)) >> 32 != 0 {
        return 0;
    }
    let sleeper = Task(ctx.arg(0));
    let Some(times) = sleeper.times(control.epoch) else { return 0 };
    if times.state != ThreadState::Blocked as u16 {
        return 0; // It had not gone to sleep yet.
    }
    let pair = chance | 1;
    times.pair = pair;
    let other_tid = sleeper.get(&OFF_TASK_PID);
    let what = What { kind: SampleKind::Wakeup, weight: u64::from(one_in), reason: WaitReason::Other, other_tid, pair };
    emit::stack(ctx.as_ptr(), From::Waking, &what);
    0
}

/// The record of the last totals of a thread that ends.
#[repr(C)]
struct LastRow {
    header: RecordHeader,
    row: ThreadRow,
}

/// Sends the last totals of the current thread.
#[inline(always)]
fn last_row(times: &mut ThreadTimes, task: Task, now: u64) {
    let Some(mut entry) = SAMPLES.reserve::<LastRow>(0) else {
        lost(LossReason::RingFull);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: room for a record, all of which is written before it is submitted.
    let record = unsafe { &mut *record };
    record.header = RecordHeader {
        len: size_of::<LastRow>() as u32,
        kind: RecordKind::Thread as u16,
        cpu: task::cpu(),
        time_ns: now,
    };
    let pid_tgid = task::pid_tgid();
    record.row.pid = (pid_tgid >> 32) as u32;
    record.row.tid = pid_tgid as u32;
    record.row.reserved = 0;
    // SAFETY: takes no pointer.
    record.row.cgroup = unsafe { bpf_get_current_cgroup_id() };
    // SAFETY: the name is as long as it says.
    unsafe { bpf_get_current_comm(record.row.comm.as_mut_ptr().cast(), record.row.comm.len() as u32) };
    tell(times, task, now, &mut record.row);
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
}
