//! Walks the descriptors of watched processes: finds their sockets, makes marks of those whose reads are followed, and
//! writes one [`SocketSeen`] each. It follows the task and so sees into every network namespace.

use core::ffi::c_void;

use agent_common::{
    LossReason, SOCKET_KIND_TCP, SOCKET_KIND_UDP, SOCKET_KIND_UNIX_STREAM, SocketSeen, SocketStats, WATCH_QUEUES,
    WATCH_SOCKETS,
};
use aya_ebpf::bindings::{BPF_NOEXIST, BPF_SK_STORAGE_GET_F_CREATE, seq_file};
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_seq_write, bpf_sock_from_file};

use crate::kernel_read::{copy, field, or_zero};
use crate::maps::{SOCKETS, lost, watched};
use crate::offsets::*;
use crate::probes::sock::marks;
use crate::receive_queue::{kind_of, takes_messages, waiting_bytes, waiting_messages, walk};

const AF_INET: u16 = 2;

static NO_STATS: SocketStats = SocketStats::UNFOLLOWED;

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
    let follows = watched(tgid, WATCH_SOCKETS);
    if !follows && !watched(tgid, WATCH_QUEUES) {
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
    let Some(kind) = kind_of(sk) else { return 0 };
    if follows {
        adopt(sk, tgid);
    }
    let mut seen = SocketSeen::ZERO;
    // SAFETY: `sk` is a trusted pointer to a socket.
    seen.cookie = unsafe { bpf_get_socket_cookie(sk) };
    seen.pid = tgid;
    seen.fd = fd as i32;
    seen.kind = kind;
    seen.family = or_zero(sk, &OFF_SK_FAMILY);
    seen.receive_limit = u64::from(or_zero::<u32>(sk, &OFF_SK_RCVBUF));
    seen.send_limit = u64::from(or_zero::<u32>(sk, &OFF_SK_SNDBUF));
    seen.overflows = overflows(sk);
    let inode: u64 = or_zero(file, &OFF_FILE_INODE);
    seen.inode = or_zero(inode as *const c_void, &OFF_INODE_INO);
    match kind {
        SOCKET_KIND_TCP => tcp(sk, &mut seen),
        SOCKET_KIND_UDP => udp(sk, &mut seen),
        _ => unix(sk, &mut seen),
    }
    // SAFETY: `seq` is valid while the iterator runs, `seen` is fully initialised.
    unsafe { bpf_seq_write((*(*ctx).meta).seq, (&raw const seen).cast(), size_of::<SocketSeen>() as u32) };
    0
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
    let Some(kind) = kind_of(sk) else { return };
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
    } else if takes_messages(ring.kind) {
        ring.arrived = waiting_messages(sk, ring.kind);
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
    inet_ends(sk, seen);
}

#[inline(always)]
fn udp(sk: *mut c_void, seen: &mut SocketSeen) {
    seen.receive_queue = waiting_bytes(sk, u32::from(SOCKET_KIND_UDP));
    // What the socket has allocated to send, with the kernel's own overhead; the socket itself holds one.
    seen.send_queue = u64::from(or_zero::<u32>(sk, &OFF_SK_WMEM_ALLOC)).saturating_sub(1);
    inet_ends(sk, seen);
}

#[inline(always)]
fn inet_ends(sk: *mut c_void, seen: &mut SocketSeen) {
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
    let stream = seen.kind == SOCKET_KIND_UNIX_STREAM;
    seen.receive_queue = if stream { unix_unread(sk) } else { waiting_bytes(sk, u32::from(seen.kind)) };
    unix_name(sk, &mut seen.local);
    if let Some(peer) = field::<u64>(sk, &OFF_UNIX_PEER)
        && peer != 0
    {
        let peer = peer as *mut c_void;
        // A socket for datagrams may have one peer of many senders.
        seen.send_queue = if stream { unix_unread(peer) } else { 0 };
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
    let sum = if present(&OFF_UNIX_INQ_LEN) { u64::from(or_zero::<u32>(sk, &OFF_UNIX_INQ_LEN)) } else { walk(queue) };
    sum.saturating_sub(taken)
}

/// Messages that found no room. Since 6.18 a UDP socket counts them in two places that it points to.
#[inline(always)]
fn overflows(sk: *mut c_void) -> u64 {
    let own = u64::from(or_zero::<u32>(sk, &OFF_SK_DROPS));
    if !present(&OFF_SK_DROP_COUNTERS) || !present(&OFF_DROPS_0) || !present(&OFF_DROPS_1) {
        return own;
    }
    let counters: u64 = or_zero(sk, &OFF_SK_DROP_COUNTERS);
    if counters == 0 {
        return own;
    }
    let counters = counters as *const c_void;
    u64::from(or_zero::<u32>(counters, &OFF_DROPS_0)) + u64::from(or_zero::<u32>(counters, &OFF_DROPS_1))
}
