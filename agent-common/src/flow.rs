//! What a watched process moves through each of its descriptors: counters of calls, and sums over flushes.
//!
//! A flush of a sink that answers is the run of writes on a descriptor up to the end of the first read that brings
//! something on it, or of a sync: from the first write's entry to that call's return. Where nothing answers each write is
//! one. Both accounts are kept side by side; which of them describes a sink is decided where the rows are read.

/// Buckets of the histograms of gaps and sizes: bucket 0 counts zero, bucket `i` what lies in `2^(i-1)..2^i`, the last
/// what is above too.
pub const FLOW_BUCKETS: usize = 32;
/// [`FlowStats::ways`]: calls that took bytes in.
pub const FLOW_READS: usize = 0;
/// [`FlowStats::ways`]: calls that put bytes out.
pub const FLOW_WRITES: usize = 1;
/// [`FlowStats::ways`]: fsync and fdatasync.
pub const FLOW_SYNCS: usize = 2;
/// [`FlowStats::flushes`]: runs of writes up to their answer.
pub const FLOW_ANSWERED: usize = 0;
/// [`FlowStats::flushes`]: each write by itself.
pub const FLOW_EACH_WRITE: usize = 1;
/// Bytes kept of what a descriptor leads to.
pub const FLOW_TARGET_BYTES: usize = 96;

/// Key of a flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Process.
    pub pid: u32,
    /// Descriptor.
    pub fd: u32,
    /// `CLOCK_MONOTONIC` at which it was closed or replaced; 0 while it is open.
    pub ended_ns: u64,
}

/// Calls of one kind on one descriptor.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCalls {
    /// Calls that returned.
    pub calls: u64,
    /// Bytes that they moved.
    pub bytes: u64,
    /// Returned with an error other than `EAGAIN`, restarts not counted.
    pub errors: u64,
    /// Returned with `EAGAIN`: there was nothing, or no room.
    pub again: u64,
    /// Calls whose duration is in `total_ns`.
    pub timed: u64,
    /// Sum of durations.
    pub total_ns: u64,
}

/// Sums over flushes. Those of squares and products wrap.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowFlushes {
    /// Flushes.
    pub flushes: u64,
    /// Sum of their bytes.
    pub bytes: u64,
    /// Sum of bytes squared, modulo 2^64.
    pub bytes_squared: u64,
    /// Sum of durations, ns.
    pub duration_ns: u64,
    /// Sum of bytes times microseconds, each duration rounded to the nearest, modulo 2^64.
    pub bytes_us: u64,
    /// Sum of microseconds squared, likewise rounded, modulo 2^64.
    pub us_squared: u64,
    /// Flushes that had one before them.
    pub intervals: u64,
    /// Sum over them of the time since that one began, whole microseconds.
    pub interval_us: u64,
    /// Sum of its square, modulo 2^64.
    pub interval_us_squared: u64,
    /// Sum over them of the time since that one ended, ns.
    pub gap_ns: u64,
    /// Sum over them of the bytes that the process took in by other descriptors since that one began: what the flush is
    /// made of, where a flush takes all that waits.
    pub arrived: u64,
    /// Sum of its square, modulo 2^64.
    pub arrived_squared: u64,
    /// Sum of it times microseconds of duration, modulo 2^64.
    pub arrived_us: u64,
    /// Sum over them of durations, ns.
    pub paired_ns: u64,
    /// Sum over them of microseconds squared, modulo 2^64.
    pub paired_us_squared: u64,
    /// Bytes that the process had taken in by other descriptors when the last one began.
    pub last_taken: u64,
    /// When the last one began.
    pub last_begin_ns: u64,
    /// When the last one ended.
    pub last_end_ns: u64,
    /// By the time since the one before ended, microseconds.
    pub gaps: [u32; FLOW_BUCKETS],
    /// By size, bytes.
    pub sizes: [u32; FLOW_BUCKETS],
}

/// What was seen of one descriptor since it was first used under the watch.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowStats {
    /// Equal to `version_end` unless the flushes were being written while this was read. First, because it is read first.
    pub version_begin: u64,
    /// When it was first used under the watch: tells a descriptor from the one that had its number before.
    pub first_ns: u64,
    /// When a call on it last returned.
    pub last_ns: u64,
    /// Messages moved by calls that do not return their bytes (sendmmsg, recvmmsg).
    pub untold: u64,
    /// By kind of call.
    pub ways: [FlowCalls; 3],
    /// When the run of writes began that has no answer yet; 0 when there is none.
    pub open_ns: u64,
    /// Bytes of that run.
    pub open_bytes: u64,
    /// Bytes that the process had taken in by other descriptors when it began.
    pub open_taken: u64,
    /// The two accounts of flushes.
    pub flushes: [FlowFlushes; 2],
    /// See `version_begin`. Last, because it is read last.
    pub version_end: u64,
}

impl FlowCalls {
    /// All zero.
    pub const ZERO: Self = Self { calls: 0, bytes: 0, errors: 0, again: 0, timed: 0, total_ns: 0 };
}

impl FlowFlushes {
    /// All zero.
    pub const ZERO: Self = Self {
        flushes: 0,
        bytes: 0,
        bytes_squared: 0,
        duration_ns: 0,
        bytes_us: 0,
        us_squared: 0,
        intervals: 0,
        interval_us: 0,
        interval_us_squared: 0,
        gap_ns: 0,
        arrived: 0,
        arrived_squared: 0,
        arrived_us: 0,
        paired_ns: 0,
        paired_us_squared: 0,
        last_taken: 0,
        last_begin_ns: 0,
        last_end_ns: 0,
        gaps: [0; FLOW_BUCKETS],
        sizes: [0; FLOW_BUCKETS],
    };
}

impl FlowStats {
    /// All zero.
    pub const ZERO: Self = Self {
        version_begin: 0,
        first_ns: 0,
        last_ns: 0,
        untold: 0,
        ways: [FlowCalls::ZERO; 3],
        open_ns: 0,
        open_bytes: 0,
        open_taken: 0,
        flushes: [FlowFlushes::ZERO; 2],
        version_end: 0,
    };
}

/// One descriptor of a watched process: who, where it leads, and its counters, cumulative since `first_ns`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowRow {
    /// Which.
    pub key: FlowKey,
    /// Where it leads, as /proc shows it, cut and padded with zeros; all zero when that was not to be had.
    pub target: [u8; FLOW_TARGET_BYTES],
    /// Its counters.
    pub stats: FlowStats,
}
