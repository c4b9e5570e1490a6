//! Rows of the kernel in, rows for people out: names instead of numbers, quantiles instead of buckets.
//!
//! The kernel's counters run on for as long as its probes are loaded. A listing of a span is made from the rows at both
//! of its ends, and leaves out what did not happen in it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use agent_common::{
    COMPAT_BIT, RESIDENCY_SUB_BITS, SOCKET_KIND_TCP, SOCKET_KIND_UDP, SOCKET_KIND_UNIX_DATAGRAM,
    SOCKET_KIND_UNIX_PACKET, SOCKET_NAME_BYTES, SYSCALL_SUB_BITS, SocketRow, SyscallRow,
};
use syscalls::Sysno;

use super::view::{Listed, SocketJson, SyscallJson};
use crate::aggregate::byte_counts::moves_bytes;
use crate::aggregate::histogram::quantile;
use crate::aggregate::span::{socket_since, syscalls_since};
use crate::event::Comm;
use crate::units::Pid;

const AF_INET: u16 = 2;

/// Name of a call: as the manual pages spell it, `NAME(32)` for 32-bit programs, `syscall_N` for a number without one.
pub fn syscall_name(nr: u32) -> String {
    if nr == u32::MAX {
        // A signal handler's return leaves −1 behind instead of its number.
        return "rt_sigreturn".to_owned();
    }
    if nr & COMPAT_BIT != 0 {
        return format!("syscall_{}(32)", nr & !COMPAT_BIT);
    }
    match Sysno::new(nr as usize) {
        Some(name) => name.name().to_owned(),
        None => format!("syscall_{nr}"),
    }
}

/// A row of the system call listing.
pub fn syscall_row(row: &SyscallRow, comm: String) -> SyscallJson {
    let syscall = syscall_name(row.nr);
    let bytes = moves_bytes(row.nr).then_some(row.result_sum);
    SyscallJson {
        pid: row.pid,
        comm,
        calls: row.calls,
        in_flight: row.in_flight,
        errors: row.errors,
        restarts: row.restarts,
        bytes,
        total_ns: total_ns(row),
        p50_ns: quantile(&row.histogram, SYSCALL_SUB_BITS, 0.5),
        p99_ns: quantile(&row.histogram, SYSCALL_SUB_BITS, 0.99),
        untimed: row.calls.saturating_sub(row.timed),
        syscall,
    }
}

/// Name of a kind of socket.
fn socket_kind(kind: u16) -> &'static str {
    match kind {
        SOCKET_KIND_TCP => "tcp",
        SOCKET_KIND_UDP => "udp",
        SOCKET_KIND_UNIX_DATAGRAM => "unixgram",
        SOCKET_KIND_UNIX_PACKET => "unixpacket",
        _ => "unix",
    }
}

/// Time spent in all calls, as if those that were not timed took as long as those that were.
fn total_ns(row: &SyscallRow) -> Option<u64> {
    let all = u128::from(row.total_ns) * u128::from(row.calls);
    all.checked_div(u128::from(row.timed)).map(|ns| u64::try_from(ns).unwrap_or(u64::MAX))
}

/// A row of the socket listing.
pub fn socket_row(row: &SocketRow, comm: String) -> SocketJson {
    let SocketRow { seen, stats } = row;
    let inet_kind = matches!(seen.kind, SOCKET_KIND_TCP | SOCKET_KIND_UDP);
    let oldest: Vec<u64> = stats.oldest.iter().map(|c| u64::from(*c)).collect();
    let end = |address: &[u8; SOCKET_NAME_BYTES], port| {
        if inet_kind { inet(seen.family, address, port) } else { unix(address) }
    };
    SocketJson {
        pid: seen.pid,
        comm,
        fd: (seen.fd >= 0).then_some(seen.fd),
        kind: socket_kind(seen.kind),
        local: end(&seen.local, seen.local_port),
        remote: end(&seen.remote, seen.remote_port),
        inode: seen.inode,
        receive_queue_bytes: seen.receive_queue,
        send_queue_bytes: seen.send_queue,
        reads: stats.reads,
        read_bytes: stats.read_bytes,
        oldest_p50_ns: quantile(&oldest, RESIDENCY_SUB_BITS, 0.5),
        oldest_p99_ns: quantile(&oldest, RESIDENCY_SUB_BITS, 0.99),
        mean_ns: stats.byte_us.checked_div(stats.measured_bytes).map(|us| us.saturating_mul(1000)),
        p50_ns: quantile(&stats.bytes, RESIDENCY_SUB_BITS, 0.5),
        p99_ns: quantile(&stats.bytes, RESIDENCY_SUB_BITS, 0.99),
        unmeasured_bytes: stats.unmeasured_bytes,
        overflows: seen.overflows,
    }
}

/// Calls within a span, dearest first: the rows at its start and at its end, of one process or of all. `lives` tells
/// whether a process is still there: one that is gone has no call in flight, whatever its last row says.
pub fn syscalls_between(
    then: &[Listed<SyscallRow>],
    now: &[Listed<SyscallRow>],
    pid: Option<Pid>,
    lives: impl Fn(Pid) -> bool,
) -> Vec<SyscallJson> {
    let before: HashMap<_, _> = then.iter().map(|l| ((l.row.pid, l.row.nr), &*l.row)).collect();
    let mut living = HashMap::new();
    let mut rows: Vec<SyscallJson> = now
        .iter()
        .filter(|l| pid.is_none_or(|pid| l.row.pid == pid.0))
        .filter_map(|l| {
            let mut row = syscalls_since(&l.row, before.get(&(l.row.pid, l.row.nr)).copied());
            if row.in_flight > 0 && !*living.entry(row.pid).or_insert_with(|| lives(Pid(row.pid))) {
                row.in_flight = 0;
            }
            (row.calls > 0 || row.in_flight > 0).then(|| syscall_row(&row, name(l.comm)))
        })
        .collect();
    rows.sort_by(|a, b| b.total_ns.cmp(&a.total_ns).then_with(|| (a.pid, &a.syscall).cmp(&(b.pid, &b.syscall))));
    rows
}

/// Sockets of a process within a span, by descriptor: the rows at its start and at its end.
pub fn sockets_between(then: &[Listed<SocketRow>], now: &[Listed<SocketRow>], pid: Pid) -> Vec<SocketJson> {
    let before: HashMap<_, _> = then.iter().map(|l| (l.row.seen.cookie, &l.row)).collect();
    let mut rows: Vec<SocketJson> = now
        .iter()
        .filter(|l| l.row.seen.pid == pid.0)
        .filter_map(|l| {
            let then = before.get(&l.row.seen.cookie).copied();
            // An open socket is told at every tick: one that was not is left over from an earlier watch.
            if then.is_some_and(|then| Arc::ptr_eq(then, &l.row)) {
                return None;
            }
            let row = socket_since(&l.row, then.map(AsRef::as_ref));
            (row.seen.fd >= 0 || row.stats.reads > 0).then(|| socket_row(&row, name(l.comm)))
        })
        .collect();
    rows.sort_by_key(|row| (row.fd.unwrap_or(i32::MAX), row.inode));
    rows
}

fn name(comm: Option<Comm>) -> String {
    comm.map_or_else(|| "?".to_owned(), |comm| comm.to_text())
}

fn inet(family: u16, address: &[u8; SOCKET_NAME_BYTES], port: u16) -> String {
    if family == 0 {
        return "-".to_owned(); // Closed before it was looked at.
    }
    let ip = if family == AF_INET {
        let [a, b, c, d, ..] = *address;
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    } else {
        let octets = address.first_chunk::<16>().copied().unwrap_or_default();
        Ipv6Addr::from(octets).to_canonical()
    };
    SocketAddr::new(ip, port).to_string()
}

/// A path, `@name` for an abstract one, `-` for a socket without a name.
fn unix(name: &[u8; SOCKET_NAME_BYTES]) -> String {
    let text = |bytes: &[u8]| {
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).chars().filter(|c| !c.is_control()).collect::<String>()
    };
    match name {
        [0, 0, ..] => "-".to_owned(),
        [0, rest @ ..] => format!("@{}", text(rest)),
        path => text(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_their_manual_names_and_unknown_ones_their_number() {
        assert_eq!(syscall_name(39), "getpid");
        assert_eq!(syscall_name(110), "getppid");
        assert_eq!(syscall_name(100_000), "syscall_100000");
        assert_eq!(syscall_name(5 | COMPAT_BIT), "syscall_5(32)");
    }

    #[test]
    fn names_of_unix_sockets_never_carry_control_characters() {
        let mut name = [0; SOCKET_NAME_BYTES];
        assert_eq!(unix(&name), "-");
        name[..6].copy_from_slice(b"/a\x1b\nb\0");
        assert_eq!(unix(&name), "/ab");
        name[..4].copy_from_slice(b"\0abc");
        name[4..].fill(0);
        assert_eq!(unix(&name), "@abc");
    }
}
