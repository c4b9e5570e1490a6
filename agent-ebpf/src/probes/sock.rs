//! Arrival and reading of bytes on watched sockets.
//!
//! Positions: TCP by `rcv_nxt` and `copied_seq`; a Unix stream by the length of the buffer that was just queued and by
//! the sums that its reads returned; where each read takes one message whole (UDP, Unix datagrams and packets) by the
//! number of messages, each weighted by the bytes that its read returned.

use core::ffi::c_void;

use agent_common::{MarkRing, SOCKET_KIND_TCP, SampleKind, SocketStats, WATCH_SOCKETS, WITH_SOCKET_STACKS, WaitReason};
use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_sk_storage_get};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use crate::diagnose::diagnose;
use crate::emit::{self, From, What};
use crate::kernel_read::field;
use crate::maps::{MARKS, SOCKETS, switched_on, watched};
use crate::offsets::{OFF_TCP_COPIED_SEQ, OFF_TCP_RCV_NXT, SOCKET_PERIOD, of64};
use crate::probes::sock_iter::adopt;
use crate::receive_queue::{is_empty, newest_buffer, takes_messages};
use crate::residency::{arrive, consume};
use crate::task;

const MSG_PEEK: i32 = 2;

/// The marks of `sk` if it is watched.
#[inline(always)]
pub fn marks(sk: *mut c_void, flags: u64) -> Option<&'static mut MarkRing> {
    // SAFETY: `sk` is a trusted pointer to a socket and MARKS a map of socket storage.
    let ring = unsafe { bpf_sk_storage_get((&raw const MARKS).cast_mut().cast(), sk, core::ptr::null_mut(), flags) };
    // SAFETY: the storage lives as long as the socket. Arrival and reading run at once on two CPUs and keep to fields of
    // their own, but for `arrived`; the worst that a race there does is to misjudge the age of one message.
    unsafe { ring.cast::<MarkRing>().as_mut() }
}

// tp_btf sk_data_ready(const struct sock *sk), since 6.3. Runs in the sender's context or in softirq: the current
// process says nothing.
#[btf_tracepoint(function = "sk_data_ready")]
fn sock_arrive(ctx: BtfTracePointContext) -> i32 {
    let sk: *mut c_void = ctx.arg(0);
    let Some(ring) = marks(sk, 0) else { return 0 };
    if ring.cookie == 0 {
        return 0; // Being adopted on another CPU.
    }
    let end = if ring.kind == u32::from(SOCKET_KIND_TCP) {
        let Some(next) = field::<u32>(sk, &OFF_TCP_RCV_NXT) else { return 0 };
        extend(ring.arrived, next)
    } else if takes_messages(ring.kind) {
        if is_empty(sk, ring.kind) {
            return 0; // A reader on another CPU was faster: it did not wait.
        }
        ring.arrived + 1
    } else {
        ring.arrived + newest_buffer(sk)
    };
    if arrive(ring, end, task::now())
        && let Some(stats) = SOCKETS.get_ptr_mut(ring.cookie)
    {
        // SAFETY: a value of the map; a lost increment in a race is a lost increment of a diagnostic.
        unsafe { (*stats).merged += 1 };
    }
    0
}

// tp_btf sock_recv_length(struct sock *sk, int ret, int flags), since 6.3. Runs in the reader.
#[btf_tracepoint(function = "sock_recv_length")]
fn sock_read(ctx: BtfTracePointContext) -> i32 {
    let sk: *mut c_void = ctx.arg(0);
    let ret: i32 = ctx.arg(1);
    let flags: i32 = ctx.arg(2);
    if ret < 0 || flags & MSG_PEEK != 0 {
        return 0;
    }
    let ring = marks(sk, 0);
    // Nothing was taken, unless it is a message without bytes.
    if ret == 0 && !ring.as_ref().is_some_and(|ring| takes_messages(ring.kind)) {
        return 0;
    }
    if ring.as_ref().is_some_and(|ring| ring.cookie == 0) {
        return 0; // Being adopted on another CPU.
    }
    let counters = ring.as_ref().and_then(|ring| SOCKETS.get_ptr_mut(ring.cookie));
    let (Some(ring), Some(stats)) = (ring, counters) else {
        // Made since the last look at the descriptors, or left from a watch that has ended: watched from here on.
        let tgid = task::tgid();
        if watched(tgid, WATCH_SOCKETS) {
            diagnose!(&ctx, "process {} reads a socket that no walk has seen: watched from here on", tgid);
            adopt(sk, tgid);
            count_first_read(sk, ret as u64);
        }
        return 0;
    };
    // SAFETY: a value of the map; two threads that read one socket at once may lose a count, as they may lose order.
    let stats: &mut SocketStats = unsafe { &mut *stats };
    let end = if ring.kind == u32::from(SOCKET_KIND_TCP) {
        let Some(copied) = field::<u32>(sk, &OFF_TCP_COPIED_SEQ) else { return 0 };
        extend(ring.consumed, copied)
    } else if takes_messages(ring.kind) {
        ring.consumed + 1
    } else {
        ring.consumed + ret as u64
    };
    let each = if takes_messages(ring.kind) { ret as u64 } else { 1 };
    let now = task::now();
    // The end of a TCP stream takes a position of its own, which is no byte.
    let fin = ring.kind == u32::from(SOCKET_KIND_TCP) && end.wrapping_sub(ring.consumed) == ret as u64 + 1;
    let before = stats.byte_us;
    consume(ring, stats, if fin { end - 1 } else { end }, each, now);
    ring.consumed = end;
    if switched_on(WITH_SOCKET_STACKS) {
        sample(&ctx, stats.byte_us.wrapping_sub(before));
    }
    if ring.kind != u32::from(SOCKET_KIND_TCP) && is_empty(sk, ring.kind) {
        // Two senders at once can make the arrived sum drift; an empty queue tells where it must be.
        ring.arrived = ring.consumed;
        ring.tail = ring.head;
    }
    0
}

/// Takes the reader's stack, in proportion to the waiting that its read ended: always where that is a period or more, else
/// with the chance that makes the sum come out right.
#[inline(always)]
fn sample(ctx: &BtfTracePointContext, waited: u64) {
    let period = of64(&SOCKET_PERIOD);
    // SAFETY: takes no pointer.
    let chance = || u64::from(unsafe { bpf_get_prandom_u32() });
    let weight = if waited >= period {
        waited
    } else if waited > ((chance() * (period >> 8)) >> 24) {
        period
    } else {
        return;
    };
    let what = What { kind: SampleKind::Socket, weight, reason: WaitReason::Other, other_tid: 0, pair: 0 };
    emit::stack(ctx.as_ptr(), From::Tracepoint, &what);
}

/// Counts the read by which a socket was found: its bytes arrived before anybody watched.
#[inline(always)]
fn count_first_read(sk: *mut c_void, bytes: u64) {
    if let Some(ring) = marks(sk, 0)
        && let Some(stats) = SOCKETS.get_ptr_mut(ring.cookie)
    {
        // SAFETY: a value of the map, as in `sock_read`.
        let stats: &mut SocketStats = unsafe { &mut *stats };
        stats.reads += 1;
        stats.read_bytes += bytes;
        stats.unmeasured_bytes += bytes;
    }
}

/// The 64-bit position nearest to `position` whose low half is `low`, never before it by more than half the range.
#[inline(always)]
fn extend(position: u64, low: u32) -> u64 {
    let ahead = low.wrapping_sub(position as u32) as i32;
    position.wrapping_add(i64::from(ahead) as u64)
}
