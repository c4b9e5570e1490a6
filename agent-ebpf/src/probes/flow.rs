//! Flows: what each call on a descriptor of a watched process moved and how long it took, and what it flushed.
//!
//! A flush is told by the order of calls alone: writes, then what answers them. No length of time and no size is judged
//! here. Attached only while somebody is watched in this way.

use agent_common::{
    FLOW_ANSWERED, FLOW_BUCKETS, FLOW_EACH_WRITE, FLOW_READS, FLOW_SYNCS, FLOW_WRITES, FlowFlushes, FlowKey, FlowStats,
    LossReason, WATCH_FLOWS,
};
use aya_ebpf::bindings::{BPF_NOEXIST, pt_regs};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use crate::bucket::bucket;
use crate::maps::{FLOW_INTAKE, FLOW_STARTS, FLOWS, lost, watched};
use crate::offsets::{SLOT_MASK, of};
use crate::probes::flow_calls::{Call, arguments, call};
use crate::probes::syscall::compat_bit;
use crate::task;

/// Low bits of a slot that hold the time.
const TIME_BITS: u32 = 42;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
/// Bits of a thread id.
const TID_MASK: u64 = (1 << 22) - 1;

const EAGAIN: i64 = 11;

static NOTHING: FlowStats = FlowStats::ZERO;

/// From the begin of a flush to its end.
#[derive(Clone, Copy)]
struct Span {
    begin: u64,
    end: u64,
    /// Bytes that the process had taken in by other descriptors when it began.
    taken: u64,
}

/// A call that has returned.
struct Done {
    pid: u32,
    fd: u32,
    /// A `FLOW_…` index of [`FlowStats::ways`].
    way: usize,
    /// Its result; of calls that move messages 0, and the messages are in `untold`.
    ret: i64,
    untold: u64,
    /// 0 when its entry was not seen.
    start: u64,
    now: u64,
}

// tp_btf sys_enter(struct pt_regs *regs, long id), since 5.5
#[btf_tracepoint(function = "sys_enter")]
fn flow_enter(ctx: BtfTracePointContext) -> i32 {
    let Some(call) = call(ctx.arg(1)) else { return 0 };
    let pid_tgid = task::pid_tgid();
    let tgid = (pid_tgid >> 32) as u32;
    if !watched(tgid, WATCH_FLOWS) || compat_bit() != 0 {
        return 0;
    }
    let regs: *const pt_regs = ctx.arg(0);
    let [first, second, _] = arguments(regs);
    match call {
        // On the way in: once it is out, the number may be somebody else's already.
        Call::Close => end(tgid, first),
        Call::Replace => {
            if first != second {
                end(tgid, second);
            }
        }
        _ => {
            let tid = pid_tgid & TID_MASK;
            if let Some(slot) = FLOW_STARTS.get_ptr_mut(tid as u32 & of(&SLOT_MASK) as u32) {
                // SAFETY: a value of the map; one aligned word, so another thread sees all of it or nothing.
                unsafe { slot.write_volatile((tid << TIME_BITS) | (task::now() & TIME_MASK)) };
            }
        }
    }
    0
}

// tp_btf sys_exit(struct pt_regs *regs, long ret), since 5.5
#[btf_tracepoint(function = "sys_exit")]
fn flow_exit(ctx: BtfTracePointContext) -> i32 {
    let regs: *const pt_regs = ctx.arg(0);
    // SAFETY: a trusted argument of the tracepoint.
    let Some(call) = call(unsafe { (*regs).orig_rax }) else { return 0 };
    let pid_tgid = task::pid_tgid();
    let pid = (pid_tgid >> 32) as u32;
    if matches!(call, Call::Close | Call::Replace) || !watched(pid, WATCH_FLOWS) || compat_bit() != 0 {
        return 0;
    }
    let now = task::now();
    let start = started(pid_tgid & TID_MASK, now);
    let ret: i64 = ctx.arg(1);
    let [first, second, third] = arguments(regs);
    let done = |fd, way| Done { pid, fd, way, ret, untold: 0, start, now };
    let (ret_of_messages, untold) = if ret > 0 { (0, ret as u64) } else { (ret, 0) };
    match call {
        Call::Read => count(&done(first, FLOW_READS)),
        Call::Write => count(&done(first, FLOW_WRITES)),
        Call::Sync => count(&done(first, FLOW_SYNCS)),
        Call::ReadMessages => count(&Done { ret: ret_of_messages, untold, ..done(first, FLOW_READS) }),
        Call::WriteMessages => count(&Done { ret: ret_of_messages, untold, ..done(first, FLOW_WRITES) }),
        Call::SendFile => {
            count(&done(second, FLOW_READS));
            count(&done(first, FLOW_WRITES));
        }
        Call::Splice => {
            count(&done(first, FLOW_READS));
            count(&done(third, FLOW_WRITES));
        }
        Call::Tee => {
            count(&done(first, FLOW_READS));
            count(&done(second, FLOW_WRITES));
        }
        Call::Close | Call::Replace => {}
    }
    0
}

/// When the call of thread `tid` that ends `now` began; 0 when that is not known, and why is counted.
#[inline(always)]
fn started(tid: u64, now: u64) -> u64 {
    let Some(slot) = FLOW_STARTS.get_ptr_mut(tid as u32 & of(&SLOT_MASK) as u32) else { return 0 };
    // SAFETY: a value of the map, one aligned word.
    let start = unsafe { slot.read_volatile() };
    if start >> TIME_BITS == tid && start & TIME_MASK != 0 {
        // SAFETY: as above. The thread stays, so that another one that shares the slot can tell what became of its time.
        unsafe { slot.write_volatile(tid << TIME_BITS) };
        return now - (now.wrapping_sub(start) & TIME_MASK);
    }
    lost(if start == 0 || start >> TIME_BITS == tid { LossReason::StartUnseen } else { LossReason::SlotCollision });
    0
}

/// Puts a call that has returned to the account of its descriptor.
#[inline(never)]
fn count(done: &Done) {
    let Done { pid, fd, way, ret, untold, start, now } = *done;
    let key = FlowKey { pid, fd, ended_ns: 0 };
    let Some(stats) = entry(&key) else {
        lost(LossReason::FlowTableFull);
        return;
    };
    if way > FLOW_SYNCS {
        return;
    }
    // SAFETY: a value of the map, which stays while the program runs. One thread that reads and one that writes keep to
    // fields of their own; two in the same kind of call on one descriptor, at the same moment on two CPUs, may lose a count,
    // as they may lose their order.
    let stats = unsafe { &mut *stats };
    if stats.first_ns == 0 {
        stats.first_ns = if start == 0 { now } else { start };
    }
    stats.last_ns = now;
    let calls = &mut stats.ways[way];
    calls.calls += 1;
    if start != 0 {
        calls.timed += 1;
        calls.total_ns += now - start;
    }
    if untold != 0 {
        stats.untold += untold;
    } else if ret > 0 && way != FLOW_SYNCS {
        calls.bytes += ret as u64;
    } else if ret == -EAGAIN {
        calls.again += 1;
    } else if ret < 0 && !(-516..=-512).contains(&ret) {
        calls.errors += 1;
    }
    let begin = if start == 0 { now } else { start };
    if way == FLOW_READS && ret > 0 && untold == 0 {
        take_in(pid, ret as u64);
    }
    if way == FLOW_WRITES && ret > 0 {
        let taken = taken_in(pid).wrapping_sub(stats.ways[FLOW_READS].bytes);
        write(stats, ret as u64, Span { begin, end: now, taken });
    } else if (way == FLOW_READS && ret > 0) || (way == FLOW_SYNCS && ret == 0) {
        answer(stats, now);
    }
}

/// Bytes went out: a flush by itself, and part of the run that waits for its answer.
#[inline(always)]
fn write(stats: &mut FlowStats, bytes: u64, span: Span) {
    let version = open(stats);
    flushed(&mut stats.flushes[FLOW_EACH_WRITE], bytes, span);
    if stats.open_ns == 0 {
        stats.open_ns = span.begin;
        stats.open_bytes = 0;
        stats.open_taken = span.taken;
    }
    stats.open_bytes += bytes;
    close(stats, version);
}

/// What answers a run of writes has come.
#[inline(always)]
fn answer(stats: &mut FlowStats, now: u64) {
    if stats.open_ns == 0 {
        return;
    }
    let version = open(stats);
    let span = Span { begin: stats.open_ns, end: now, taken: stats.open_taken };
    flushed(&mut stats.flushes[FLOW_ANSWERED], stats.open_bytes, span);
    stats.open_ns = 0;
    close(stats, version);
}

#[inline(always)]
fn flushed(sums: &mut FlowFlushes, bytes: u64, span: Span) {
    let Span { begin, end, taken } = span;
    // To the nearest: cut durations in the products and whole ones in the sum would bend the line through them.
    let us = (end - begin + 500) / 1_000;
    sums.flushes += 1;
    sums.bytes += bytes;
    sums.bytes_squared = sums.bytes_squared.wrapping_add(bytes.wrapping_mul(bytes));
    sums.duration_ns += end - begin;
    sums.bytes_us = sums.bytes_us.wrapping_add(bytes.wrapping_mul(us));
    sums.us_squared = sums.us_squared.wrapping_add(us.wrapping_mul(us));
    sums.sizes[octave(bytes)] += 1;
    if sums.last_begin_ns != 0 && begin >= sums.last_begin_ns {
        let interval = (begin - sums.last_begin_ns) / 1_000;
        sums.intervals += 1;
        sums.interval_us += interval;
        sums.interval_us_squared = sums.interval_us_squared.wrapping_add(interval.wrapping_mul(interval));
        // Two writers at once: the one began before the other ended.
        let gap = begin.saturating_sub(sums.last_end_ns);
        sums.gap_ns += gap;
        let arrived = taken.wrapping_sub(sums.last_taken);
        sums.arrived = sums.arrived.wrapping_add(arrived);
        sums.arrived_squared = sums.arrived_squared.wrapping_add(arrived.wrapping_mul(arrived));
        sums.arrived_us = sums.arrived_us.wrapping_add(arrived.wrapping_mul(us));
        sums.paired_ns += end - begin;
        sums.paired_us_squared = sums.paired_us_squared.wrapping_add(us.wrapping_mul(us));
        sums.gaps[octave(gap / 1_000)] += 1;
    }
    sums.last_taken = taken;
    sums.last_begin_ns = begin;
    sums.last_end_ns = end;
}

/// Bucket of `value` by its highest bit. What lies above the last is brought into it before: after a comparison of the
/// index the verifier of 6.1 loses the bounds that the mask gives it.
#[inline(always)]
fn octave(value: u64) -> usize {
    const MOST: u64 = (1 << (FLOW_BUCKETS - 1)) - 1;
    let value = if value > MOST { MOST } else { value };
    bucket(value, 0, usize::MAX) & (FLOW_BUCKETS - 1)
}

/// The sums are about to change: whoever reads them from here on sees two versions. The last word first, because the
/// agent reads the words in their order.
#[inline(always)]
fn open(stats: &mut FlowStats) -> u64 {
    let version = stats.version_begin + 1;
    // SAFETY: a field of its own; volatile, so that it is written now.
    unsafe { (&raw mut stats.version_end).write_volatile(version) };
    version
}

/// They have changed.
#[inline(always)]
fn close(stats: &mut FlowStats, version: u64) {
    // SAFETY: as in `open`.
    unsafe { (&raw mut stats.version_begin).write_volatile(version) };
}

/// Counts bytes that process `pid` has taken in.
#[inline(always)]
fn take_in(pid: u32, bytes: u64) {
    if let Some(sum) = FLOW_INTAKE.get_ptr_mut(pid) {
        // SAFETY: a value of the map; two reads at the same moment on two CPUs may lose one.
        unsafe { *sum += bytes };
    } else {
        let _ = FLOW_INTAKE.insert(pid, bytes, u64::from(BPF_NOEXIST)); // The first; another CPU may have been first.
    }
}

#[inline(always)]
fn taken_in(pid: u32) -> u64 {
    // SAFETY: a value of the map, one aligned word.
    FLOW_INTAKE.get_ptr(pid).map_or(0, |sum| unsafe { *sum })
}

/// The counters of `key`, made if need be. The second look-up keeps the first call of each descriptor.
#[inline(always)]
fn entry(key: &FlowKey) -> Option<*mut FlowStats> {
    if let Some(stats) = FLOWS.get_ptr_mut(key) {
        return Some(stats);
    }
    #[expect(clippy::needless_borrows_for_generic_args, reason = "a copy would not fit on the stack of a probe")]
    // A failure means that the table is full or that another CPU was first: the look-up tells.
    let _ = FLOWS.insert(key, &NOTHING, u64::from(BPF_NOEXIST));
    FLOWS.get_ptr_mut(key)
}

/// The descriptor is closed: its counters wait under another key until the agent has read them, and whoever gets its
/// number next begins from nothing.
#[inline(never)]
fn end(pid: u32, fd: u32) {
    let key = FlowKey { pid, fd, ended_ns: 0 };
    let Some(stats) = FLOWS.get_ptr(key) else { return };
    let ended = FlowKey { ended_ns: task::now(), ..key };
    #[expect(clippy::needless_borrows_for_generic_args, reason = "a copy would not fit on the stack of a probe")]
    // SAFETY: a value of the map, which stays while the program runs; the kernel copies it.
    if FLOWS.insert(ended, unsafe { &*stats }, u64::from(BPF_NOEXIST)).is_err() {
        lost(LossReason::FlowTableFull);
    }
    let _ = FLOWS.remove(key); // Another thread may have closed it too.
}
