//! System calls per (process, call): counted at exit, exactly; the start slot serves the latency only.
//!
//! Two live threads may share a slot. Then one latency is lost and counted as lost, never the call. Reading the clock is
//! dear in a virtual machine, so usually only some calls are timed, with a random number of calls between: a fixed one
//! would keep step with programs that make the same few calls in turn.

use agent_common::{
    COMPAT_BIT, LossReason, SYSCALL_FIRST, SYSCALL_KEPT, SYSCALL_SUB_BITS, SyscallKey, SyscallStats, WATCH_SYSCALLS,
};
use aya_ebpf::bindings::{BPF_NOEXIST, pt_regs};
use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use crate::bucket::bucket;
use crate::diagnose::diagnose;
use crate::maps::{STARTS, SYSCALLS, UNTIL_TIMED, lost, watched};
use crate::offsets::{LATENCY_EVERY, OFF_TASK_STATUS, SLOT_MASK, of, present};
use crate::task;

/// Low bits of a slot that hold the time.
const TIME_BITS: u32 = 42;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
/// Bits of a thread id: `PID_MAX_LIMIT` is 2^22.
const TID_MASK: u64 = (1 << 22) - 1;
/// `TS_COMPAT` of `thread_info.status`.
const TS_COMPAT: u32 = 2;

/// The return from a signal handler leaves −1 where the number was.
const SIGRETURN: u32 = u32::MAX;

static ZERO: SyscallStats = SyscallStats {
    calls: 0,
    errors: 0,
    restarts: 0,
    result_sum: 0,
    timed: 0,
    total_ns: 0,
    histogram: [0; SYSCALL_KEPT],
};

// tp_btf sys_enter(struct pt_regs *regs, long id), since 5.5
#[btf_tracepoint(function = "sys_enter")]
fn syscall_enter(ctx: BtfTracePointContext) -> i32 {
    if !times_all() && !is_next() {
        return 0;
    }
    let pid_tgid = task::pid_tgid();
    let tgid = (pid_tgid >> 32) as u32;
    if !watched(tgid, WATCH_SYSCALLS) {
        return 0;
    }
    // Every call overwrites the time of the one before only when all are timed: else a time that no exit takes away would
    // wait for whoever gets this thread number next.
    if !times_all() && may_not_return(ctx.arg(1), tgid == pid_tgid as u32) {
        return 0;
    }
    let tid = pid_tgid & TID_MASK;
    if let Some(slot) = STARTS.get_ptr_mut(tid as u32 & of(&SLOT_MASK) as u32) {
        // SAFETY: a value of the map, one aligned word.
        let before = unsafe { slot.read_volatile() };
        if !times_all() && before & TIME_MASK != 0 && before >> TIME_BITS != tid {
            lost(LossReason::SlotCollision); // The other thread's; its exit cannot tell.
        }
        let now = task::now() & TIME_MASK;
        // SAFETY: a value of the map; one aligned word, so another thread sees all of it or nothing.
        unsafe { slot.write_volatile((tid << TIME_BITS) | now) };
    }
    0
}

// tp_btf sys_exit(struct pt_regs *regs, long ret), since 5.5
#[btf_tracepoint(function = "sys_exit")]
fn syscall_exit(ctx: BtfTracePointContext) -> i32 {
    let pid_tgid = task::pid_tgid();
    let tgid = (pid_tgid >> 32) as u32;
    let tid = pid_tgid & TID_MASK;
    let Some(slot) = STARTS.get_ptr_mut(tid as u32 & of(&SLOT_MASK) as u32) else { return 0 };
    // SAFETY: a value of the map, one aligned word.
    let start = unsafe { slot.read_volatile() };
    let mine = start >> TIME_BITS == tid;
    let own = mine && start & TIME_MASK != 0;
    // A slot of this thread was written because the process is watched: the look-up is spared.
    if !own && !watched(tgid, WATCH_SYSCALLS) {
        return 0;
    }
    let regs: *const pt_regs = ctx.arg(0);
    let ret: i64 = ctx.arg(1);
    // SAFETY: a trusted argument of the tracepoint.
    let nr = unsafe { (*regs).orig_rax } as u32 | compat_bit();
    if ret == 0 && is_fork(nr) {
        return 0; // The child leaves the call that its parent made.
    }
    let key = SyscallKey { pid: tgid, nr };
    let Some(stats) = entry(&key) else {
        diagnose!(&ctx, "the table of system calls is full: call {} of process {} is not counted", nr, tgid);
        lost(LossReason::SyscallTableFull);
        return 0;
    };
    // SAFETY: a per-CPU value; tracing programs on this hook do not migrate and are not nested.
    let stats = unsafe { &mut *stats };
    stats.calls += 1;
    if nr == SIGRETURN {
        // What stands there is a register that the handler's caller had.
    } else if ret > 0 {
        stats.result_sum = stats.result_sum.wrapping_add(ret as u64);
    } else if (-4095..0).contains(&ret) {
        if (-516..=-512).contains(&ret) {
            stats.restarts += 1;
        } else {
            stats.errors += 1;
        }
    }
    if own {
        let now = task::now();
        // SAFETY: as above. Without a time, so that a call whose entry nobody saw never takes an old one for its own;
        // the thread stays, so that another one that shared the slot can tell what became of its time.
        unsafe { slot.write_volatile(tid << TIME_BITS) };
        let latency = now.wrapping_sub(start) & TIME_MASK;
        stats.timed += 1;
        stats.total_ns = stats.total_ns.wrapping_add(latency);
        let index = bucket(latency, SYSCALL_SUB_BITS, SYSCALL_FIRST + SYSCALL_KEPT);
        #[expect(clippy::implicit_saturating_sub, reason = "the verifier loses the bounds of a saturating subtraction")]
        let kept = if index < SYSCALL_FIRST { 0 } else { index - SYSCALL_FIRST };
        if kept < SYSCALL_KEPT {
            stats.histogram[kept] += 1;
        }
    } else if !times_all() {
        // Not chosen.
    } else if mine || start == 0 {
        lost(LossReason::StartUnseen);
    } else {
        lost(LossReason::SlotCollision);
    }
    0
}

/// Whether every call is timed.
#[inline(always)]
fn times_all() -> bool {
    of(&LATENCY_EVERY) <= 1
}

/// Whether the call that begins now is to be timed. The distance to the next one is even between 1 and twice the mean.
#[inline(always)]
fn is_next() -> bool {
    let Some(left) = UNTIL_TIMED.get_ptr_mut(0) else { return false };
    // SAFETY: a per-CPU value; a program that interrupts this one moves the next choice by one call.
    let left = unsafe { &mut *left };
    if *left > 1 {
        *left -= 1;
        return false;
    }
    let distances = 2 * of(&LATENCY_EVERY) as u64 - 1;
    // SAFETY: takes no pointer.
    let random = u64::from(unsafe { bpf_get_prandom_u32() });
    *left = 1 + ((random * distances) >> 32) as u32;
    true
}

/// exit, exit_group, and execve of a thread that is not the first: it comes back under another number. Both instruction
/// sets; a call of the other one that has the same number goes untimed, no more.
#[inline(always)]
fn may_not_return(nr: u64, is_first_thread: bool) -> bool {
    match nr {
        60 | 231 | 1 | 252 => nr > 1 || compat_bit() != 0,
        59 | 322 | 11 | 358 => !is_first_thread,
        _ => false,
    }
}

/// The counters of `key`, made if need be. The second look-up keeps the first call of each key.
#[inline(always)]
fn entry(key: &SyscallKey) -> Option<*mut SyscallStats> {
    if let Some(stats) = SYSCALLS.get_ptr_mut(key) {
        return Some(stats);
    }
    #[expect(clippy::needless_borrows_for_generic_args, reason = "a copy would not fit on the stack of a probe")]
    // A failure means that the table is full or that another CPU was first: the look-up tells.
    let _ = SYSCALLS.insert(key, &ZERO, u64::from(BPF_NOEXIST));
    SYSCALLS.get_ptr_mut(key)
}

/// clone, fork, vfork, clone3: 64-bit, then 32-bit.
#[inline(always)]
fn is_fork(nr: u32) -> bool {
    matches!(nr, 56..=58 | 435) || matches!(nr ^ COMPAT_BIT, 120 | 2 | 190 | 435)
}

#[inline(always)]
pub fn compat_bit() -> u32 {
    if !present(&OFF_TASK_STATUS) {
        return 0;
    }
    if task::word(of(&OFF_TASK_STATUS)) & TS_COMPAT == 0 { 0 } else { COMPAT_BIT }
}
