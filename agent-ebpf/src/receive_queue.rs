//! What waits in the receive queue of a socket, and which kinds of sockets are watched at all.

use core::ffi::c_void;

use agent_common::{
    SOCKET_KIND_TCP, SOCKET_KIND_UDP, SOCKET_KIND_UNIX_DATAGRAM, SOCKET_KIND_UNIX_PACKET, SOCKET_KIND_UNIX_STREAM,
};

use crate::kernel_read::{at, field, or_zero};
use crate::offsets::{
    OFF_SK_FAMILY, OFF_SK_PROTOCOL, OFF_SK_RECEIVE_QUEUE, OFF_SK_STATE, OFF_SK_TYPE, OFF_SKB_LEN, OFF_SKBHEAD_NEXT,
    OFF_SKBHEAD_PREV, OFF_SKBHEAD_QLEN, OFF_UDP_READER_QUEUE, of,
};

const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const SOCK_STREAM: u16 = 1;
const SOCK_DGRAM: u16 = 2;
const SOCK_SEQPACKET: u16 = 5;
const IPPROTO_TCP: u16 = 6;
const IPPROTO_UDP: u16 = 17;
const TCP_LISTEN: u8 = 10;
/// Buffers of a queue that are walked for their lengths.
const WALK: usize = 64;

/// The kind of `sk` if its residency can be told: TCP, UDP, or a Unix socket that does not listen.
#[inline(always)]
pub fn kind_of(sk: *mut c_void) -> Option<u16> {
    let family: u16 = field(sk, &OFF_SK_FAMILY)?;
    let kind: u16 = field(sk, &OFF_SK_TYPE)?;
    let state: u8 = field(sk, &OFF_SK_STATE)?;
    if state == TCP_LISTEN {
        return None;
    }
    match (family, kind) {
        (AF_UNIX, SOCK_STREAM) => Some(SOCKET_KIND_UNIX_STREAM),
        (AF_UNIX, SOCK_DGRAM) => Some(SOCKET_KIND_UNIX_DATAGRAM),
        (AF_UNIX, SOCK_SEQPACKET) => Some(SOCKET_KIND_UNIX_PACKET),
        // The protocol is checked before any field of tcp_sock or udp_sock is read: MPTCP and SCTP are other structs.
        (AF_INET | AF_INET6, SOCK_STREAM) if field::<u16>(sk, &OFF_SK_PROTOCOL)? == IPPROTO_TCP => {
            Some(SOCKET_KIND_TCP)
        }
        (AF_INET | AF_INET6, SOCK_DGRAM) if field::<u16>(sk, &OFF_SK_PROTOCOL)? == IPPROTO_UDP => Some(SOCKET_KIND_UDP),
        _ => None,
    }
}

/// Whether each read takes one message whole: positions then count messages instead of bytes.
#[inline(always)]
pub fn takes_messages(kind: u32) -> bool {
    kind >= SOCKET_KIND_UDP as u32
}

#[inline(always)]
fn receive_queue(sk: *mut c_void) -> *const c_void {
    sk.cast::<u8>().wrapping_add(of(&OFF_SK_RECEIVE_QUEUE)).cast()
}

/// UDP readers take all that has come into a queue of their own.
#[inline(always)]
fn reader_queue(sk: *mut c_void) -> *const c_void {
    sk.cast::<u8>().wrapping_add(of(&OFF_UDP_READER_QUEUE)).cast()
}

/// Messages that wait.
#[inline(always)]
pub fn waiting_messages(sk: *mut c_void, kind: u32) -> u64 {
    let waiting = u64::from(or_zero::<u32>(receive_queue(sk), &OFF_SKBHEAD_QLEN));
    if kind == SOCKET_KIND_UDP as u32 {
        waiting + u64::from(or_zero::<u32>(reader_queue(sk), &OFF_SKBHEAD_QLEN))
    } else {
        waiting
    }
}

/// Bytes of the messages that wait, as far as the queue is walked.
#[inline(always)]
pub fn waiting_bytes(sk: *mut c_void, kind: u32) -> u64 {
    let bytes = walk(receive_queue(sk));
    if kind == SOCKET_KIND_UDP as u32 { bytes + walk(reader_queue(sk)) } else { bytes }
}

/// Lengths of the first buffers of a queue.
#[inline(always)]
pub fn walk(queue: *const c_void) -> u64 {
    let mut sum = 0;
    let mut buffer: u64 = or_zero(queue, &OFF_SKBHEAD_NEXT);
    for _ in 0..WALK {
        if buffer == 0 || buffer == queue as u64 {
            break;
        }
        sum += u64::from(or_zero::<u32>(buffer as *const c_void, &OFF_SKB_LEN));
        buffer = or_zero(buffer as *const c_void, &OFF_SKBHEAD_NEXT);
    }
    sum
}

/// Length of the buffer at the end of the receive queue; 0 when a reader has taken it already.
#[inline(always)]
pub fn newest_buffer(sk: *mut c_void) -> u64 {
    let queue = receive_queue(sk);
    let Some(newest) = at::<u64>(queue, of(&OFF_SKBHEAD_PREV)) else { return 0 };
    if newest == 0 || newest == queue as u64 {
        return 0;
    }
    field::<u32>(newest as *const c_void, &OFF_SKB_LEN).map_or(0, u64::from)
}

/// Whether nothing waits in a queue other than that of TCP.
#[inline(always)]
pub fn is_empty(sk: *mut c_void, kind: u32) -> bool {
    let queue = receive_queue(sk);
    if at::<u64>(queue, of(&OFF_SKBHEAD_NEXT)) != Some(queue as u64) {
        return false;
    }
    kind != SOCKET_KIND_UDP as u32 || waiting_messages(sk, kind) == 0
}
