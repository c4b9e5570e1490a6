//! System calls per (process, call): counted at exit, exactly; the start slot serves the latency only.
//!
//! Two live threads may share a slot. Then one latency is lost and counted as lost, never the call.

use agent_common::{COMPAT_BIT, LossReason, SYSCALL_BUCKETS, SYSCALL_SUB_BITS, SyscallKey, SyscallStats};
use aya_ebpf::bindings::{BPF_NOEXIST, pt_regs};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use crate::bucket::bucket;
use crate::diagnose::diagnose;
use crate::maps::{STARTS, SYSCALLS, WATCH_SYSCALLS, lost, watched};
use crate::offsets::{OFF_TASK_STATUS, SLOT_MASK, of, present};
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
    histogram: [0; SYSCALL_BUCKETS],
};

// tp_btf sys_enter(struct pt_regs *regs, long id), since 5.5
#[btf_tracepoint(function = "sys_enter")]
fn syscall_enter(_ctx: BtfTracePointContext) -> i32 {
    let pid_tgid = task::pid_tgid();
    if !watched((pid_tgid >> 32) as u32, WATCH_SYSCALLS) {
        return 0;
    }
    let tid = pid_tgid & TID_MASK;
    if let Some(slot) = STARTS.get_ptr_mut(tid as u32 & of(&SLOT_MASK) as u32) {
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
        let index = bucket(latency, SYSCALL_SUB_BITS, SYSCALL_BUCKETS);
        if index < SYSCALL_BUCKETS {
            stats.histogram[index] += 1;
        }
    } else if mine || start == 0 {
        lost(LossReason::StartUnseen);
    } else {
        lost(LossReason::SlotCollision);
    }
    0
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
fn compat_bit() -> u32 {
    if !present(&OFF_TASK_STATUS) {
        return 0;
    }
    if task::word(of(&OFF_TASK_STATUS)) & TS_COMPAT == 0 { 0 } else { COMPAT_BIT }
}
