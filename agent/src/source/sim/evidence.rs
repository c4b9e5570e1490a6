//! What the kernel would have seen of a simulated pipeline: its work in, wire rows out. Never more than it did.

use agent_common::{
    NOT_TOLD, RESIDENCY_BUCKETS, SOCKET_KIND_TCP, SYSCALL_BUCKETS, SocketRow, SocketSeen, SocketStats, SyscallRow,
    TaskRow,
};
use nix::libc;

use crate::event::{RawBatch, encode};
use crate::source::sim::plant::Work;
use crate::units::{Nanos, Pid};

const AF_INET: u16 = 2;
/// Bytes of a simulated pipeline wait this long before it reads them.
const RESIDENCY_US: u64 = 200;
const READ_NS: u64 = 2_000;
const WRITE_NS: u64 = 20_000;

/// Appends the rows of one tick.
pub fn rows(batch: &mut RawBatch, now: Nanos, pid: Pid, work: &Work) {
    let task = TaskRow {
        pid: pid.0,
        threads: 2,
        task_clock_ns: work.cpu_ns,
        context_switches: work.switches,
        page_faults: 100,
        cycles: NOT_TOLD,
        instructions: NOT_TOLD,
    };
    encode::task(batch, now, &task);
    encode::syscall(batch, now, &calls(pid, libc::SYS_read, work.reads, READ_NS));
    encode::syscall(batch, now, &calls(pid, libc::SYS_write, work.writes, WRITE_NS));
    encode::socket(batch, now, &socket(pid, work.reads));
}

fn calls(pid: Pid, nr: libc::c_long, (calls, bytes): (u64, u64), each_ns: u64) -> SyscallRow {
    SyscallRow {
        pid: pid.0,
        nr: u32::try_from(nr).unwrap_or(u32::MAX),
        calls,
        errors: 0,
        restarts: 0,
        result_sum: bytes,
        timed: calls,
        total_ns: calls.saturating_mul(each_ns),
        in_flight: 0,
        histogram: [0; SYSCALL_BUCKETS],
    }
}

fn socket(pid: Pid, (reads, bytes): (u64, u64)) -> SocketRow {
    SocketRow {
        seen: SocketSeen {
            cookie: u64::from(pid.0),
            pid: pid.0,
            fd: 7,
            kind: SOCKET_KIND_TCP,
            family: AF_INET,
            local_port: 9_000,
            remote_port: 40_000,
            inode: u64::from(pid.0) + 100_000,
            receive_limit: 1 << 20,
            send_limit: 1 << 20,
            ..SocketSeen::ZERO
        },
        stats: SocketStats {
            pid: pid.0,
            kind: u32::from(SOCKET_KIND_TCP),
            reads,
            read_bytes: bytes,
            measured_bytes: bytes,
            byte_us: bytes.saturating_mul(RESIDENCY_US),
            unmeasured_bytes: 0,
            merged: 0,
            oldest: [0; RESIDENCY_BUCKETS],
            bytes: [0; RESIDENCY_BUCKETS],
        },
    }
}
