//! Walks the descriptors of watched processes: finds their stream sockets, makes their marks, and writes one
//! [`SocketSeen`] each. It follows the task and so sees into every network namespace.

use core::ffi::c_void;

use agent_common::{LossReason, SOCKET_KIND_TCP, SOCKET_KIND_UNIX_STREAM, SocketSeen, SocketStats};
use aya_ebpf::bindings::{BPF_NOEXIST, BPF_SK_STORAGE_GET_F_CREATE, seq_file};
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_seq_write, bpf_sock_from_file};

use crate::kernel_read::{copy, field, or_zero};
use crate::maps::{SOCKETS, WATCH_SOCKETS, lost, watched};
use crate::offsets::*;
use crate::probes::sock::marks;

const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const SOCK_STREAM: u16 = 1;
const IPPROTO_TCP: u16 = 6;
const TCP_LISTEN: u8 = 10;
/// Buffers of a Unix queue that are walked where the kernel keeps no sum.
const WALK: usize = 64;

static NO_STATS: SocketStats = SocketStats {
    pid: 0,
    kind: 0,
    reads: 0,
    read_bytes: 0,
    measured_bytes: 0,
    byte_us: 0,
    unmeasured_bytes: 0,
    merged: 0,
    oldest: [0; agent_common::RESIDENCY_BUCKETS],
    bytes: [0; agent_common::RESIDENCY_BUCKETS],
};

/// `struct bpf_iter__task_file`: an interface of the kernel, the same since 5.8.
#[repr(C)]
struct TaskFile {
    meta: *mut Meta,
    task: *mut c_void,
    fd: u32,
    file: *mut c_void,
}

/// `struct bpf_iter_meta`, likewise.
#[repr(C)]
struct Meta {
    seq: *mut seq_file,
}

// iter/task_file, since 5.8; bpf_sock_from_file since 5.11
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
extern "C" fn sock_iter(ctx: *mut TaskFile) -> i32 {
    // SAFETY: the kernel passes a valid context; task and file may be null at the end of the walk.
    let (task, file, fd) = unsafe { ((*ctx).task, (*ctx).file, (*ctx).fd) };
    if task.is_null() || file.is_null() {
        return 0;
    }
    // SAFETY: a trusted pointer; the place is that of a u32 field in the running kernel.
    let tgid = unsafe { *task.cast::<u8>().add(of(&OFF_TASK_TGID)).cast::<u32>() };
    if !watched(tgid, WATCH_SOCKETS) {
        return 0;
    }
    // SAFETY: `file` is a trusted pointer.
    let socket = unsafe { bpf_sock_from_file(file.cast()) }.cast::<u8>();
    if socket.is_null() {
        return 0;
    }
    // SAFETY: a trusted pointer; the place is that of `socket.sk`.
    let sk = unsafe { *socket.add(of(&OFF_SOCKET_SK)).cast::<*mut c_void>() };
    if sk.is_null() {
        return 0;
    }
    let Some(kind) = stream_kind(sk) else { return 0 };
    adopt(sk, tgid);
    let Some(ring) = marks(sk, 0) else { return 0 };
    let mut seen = SocketSeen::ZERO;
    seen.cookie = ring.cookie;
    seen.pid = tgid;
    seen.fd = fd as i32;
    seen.kind = kind;
    seen.family = or_zero(sk, &OFF_SK_FAMILY);
    seen.receive_limit = u64::from(or_zero::<u32>(sk, &OFF_SK_RCVBUF));
    seen.send_limit = u64::from(or_zero::<u32>(sk, &OFF_SK_SNDBUF));
    seen.overflows = u64::from(or_zero::<u32>(sk, &OFF_SK_DROPS));
    let inode: u64 = or_zero(file, &OFF_FILE_INODE);
    seen.inode = or_zero(inode as *const c_void, &OFF_INODE_INO);
    if kind == SOCKET_KIND_TCP {
        tcp(sk, &mut seen);
    } else {
        unix(sk, &mut seen);
    }
    // SAFETY: `seq` is valid while the iterator runs, `seen` is fully initialised.
    unsafe { bpf_seq_write((*(*ctx).meta).seq, (&raw const seen).cast(), size_of::<SocketSeen>() as u32) };
    0
}

/// The kind of `sk` if its residency can be told: a connected TCP or Unix stream.
#[inline(always)]
fn stream_kind(sk: *mut c_void) -> Option<u16> {
    let family: u16 = field(sk, &OFF_SK_FAMILY)?;
    let kind: u16 = field(sk, &OFF_SK_TYPE)?;
    let state: u8 = field(sk, &OFF_SK_STATE)?;
    if kind != SOCK_STREAM || state == TCP_LISTEN {
        return None;
    }
    match family {
        AF_UNIX => Some(SOCKET_KIND_UNIX_STREAM),
        // The protocol is checked before any field of tcp_sock is read: MPTCP and SCTP streams are other structs.
        AF_INET | AF_INET6 if field::<u16>(sk, &OFF_SK_PROTOCOL)? == IPPROTO_TCP => Some(SOCKET_KIND_TCP),
        _ => None,
    }
}

/// Starts to watch `sk`, if it is a connected stream and not watched yet. Marks without counters are left from a watch
/// that has ended: what came and went since then was not seen, so they begin anew.
#[inline(always)]
pub fn adopt(sk: *mut c_void, tgid: u32) {
    if let Some(ring) = marks(sk, 0)
        && SOCKETS.get_ptr(ring.cookie).is_some()
    {
        return;
    }
    let Some(kind) = stream_kind(sk) else { return };
    // SAFETY: `sk` is a trusted pointer to a socket.
    let cookie = unsafe { bpf_get_socket_cookie(sk) };
    // Kept when the socket was watched before.
    #[expect(clippy::needless_borrows_for_generic_args, reason = "a copy would not fit on the stack of a probe")]
    if SOCKETS.get_ptr(cookie).is_none() && SOCKETS.insert(cookie, &NO_STATS, u64::from(BPF_NOEXIST)).is_err() {
        lost(LossReason::SocketTableFull);
        return;
    }
    if let Some(stats) = SOCKETS.get_ptr_mut(cookie) {
        // SAFETY: a value of the map; whoever else adopts this socket writes the same.
        unsafe { ((*stats).pid, (*stats).kind) = (tgid, u32::from(kind)) };
    }
    let Some(ring) = marks(sk, u64::from(BPF_SK_STORAGE_GET_F_CREATE)) else { return };
    ring.cookie = 0;
    ring.tail = ring.head;
    ring.consumed = 0;
    ring.kind = u32::from(kind);
    ring.pid = tgid;
    if kind == SOCKET_KIND_TCP {
        ring.arrived = u64::from(or_zero::<u32>(sk, &OFF_TCP_RCV_NXT));
        ring.consumed = ring.arrived - u64::from(tcp_unread(sk)).min(ring.arrived);
    } else {
        ring.arrived = unix_unread(sk);
    }
    // Last: whoever sees the cookie sees the rest.
    ring.cookie = cookie;
}

#[inline(always)]
fn tcp_unread(sk: *mut c_void) -> u32 {
    let next: u32 = or_zero(sk, &OFF_TCP_RCV_NXT);
    let copied: u32 = field(sk, &OFF_TCP_COPIED_SEQ).unwrap_or(next);
    let unread = next.wrapping_sub(copied);
    if unread > i32::MAX as u32 { 0 } else { unread }
}

#[inline(always)]
fn tcp(sk: *mut c_void, seen: &mut SocketSeen) {
    seen.receive_queue = u64::from(tcp_unread(sk));
    let written: u32 = or_zero(sk, &OFF_TCP_WRITE_SEQ);
    let acknowledged: u32 = field(sk, &OFF_TCP_SND_UNA).unwrap_or(written);
    seen.send_queue = u64::from(written.wrapping_sub(acknowledged));
    seen.local_port = or_zero(sk, &OFF_SK_NUM);
    seen.remote_port = u16::from_be(or_zero(sk, &OFF_SK_DPORT));
    if seen.family == AF_INET {
        let local: u32 = or_zero(sk, &OFF_SK_SADDR);
        let remote: u32 = or_zero(sk, &OFF_SK_DADDR);
        seen.local[..4].copy_from_slice(&local.to_ne_bytes());
        seen.remote[..4].copy_from_slice(&remote.to_ne_bytes());
    } else {
        let local: [u8; 16] = or_zero(sk, &OFF_SK_SADDR6);
        let remote: [u8; 16] = or_zero(sk, &OFF_SK_DADDR6);
        seen.local[..16].copy_from_slice(&local);
        seen.remote[..16].copy_from_slice(&remote);
    }
}

#[inline(always)]
fn unix(sk: *mut c_void, seen: &mut SocketSeen) {
    seen.receive_queue = unix_unread(sk);
    unix_name(sk, &mut seen.local);
    if let Some(peer) = field::<u64>(sk, &OFF_UNIX_PEER)
        && peer != 0
    {
        let peer = peer as *mut c_void;
        seen.send_queue = unix_unread(peer);
        unix_name(peer, &mut seen.remote);
    }
}

#[inline(always)]
fn unix_name(sk: *mut c_void, target: &mut [u8; agent_common::SOCKET_NAME_BYTES]) {
    const FAMILY_BYTES: usize = 2;
    if let Some(address) = field::<u64>(sk, &OFF_UNIX_ADDR)
        && address != 0
    {
        let name = (address as *const u8).wrapping_add(of(&OFF_UNIX_ADDRESS_NAME) + FAMILY_BYTES);
        copy(target, name.cast());
    }
}

/// Bytes that wait in a Unix stream: the kernel's own sum where it keeps one, else a walk over the first buffers.
#[inline(always)]
fn unix_unread(sk: *mut c_void) -> u64 {
    let queue = sk.cast::<u8>().wrapping_add(of(&OFF_SK_RECEIVE_QUEUE)).cast::<c_void>().cast_const();
    let first = or_zero::<u64>(queue, &OFF_SKBHEAD_NEXT);
    if first == 0 || first == queue as u64 {
        return 0;
    }
    let taken = u64::from(or_zero::<u32>(first as *const c_void, &OFF_SKB_UNIX_CONSUMED));
    let sum = if present(&OFF_UNIX_INQ_LEN) {
        u64::from(or_zero::<u32>(sk, &OFF_UNIX_INQ_LEN))
    } else {
        let mut sum = 0;
        let mut buffer = first;
        for _ in 0..WALK {
            if buffer == 0 || buffer == queue as u64 {
                break;
            }
            sum += u64::from(or_zero::<u32>(buffer as *const c_void, &OFF_SKB_LEN));
            buffer = or_zero(buffer as *const c_void, &OFF_SKBHEAD_NEXT);
        }
        sum
    };
    sum.saturating_sub(taken)
}
