//! The two pages, each a file of 4 KiB in host byte order.
//!
//! Settings page, written by the agent, read by the pipeline:
//! `0 magic u64 | 8 abi u32 | 12 n u32 | 16 seq u64 | 64 slot[2] of 128 bytes`, a slot being
//! `expires_boottime_ns u64, generation u64, value[8] u64, reserved`. The slot in force is `seq & 1`.
//!
//! Report page, written by the pipeline, read by the agent with `pread`:
//! `0 magic u64 | 8 abi u32 | 12 n u32 | 16.. words`, the words as [`ReportWord`] names them, all cumulative unless said
//! otherwise, then a histogram of latencies with eight buckets an octave.

use crate::units::Nanos;

/// Size of either page.
pub const PAGE_BYTES: usize = 4096;
/// Version of the settings page.
pub const ABI_VERSION: u32 = 1;
/// Version of the report page. 1 had a histogram of whole octaves, too coarse to hold a 99th percentile against another.
pub const REPORT_ABI_VERSION: u32 = 2;
/// First word of a settings page: "tg-set\0\1".
pub const SETTINGS_MAGIC: u64 = u64::from_le_bytes(*b"tg-set\0\x01");
/// First word of a report page: "tg-rep\0\1".
pub const REPORT_MAGIC: u64 = u64::from_le_bytes(*b"tg-rep\0\x01");
/// Offset of the ABI version (u32), both pages.
pub const SETTINGS_ABI_AT: usize = 8;
/// Offset of the number of values (u32).
pub const SETTINGS_N_AT: usize = 12;
/// Offset of the sequence number.
pub const SETTINGS_SEQ_AT: usize = 16;
/// Offset of the first slot.
pub const SETTINGS_SLOT_AT: usize = 64;
/// Size of a slot.
pub const SETTINGS_SLOT_BYTES: usize = 128;
/// Values a slot can hold.
pub const SETTINGS_VALUES: usize = 8;
/// Index of the batch size among the values, bytes.
pub const VALUE_BATCH_BYTES: usize = 0;
/// Index of the flush interval among the values, microseconds.
pub const VALUE_FLUSH_INTERVAL_US: usize = 1;
/// Names of the values in their order.
pub const VALUE_NAMES: [&str; 2] = ["batch_bytes", "flush_interval_us"];

/// Words of the report page, by index; word `i` lies at byte `16 + 8 * i`.
#[repr(usize)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportWord {
    /// Events taken in.
    EventsIn = 0,
    /// Events acknowledged by the sink.
    EventsOut = 1,
    /// Bytes of the events taken in.
    BytesIn = 2,
    /// Bytes of the events acknowledged, before compression.
    BytesOut = 3,
    /// Flushes acknowledged.
    Flushes = 4,
    /// Flushes because the oldest event was old enough.
    FlushesByAge = 5,
    /// Flushes because the batch was full.
    FlushesBySize = 6,
    /// Flushes that drained a backlog once the sink was free.
    FlushesByBacklog = 7,
    /// Panic flushes: the queue passed 80 % of its capacity.
    FlushesByPanic = 8,
    /// Sum of the durations of acknowledged flushes, ns.
    FlushNs = 9,
    /// Flushes that failed.
    FlushErrors = 10,
    /// Events waiting now (not cumulative).
    QueueEvents = 11,
    /// Bytes waiting now (not cumulative).
    QueueBytes = 12,
    /// Capacity of the queue in bytes (not cumulative).
    QueueCapacity = 13,
    /// Generation of the settings in use, 0 for the pipeline's own defaults (not cumulative).
    Generation = 14,
    /// Batch size in use, bytes (not cumulative).
    BatchBytes = 15,
    /// Flush interval in use, microseconds (not cumulative).
    FlushIntervalUs = 16,
    /// `CLOCK_BOOTTIME` of the last update, ns (not cumulative).
    UpdatedNs = 17,
    /// Events lost.
    EventsLost = 18,
    /// Flushes because the waiting of all queued events together had come to the cost of a flush.
    FlushesByWaiting = 19,
    /// Sum over acknowledged flushes of their bytes squared, modulo 2^64.
    FlushBytesSquared = 20,
    /// Sum over acknowledged flushes of bytes times microseconds, each duration rounded to the nearest, modulo 2^64. One that
    /// is cut instead bends the line through sizes and durations: the sum of durations is of nanoseconds.
    FlushBytesUs = 21,
    /// Sum over acknowledged flushes of microseconds squared, likewise rounded, modulo 2^64.
    FlushUsSquared = 22,
    /// Time that senders had to wait because the queue was full, ns.
    StalledNs = 23,
}

/// Named words of a report.
pub const REPORT_WORDS: usize = 24;
/// Index of the first histogram word.
pub const REPORT_HISTOGRAM_AT: usize = 32;
/// Words of the histogram of events by latency, from arrival to acknowledgement.
///
/// The latency is taken in units of 1,024 ns. Below 8 units word `i` counts latencies of `i` units; above, each octave has
/// eight equal buckets: word `8·(o + 1) + s` counts `(8 + s)·2^o <= units < (9 + s)·2^o` for `s` from 0 to 7. The last
/// word takes what is longer, from 18 minutes.
pub const REPORT_HISTOGRAM_WORDS: usize = 224;
/// Each octave of the histogram has `2^REPORT_HISTOGRAM_SUB_BITS` buckets.
pub const REPORT_HISTOGRAM_SUB_BITS: u32 = 3;
/// A unit of the histogram is `2^REPORT_HISTOGRAM_UNIT_BITS` ns.
pub const REPORT_HISTOGRAM_UNIT_BITS: u32 = 10;

/// Bucket of a latency, as the layout of the page says.
pub fn latency_bucket(latency: Nanos) -> usize {
    let units = latency.0 >> REPORT_HISTOGRAM_UNIT_BITS;
    // Below one octave of buckets every unit has its own: the same formula with nothing shifted away.
    let shift = units.checked_ilog2().unwrap_or(0).saturating_sub(REPORT_HISTOGRAM_SUB_BITS);
    let octave = u64::from(shift) << REPORT_HISTOGRAM_SUB_BITS;
    usize::try_from(octave + (units >> shift)).unwrap_or(usize::MAX).min(REPORT_HISTOGRAM_WORDS - 1)
}
