//! Wire types between the kernel side and the agent: what a record looks like, byte for byte.
//!
//! Every source (live kernel, recording, simulation) speaks these bytes and `agent::event` decodes them. This crate
//! holds layouts and constants, never logic. All integers are in the byte order of the host; all lengths are bytes.
#![no_std]

mod flow;
mod map;
mod record;
mod sample;
mod sched;
mod unwind;
mod usage;

pub use flow::{
    FLOW_ANSWERED, FLOW_BUCKETS, FLOW_EACH_WRITE, FLOW_READS, FLOW_SYNCS, FLOW_TARGET_BYTES, FLOW_WRITES, FlowCalls,
    FlowFlushes, FlowKey, FlowRow, FlowStats,
};
pub use map::{
    LOSS_REASONS, LossReason, MARKS, MarkRing, PackedStart, RESIDENCY_BUCKETS, RESIDENCY_SUB_BITS, ResidencyMark,
    SCOPE_CGROUPS, SYSCALL_BUCKETS, SYSCALL_FIRST, SYSCALL_KEPT, SYSCALL_SUB_BITS, SocketStats, SyscallKey,
    SyscallStats, WATCH_CPU, WATCH_FLOWS, WATCH_QUEUES, WATCH_SCHED, WATCH_SOCKETS, WATCH_SYSCALLS, WATCHED_CGROUPS,
    WITH_OFFSPRING, WITH_SOCKET_STACKS, WatchedCgroup,
};
pub use record::{
    COMM_BYTES, COMPAT_BIT, LedgerAccount, LedgerRow, LossRow, MAX_FRAMES, MappingRow, ProcessRow, RECORD_ALIGN,
    RecordHeader, RecordKind, ReportHeader, SOCKET_KIND_TCP, SOCKET_KIND_UDP, SOCKET_KIND_UNIX_DATAGRAM,
    SOCKET_KIND_UNIX_PACKET, SOCKET_KIND_UNIX_STREAM, SOCKET_NAME_BYTES, SocketRow, SocketSeen, SyscallRow, TaskRow,
};
pub use sample::{SampleKind, StackSample, ThreadRow, ThreadState, UNWIND_ENDS, UnwindEnd, WAIT_REASONS, WaitReason};
pub use sched::{
    CensusRow, CpuSlot, RunAccount, SchedControl, ThreadTimes, WAIT_BY_FILE, WAIT_CALLS, WAIT_CALLS_COMPAT,
};
pub use unwind::{
    CfaRule, MAPPING_JIT, MAPPING_NO_TABLE, MAPPING_PENDING, MappingEntry, RBP_AT_RBP, RBP_UNDEFINED, RBX_UNKNOWN,
    RULE_BITS, RULE_MASK, SpaceRange, TableRange, UnwindRow,
};
pub use usage::{
    NOT_TOLD, PRESSURE_CPU_FULL, PRESSURE_CPU_SOME, PRESSURE_IO_FULL, PRESSURE_IO_SOME, PRESSURE_MEMORY_FULL,
    PRESSURE_MEMORY_SOME, UsageRow,
};

/// Types that are sent as their own bytes.
///
/// # Safety
/// `repr(C)`, only integers and arrays of integers, no padding, valid for every bit pattern.
pub unsafe trait Wire: Copy {
    /// Its bytes.
    fn as_bytes(&self) -> &[u8] {
        // SAFETY: the implementor has no padding, so every byte is initialised; the lifetime is that of `self`.
        unsafe { core::slice::from_raw_parts(core::ptr::from_ref(self).cast(), size_of::<Self>()) }
    }

    /// From the first bytes of `bytes`, or `None` when there are too few.
    fn from_prefix(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (head, rest) = bytes.split_at_checked(size_of::<Self>())?;
        // SAFETY: `head` has the right length, every bit pattern is valid, and the read does not assume alignment.
        Some((unsafe { core::ptr::read_unaligned(head.as_ptr().cast()) }, rest))
    }
}

macro_rules! wire {
    ($($t:ty),* $(,)?) => {
        // SAFETY: each is `repr(C)` of integers and ordered so that no padding arises; the sizes below prove it.
        $(unsafe impl Wire for $t {})*
    };
}

wire!(
    RecordHeader,
    StackSample,
    ThreadRow,
    ThreadTimes,
    CpuSlot,
    RunAccount,
    SchedControl,
    CensusRow,
    SyscallRow,
    SocketRow,
    LossRow,
    LedgerRow,
    TaskRow,
    MappingRow,
    ProcessRow,
    ReportHeader,
    SyscallKey,
    SyscallStats,
    MarkRing,
    ResidencyMark,
    SocketStats,
    SocketSeen,
    WatchedCgroup,
    UnwindRow,
    TableRange,
    MappingEntry,
    SpaceRange,
    FlowKey,
    FlowCalls,
    FlowFlushes,
    FlowStats,
    FlowRow,
    UsageRow
);

const _: () = {
    assert!(size_of::<RecordHeader>() == 16);
    assert!(size_of::<StackSample>() == 24 + 2 * 8 + 4 * 2 + 6 * 4 + 3 * 8);
    assert!(size_of::<ThreadRow>() == 24 + 4 * 8 + 8 + 3 * 8 + 8 * WAIT_REASONS);
    assert!(size_of::<ThreadTimes>() == 16 + 9 * 8 + 8 * WAIT_REASONS);
    assert!(size_of::<CpuSlot>() == 32);
    assert!(size_of::<RunAccount>() == 16);
    assert!(size_of::<SchedControl>() == 24);
    assert!(size_of::<CensusRow>() == 8 + size_of::<ThreadRow>() + 6 * 8 + 8);
    assert!(size_of::<UnwindRow>() == 8);
    assert!(size_of::<MappingEntry>() == 32);
    assert!(size_of::<SpaceRange>() == 8);
    assert!(size_of::<LedgerRow>() == 64);
    assert!(size_of::<SyscallRow>() == 8 + 7 * 8 + 8 * SYSCALL_BUCKETS);
    assert!(size_of::<SyscallStats>() == 6 * 8 + 4 * SYSCALL_KEPT);
    assert!(size_of::<SocketStats>() == 8 + 6 * 8 + 12 * RESIDENCY_BUCKETS);
    assert!(size_of::<SocketSeen>() == 8 + 8 + 8 + 8 + 2 * SOCKET_NAME_BYTES + 5 * 8);
    assert!(size_of::<LossRow>() == 16);
    assert!(size_of::<TaskRow>() == 48);
    assert!(size_of::<ProcessRow>() == 32);
    assert!(size_of::<MappingRow>() == 48);
    assert!(size_of::<ReportHeader>() == 8);
    assert!(size_of::<FlowFlushes>() == 18 * 8 + 2 * 4 * FLOW_BUCKETS);
    assert!(size_of::<FlowStats>() == 4 * 8 + 3 * 6 * 8 + 3 * 8 + 2 * size_of::<FlowFlushes>() + 8);
    assert!(size_of::<UsageRow>() == 3 * 8 + 12 * 8);
    assert!(size_of::<FlowRow>() == 16 + FLOW_TARGET_BYTES + size_of::<FlowStats>());
    assert!(size_of::<MarkRing>() == 5 * 8 + 8 + MARKS * size_of::<ResidencyMark>());
    // Even, so that the u32 histograms leave no hole before the next u64.
    assert!(SYSCALL_KEPT.is_multiple_of(2) && RESIDENCY_BUCKETS.is_multiple_of(2));
};
