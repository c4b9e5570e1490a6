//! Residency of bytes in a receive queue: first in, first out, by byte.
//!
//! The arrival side appends marks (a run of bytes and when its first and last byte came), the reading side retires them,
//! each weighted by its bytes. With all marks in use the newest one is extended; inside a mark arrival is taken as even,
//! which for a steady sender is the truth. Stamping only the first arrival would lie when reads are partial.

use core::ffi::c_void;

use agent_common::{MARKS, MarkRing, RESIDENCY_BUCKETS, RESIDENCY_SUB_BITS, ResidencyMark, SocketStats};

use aya_ebpf::helpers::generated::bpf_loop;

use crate::bucket::bucket;

const SLOT: u64 = MARKS as u64 - 1;

/// Bytes up to position `end` have arrived by `now`. Called by the arrival side only. True when a mark was extended.
#[inline(always)]
pub fn arrive(ring: &mut MarkRing, end: u64, now: u64) -> bool {
    let begin = ring.arrived;
    if end <= begin {
        return false;
    }
    let full = ring.head.wrapping_sub(ring.tail) >= MARKS as u64;
    if full {
        let newest = &mut ring.marks[(ring.head.wrapping_sub(1) & SLOT) as usize];
        newest.end = end;
        newest.last_ns = now;
    } else {
        ring.marks[(ring.head & SLOT) as usize] = ResidencyMark { begin, end, first_ns: now, last_ns: now };
        ring.head += 1;
    }
    ring.arrived = end;
    full
}

/// What the loop over the marks works on.
struct Retire {
    ring: *mut MarkRing,
    stats: *mut SocketStats,
    end: u64,
    each: u64,
    now: u64,
    oldest_seen: bool,
}

/// What lies before position `end` has been read at `now`, with `each` bytes a position. Called by the reading side only.
#[inline(always)]
pub fn consume(ring: &mut MarkRing, stats: &mut SocketStats, end: u64, each: u64, now: u64) {
    if end <= ring.consumed {
        return;
    }
    stats.reads += 1;
    stats.read_bytes += (end - ring.consumed) * each;
    let mut retire = Retire { ring, stats, end, each, now, oldest_seen: false };
    // A helper rather than a loop: the verifier walks the body once, not once for each of the marks.
    // SAFETY: the callback has the prototype that the helper wants, and its context outlives the call.
    unsafe { bpf_loop(MARKS as u32, retire_mark as *mut c_void, (&raw mut retire).cast(), 0) };
    // SAFETY: they were references a moment ago, and the callback has returned.
    let (ring, stats) = unsafe { (&mut *retire.ring, &mut *retire.stats) };
    if ring.consumed < end {
        // What lies below `arrived` has no mark: it waited before the socket was watched, for nobody knows how long. What
        // lies above was read before its arrival was noted, on another CPU at the same moment: it did not wait.
        let bytes = end - ring.consumed;
        if ring.arrived < end {
            let early = end - max(ring.arrived, ring.consumed);
            weigh(stats, 0, early * each);
            stats.unmeasured_bytes += (bytes - early) * each;
            ring.arrived = end;
        } else {
            stats.unmeasured_bytes += bytes * each;
        }
        ring.consumed = end;
    }
}

/// Retires the oldest mark as far as the read reaches. Returns 1 when the read is used up.
extern "C" fn retire_mark(_index: u32, retire: *mut Retire) -> i64 {
    // SAFETY: the context that `consume` passed.
    let retire = unsafe { &mut *retire };
    // SAFETY: the map values that it points to.
    let (ring, stats) = unsafe { (&mut *retire.ring, &mut *retire.stats) };
    let end = retire.end;
    if ring.consumed >= end || ring.tail == ring.head {
        return 1;
    }
    let mark = ring.marks[(ring.tail & SLOT) as usize];
    if ring.consumed < mark.begin {
        // These waited before the socket was watched.
        let unknown = min(end, mark.begin) - ring.consumed;
        stats.unmeasured_bytes += unknown * retire.each;
        ring.consumed += unknown;
    }
    if ring.consumed < end && ring.consumed < mark.end {
        let upto = min(end, mark.end);
        let first = arrival(&mark, ring.consumed);
        let last = arrival(&mark, upto);
        if !retire.oldest_seen {
            retire.oldest_seen = true;
            let index = bucket(retire.now.saturating_sub(first), RESIDENCY_SUB_BITS, RESIDENCY_BUCKETS);
            if index < RESIDENCY_BUCKETS {
                stats.oldest[index] += 1;
            }
        }
        weigh(stats, retire.now.saturating_sub(first / 2 + last / 2), (upto - ring.consumed) * retire.each);
        ring.consumed = upto;
    }
    if ring.consumed >= mark.end {
        ring.tail += 1;
    }
    0
}

#[inline(always)]
fn weigh(stats: &mut SocketStats, age: u64, bytes: u64) {
    stats.measured_bytes += bytes;
    stats.byte_us = stats.byte_us.wrapping_add((age / 1000).wrapping_mul(bytes));
    let index = bucket(age, RESIDENCY_SUB_BITS, RESIDENCY_BUCKETS);
    if index < RESIDENCY_BUCKETS {
        stats.bytes[index] += bytes;
    }
}

/// Arrival of the byte at `position`, even inside the mark. In microseconds, so that the product cannot overflow.
#[inline(always)]
fn arrival(mark: &ResidencyMark, position: u64) -> u64 {
    let length = mark.end.wrapping_sub(mark.begin);
    let span = mark.last_ns.wrapping_sub(mark.first_ns);
    if length == 0 || span == 0 {
        return mark.first_ns;
    }
    let part = min(position.wrapping_sub(mark.begin), length);
    mark.first_ns + (span / 1000) * part / length * 1000
}

#[inline(always)]
fn min(a: u64, b: u64) -> u64 {
    if a < b { a } else { b }
}

#[inline(always)]
fn max(a: u64, b: u64) -> u64 {
    if a > b { a } else { b }
}
