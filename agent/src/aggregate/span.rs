//! What happened within a span: two cumulative rows of the same key in, the row of the time between them out.
//!
//! Levels (queues, calls in flight) are those of the later row. A counter that fell started anew in between, and then all
//! that the later row holds happened since.

use agent_common::{SocketRow, SyscallRow};

/// Calls between two rows; without an earlier one all of them.
pub fn syscalls_since(now: &SyscallRow, then: Option<&SyscallRow>) -> SyscallRow {
    let mut row = *now;
    let Some(then) = then.filter(|then| then.calls <= now.calls && then.timed <= now.timed) else {
        return row;
    };
    row.calls -= then.calls;
    row.timed -= then.timed;
    row.errors = now.errors.saturating_sub(then.errors);
    row.restarts = now.restarts.saturating_sub(then.restarts);
    // A sum may wrap, and the difference is right for all that.
    row.result_sum = now.result_sum.wrapping_sub(then.result_sum);
    row.total_ns = now.total_ns.saturating_sub(then.total_ns);
    for (count, then) in row.histogram.iter_mut().zip(&then.histogram) {
        *count = count.saturating_sub(*then);
    }
    row
}

/// Reads between two rows; without an earlier one all of them.
pub fn socket_since(now: &SocketRow, then: Option<&SocketRow>) -> SocketRow {
    let mut row = *now;
    let Some(then) = then.filter(|t| t.stats.reads <= now.stats.reads && t.stats.read_bytes <= now.stats.read_bytes)
    else {
        return row;
    };
    let (stats, before) = (&mut row.stats, &then.stats);
    stats.reads -= before.reads;
    stats.read_bytes -= before.read_bytes;
    stats.measured_bytes = stats.measured_bytes.saturating_sub(before.measured_bytes);
    stats.byte_us = stats.byte_us.saturating_sub(before.byte_us);
    stats.unmeasured_bytes = stats.unmeasured_bytes.saturating_sub(before.unmeasured_bytes);
    stats.merged = stats.merged.saturating_sub(before.merged);
    for (count, before) in stats.oldest.iter_mut().zip(&before.oldest) {
        *count = count.wrapping_sub(*before);
    }
    for (count, before) in stats.bytes.iter_mut().zip(&before.bytes) {
        *count = count.saturating_sub(*before);
    }
    row.seen.overflows = row.seen.overflows.saturating_sub(then.seen.overflows);
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_common::{RESIDENCY_BUCKETS, SYSCALL_BUCKETS, SocketSeen, SocketStats};

    /// A row of which every counter is a multiple of `n`.
    fn calls(n: u64) -> SyscallRow {
        SyscallRow {
            pid: 7,
            nr: 1,
            calls: 9 * n,
            errors: 2 * n,
            restarts: 3 * n,
            result_sum: 4 * n,
            timed: 8 * n,
            total_ns: 6 * n,
            in_flight: n,
            histogram: [n; SYSCALL_BUCKETS],
        }
    }

    fn socket(n: u32) -> SocketRow {
        let wide = u64::from(n);
        SocketRow {
            seen: SocketSeen { cookie: 1, pid: 7, receive_queue: wide, overflows: 5 * wide, ..SocketSeen::ZERO },
            stats: SocketStats {
                pid: 7,
                kind: 1,
                reads: wide,
                read_bytes: 2 * wide,
                measured_bytes: 3 * wide,
                byte_us: 4 * wide,
                unmeasured_bytes: 6 * wide,
                merged: 7 * wide,
                oldest: [n; RESIDENCY_BUCKETS],
                bytes: [wide; RESIDENCY_BUCKETS],
            },
        }
    }

    #[test]
    fn counters_are_those_of_the_span_and_levels_those_of_its_end() {
        let expected = SyscallRow { in_flight: 5, ..calls(3) };
        assert_eq!(format!("{:?}", syscalls_since(&calls(5), Some(&calls(2)))), format!("{expected:?}"));
        let mut expected = socket(3);
        expected.seen.receive_queue = 5;
        assert_eq!(format!("{:?}", socket_since(&socket(5), Some(&socket(2)))), format!("{expected:?}"));
    }

    #[test]
    fn a_counter_that_began_anew_has_all_it_holds_from_the_span() {
        for then in [None, Some(calls(9))] {
            assert_eq!(syscalls_since(&calls(5), then.as_ref()).calls, 45);
        }
        for then in [None, Some(socket(9))] {
            assert_eq!(socket_since(&socket(5), then.as_ref()).stats.measured_bytes, 15);
        }
    }
}
