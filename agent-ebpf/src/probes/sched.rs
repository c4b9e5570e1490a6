//! What threads wait for: every switch is stamped, and the stack of a wait is taken by the thread itself once it runs.
//!
//! A wait as long as the period is always sampled, with its exact length; a shorter one with the chance of its share of
//! the period, and then stands for a whole one. So what is sampled adds up to what was waited, whatever the lengths and
//! rhythms, and no state is needed.

use agent_common::{
    CpuSlot, LossReason, RecordHeader, RecordKind, SampleKind, SchedControl, ThreadRow, ThreadState, ThreadTimes,
    WATCH_SCHED, WaitReason,
};
use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_task_btf, bpf_get_prandom_u32,
};
use aya_ebpf::macros::{btf_tracepoint, kprobe, map};
use aya_ebpf::maps::Array;
use aya_ebpf::programs::{BtfTracePointContext, ProbeContext};
use core::ffi::c_void;

use crate::emit::{self, From, What};
use crate::maps::{SAMPLES, lost, switched_on, watched_or};
use crate::offsets::{
    OFF_TASK_FLAGS, OFF_TASK_LAST_ARRIVAL, OFF_TASK_ON_CPU, OFF_TASK_PID, OFF_TASK_RUN_DELAY, OFF_TASK_TGID,
};
use crate::threads::{PREEMPTED, Task, begin, came_in, control, share_of_queue, slot, tell, write_fence};
use crate::wait::{known, reason};
use crate::{cgroup, task};

const TASK_DEAD: u64 = 0x80;
const PF_KTHREAD: u32 = 0x0020_0000;

/// Slots of [`WOKEN`].
const WOKEN_SLOTS: u32 = 512;
/// Sleepers whose waker told its stack and who have not come in yet, slot by thread id: the thread in the lower half, what
/// ties the two stacks in the upper. Of two that share a slot the later one stays.
#[map]
static WOKEN: Array<u64> = Array::with_max_entries(WOKEN_SLOTS, 0);

/// How far the scheduler's clocks of two CPUs may lie apart, ns, beside a thousandth of what they measure.
const CLOCK_SLACK: u64 = 1 << 16;

// tp_btf sched_switch(bool preempt, struct task_struct *prev, struct task_struct *next, unsigned int prev_state), since
// 5.18 with four arguments
#[btf_tracepoint(function = "sched_switch")]
fn sched_switch(ctx: BtfTracePointContext) -> i32 {
    let prev = Task(ctx.arg(1));
    let next = Task(ctx.arg(2));
    // Loads that nothing waits for: by the time that they are used they have come, all at once and not one by one.
    let comes = Coming { tid: next.early(&OFF_TASK_PID), arrived: next.early(&OFF_TASK_LAST_ARRIVAL) };
    let Some(control) = control() else { return 0 };
    let Some(slot) = slot() else { return 0 };
    // The clock is dear: it is read once, and only when one of the two may be followed.
    let mut now = 0;
    if prev.has_storage()
        && let Some(times) = prev.times(control.epoch)
    {
        now = task::now();
        let preempt: u64 = ctx.arg(0);
        let state: u64 = ctx.arg::<u64>(3) & 0xffff_ffff;
        times.seq += 1;
        write_fence();
        // What the slot says is older when it was begun to be followed while it ran.
        came_in(times, prev, slot.since_ns);
        if times.clock_offset_ns != 0 {
            slot.clock_offset_ns = times.clock_offset_ns;
        }
        times.run_ns += now.saturating_sub(times.since_ns);
        times.since_ns = now;
        times.charged_ns = now;
        times.sample_ns = 0;
        times.switches += 1;
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
    // Where the whole host is followed a thread that is not is rare, and to find out would be a look at cold memory.
    if comes.tid != 0 && (switched_on(WATCH_SCHED) || next.has_storage()) {
        comes_in(slot, next, &comes, if now == 0 { task::now() } else { now }, control);
    }
    0
}

/// What is asked of the thread that comes.
struct Coming {
    tid: u32,
    /// When it last came, on the scheduler's clock.
    arrived: u64,
}

/// Notes who runs from `now` on, and draws whether the wait that is over is sampled. The wait is known only to the
/// thread's totals, which are cold: they are looked up only if the time since it last came in, which the scheduler has at
/// hand and which is longer, would be sampled with the same lot.
#[inline(always)]
fn comes_in(slot: &mut CpuSlot, next: Task, coming: &Coming, now: u64, control: &SchedControl) {
    let Coming { tid, arrived } = *coming;
    slot.since_ns = now;
    slot.tid = tid;
    let lot = draw(slot, control.period_ns);
    let away = now.wrapping_sub(arrived.wrapping_add(slot.clock_offset_ns));
    let away = away.saturating_add((away >> 10) + CLOCK_SLACK);
    let may_be = away > lot || slot.clock_offset_ns == 0 || arrived == 0;
    let pair = if control.wake_one_in == 0 { 0 } else { woken(tid) };
    if !may_be && pair == 0 {
        return;
    }
    let Some(times) = next.times(control.epoch) else { return };
    let uncharged = now.saturating_sub(times.charged_ns);
    if control.period_ns != 0 && lot < uncharged {
        times.sample_ns = uncharged;
    }
    if pair != 0 {
        times.pair = pair;
    }
    if times.sample_ns != 0 || times.pair != 0 {
        slot.wanted = tid;
    }
}

/// A lot below `period`: a wait that is longer is sampled.
#[inline(always)]
fn draw(slot: &mut CpuSlot, period: u64) -> u64 {
    let mut x = slot.random;
    if x == 0 {
        // SAFETY: takes no pointer.
        x = u64::from(unsafe { bpf_get_prandom_u32() }) << 1 | 1;
    }
    // Marsaglia's xorshift64: a helper would cost five times as much.
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    slot.random = x;
    ((x >> 32) * (period >> 8)) >> 24
}

/// What ties the stack of the one who woke `tid` to its own, if that was told; it is told once.
#[inline(always)]
fn woken(tid: u32) -> u32 {
    let Some(entry) = WOKEN.get_ptr_mut(tid % WOKEN_SLOTS) else { return 0 };
    // SAFETY: a value of the map. Who overwrites it at the same instant loses a pair, no more.
    let entry = unsafe { &mut *entry };
    if *entry as u32 != tid || *entry == 0 {
        return 0;
    }
    let pair = (*entry >> 32) as u32;
    *entry = 0;
    pair
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
    // The census walks over threads, of which none is the current one.
    let is_below = || cgroup::is_below_watched(task, WATCH_SCHED);
    task.get::<u32>(&OFF_TASK_FLAGS) & PF_KTHREAD == 0 && watched_or(task.get(&OFF_TASK_TGID), WATCH_SCHED, is_below)
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
    let Some(slot) = slot() else { return };
    if slot.wanted == 0 || slot.wanted != task::pid_tgid() as u32 {
        return;
    }
    slot.wanted = 0;
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
    // It runs, so that what its CPU noted is when it came in.
    let since = slot().map_or(0, |slot| slot.since_ns);
    let waited = since.saturating_sub(times.since_ns);
    let queued = share_of_queue(times, waited, current.get(&OFF_TASK_RUN_DELAY)).min(wait);
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
    if times.state != ThreadState::Blocked as u16 || sleeper.get::<u32>(&OFF_TASK_ON_CPU) != 0 {
        return 0; // It had not gone to sleep yet, or no longer sleeps.
    }
    let pair = chance | 1;
    let other_tid: u32 = sleeper.get(&OFF_TASK_PID);
    if let Some(entry) = WOKEN.get_ptr_mut(other_tid % WOKEN_SLOTS) {
        // SAFETY: a value of the map, written whole.
        unsafe { *entry = u64::from(pair) << 32 | u64::from(other_tid) };
    }
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
    tell(times, task, now, 0, &mut record.row);
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
}
