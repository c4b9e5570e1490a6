//! Arrival and reading of bytes on watched stream sockets.
//!
//! Positions: TCP by `rcv_nxt` and `copied_seq`; a Unix stream by the length of the buffer that was just queued and by
//! the sums that its reads returned.

use core::ffi::c_void;

use agent_common::{MarkRing, SOCKET_KIND_TCP, SocketStats};
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use crate::diagnose::diagnose;
use crate::kernel_read::{at, field};
use crate::maps::{MARKS, SOCKETS, WATCH_SOCKETS, watched};
use crate::offsets::{
    OFF_SK_RECEIVE_QUEUE, OFF_SKB_LEN, OFF_SKBHEAD_NEXT, OFF_SKBHEAD_PREV, OFF_TCP_COPIED_SEQ, OFF_TCP_RCV_NXT, of,
};
use crate::probes::sock_iter::adopt;
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
    if ret <= 0 || flags & MSG_PEEK != 0 {
        return 0;
    }
    let Some(ring) = marks(sk, 0) else {
        // A socket that was made since the last look at the descriptors: watched from its first read on.
        let tgid = task::tgid();
        if watched(tgid, WATCH_SOCKETS) {
            diagnose!(&ctx, "process {} reads a socket that no walk has seen: watched from here on", tgid);
            adopt(sk, tgid);
            count_first_read(sk, ret as u64);
        }
        return 0;
    };
    if ring.cookie == 0 {
        return 0;
    }
    let Some(stats) = SOCKETS.get_ptr_mut(ring.cookie) else {
        // Left from a watch that has ended. If there is a new one, `adopt` finds room or counts the loss.
        let tgid = task::tgid();
        if watched(tgid, WATCH_SOCKETS) {
            adopt(sk, tgid);
        }
        return 0;
    };
    // SAFETY: a value of the map; two threads that read one socket at once may lose a count, as they may lose order.
    let stats: &mut SocketStats = unsafe { &mut *stats };
    let end = if ring.kind == u32::from(SOCKET_KIND_TCP) {
        let Some(copied) = field::<u32>(sk, &OFF_TCP_COPIED_SEQ) else { return 0 };
        extend(ring.consumed, copied)
    } else {
        ring.consumed + ret as u64
    };
    let now = task::now();
    // The end of a TCP stream takes a position of its own, which is no byte.
    let fin = end.wrapping_sub(ring.consumed) == ret as u64 + 1;
    consume(ring, stats, if fin { end - 1 } else { end }, now);
    ring.consumed = end;
    if ring.kind != u32::from(SOCKET_KIND_TCP) && queue_is_empty(sk) {
        // Two senders at once can make the arrived sum drift; an empty queue tells where it must be.
        ring.arrived = ring.consumed;
        ring.tail = ring.head;
    }
    0
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

/// Length of the buffer at the end of the receive queue; 0 when a reader has taken it already.
#[inline(always)]
fn newest_buffer(sk: *mut c_void) -> u64 {
    let queue = sk.cast::<u8>().wrapping_add(of(&OFF_SK_RECEIVE_QUEUE)).cast::<c_void>().cast_const();
    let Some(newest) = at::<u64>(queue, of(&OFF_SKBHEAD_PREV)) else { return 0 };
    if newest == 0 || newest == queue as u64 {
        return 0;
    }
    field::<u32>(newest as *const c_void, &OFF_SKB_LEN).map_or(0, u64::from)
}

#[inline(always)]
fn queue_is_empty(sk: *mut c_void) -> bool {
    let queue = sk.cast::<u8>().wrapping_add(of(&OFF_SK_RECEIVE_QUEUE)).cast::<c_void>().cast_const();
    at::<u64>(queue, of(&OFF_SKBHEAD_NEXT)) == Some(queue as u64)
}
