//! Map values: what the probes keep in the kernel and the agent reads on each tick.

use crate::COMM_BYTES;

/// Sub-buckets per octave of a latency histogram are 2 to this power: 12 % resolution.
pub const SYSCALL_SUB_BITS: u32 = 2;
/// Buckets of a latency histogram: values up to 2^42 ns (73 minutes).
pub const SYSCALL_BUCKETS: usize = (42 - SYSCALL_SUB_BITS as usize + 1) << SYSCALL_SUB_BITS;
/// The first bucket that the kernel keeps: what took less than 2^6 ns (nothing does) is counted there.
pub const SYSCALL_FIRST: usize = (6 - SYSCALL_SUB_BITS as usize + 1) << SYSCALL_SUB_BITS;
/// Buckets that the kernel keeps: up to 2^36 ns (68 s), and what took longer in the last.
pub const SYSCALL_KEPT: usize = ((36 - SYSCALL_SUB_BITS as usize + 1) << SYSCALL_SUB_BITS) - SYSCALL_FIRST;
/// Sub-buckets per octave of a residency histogram are 2 to this power: 3 % resolution.
pub const RESIDENCY_SUB_BITS: u32 = 4;
/// Buckets of a residency histogram: values up to 2^42 ns.
pub const RESIDENCY_BUCKETS: usize = (42 - RESIDENCY_SUB_BITS as usize + 1) << RESIDENCY_SUB_BITS;
/// Arrival marks kept per socket.
pub const MARKS: usize = 16;

/// Cgroups that can be watched at once.
pub const WATCHED_CGROUPS: usize = 16;
/// From this bit on the scope says for which probes there are watched cgroups.
pub const SCOPE_CGROUPS: u32 = 16;

/// Bit of a watched process that wants CPU samples; also the bit of the scope that means the whole host.
pub const WATCH_CPU: u32 = 1;
/// Likewise, system calls.
pub const WATCH_SYSCALLS: u32 = 2;
/// Likewise, sockets.
pub const WATCH_SOCKETS: u32 = 4;
/// Likewise, waiting and thread totals.
pub const WATCH_SCHED: u32 = 8;
/// Likewise, what moves through each descriptor.
pub const WATCH_FLOWS: u32 = 16;
/// Likewise, the queues of sockets: how much waits in them, not how long.
pub const WATCH_QUEUES: u32 = 32;
/// Bit of the scope alone, above those of processes and below those of cgroups: the stacks of those who read from watched
/// sockets are wanted.
pub const WITH_SOCKET_STACKS: u32 = 1 << 15;
/// Bit of the scope alone, likewise: what is born to a watched process is watched.
pub const WITH_OFFSPRING: u32 = 1 << 14;

/// A cgroup whose processes are watched, and those of the cgroups below it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchedCgroup {
    /// Its id; 0 ends the list.
    pub id: u64,
    /// Its depth below the root, which has 0.
    pub level: u32,
    /// For which probes.
    pub bits: u32,
}

/// Key of the system call counters.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SyscallKey {
    /// Process id.
    pub pid: u32,
    /// Call number, with [`crate::COMPAT_BIT`].
    pub nr: u32,
}

/// Per-CPU counters of one (process, system call); the fields are those of [`crate::SyscallRow`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SyscallStats {
    /// Calls that have returned.
    pub calls: u64,
    /// Returned with an error.
    pub errors: u64,
    /// To be restarted by the kernel.
    pub restarts: u64,
    /// Sum of the positive results.
    pub result_sum: u64,
    /// Calls with a latency.
    pub timed: u64,
    /// Sum of latencies.
    pub total_ns: u64,
    /// Latencies, from bucket [`SYSCALL_FIRST`] on.
    pub histogram: [u32; SYSCALL_KEPT],
}

/// A latency slot: thread id (22 bits) over the start time (42 bits of nanoseconds), in one word so that two
/// threads that share a slot can never mix their halves.
pub type PackedStart = u64;

/// A run of bytes that arrived between two times, evenly as far as is known.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ResidencyMark {
    /// Stream position of its first byte.
    pub begin: u64,
    /// Stream position after its last byte.
    pub end: u64,
    /// Arrival of its first byte, ns.
    pub first_ns: u64,
    /// Arrival of its last byte, ns.
    pub last_ns: u64,
}

/// Arrival marks of a socket, in socket storage: the sender's side appends, the reader's side retires.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MarkRing {
    /// Key of the socket's [`SocketStats`].
    pub cookie: u64,
    /// Marks ever appended.
    pub head: u64,
    /// Marks ever retired.
    pub tail: u64,
    /// Position up to which arrival is marked.
    pub arrived: u64,
    /// Position up to which bytes were read.
    pub consumed: u64,
    /// `SOCKET_KIND_…`.
    pub kind: u32,
    /// Process that was watched when the socket was found.
    pub pid: u32,
    /// The marks, a ring.
    pub marks: [ResidencyMark; MARKS],
}

/// Residency of what was read from one socket.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SocketStats {
    /// Process that was watched when the socket was found; 0 of a socket of which only the queue is looked at.
    pub pid: u32,
    /// `SOCKET_KIND_…`.
    pub kind: u32,
    /// Reads that took bytes.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes read whose arrival was seen.
    pub measured_bytes: u64,
    /// Sum over measured bytes of microseconds waited.
    pub byte_us: u64,
    /// Bytes read whose arrival was not seen (they waited before the probe was attached).
    pub unmeasured_bytes: u64,
    /// Marks merged because the ring was full: their arrival times are interpolated.
    pub merged: u64,
    /// Reads by the age of the oldest byte taken, log-linear with [`RESIDENCY_SUB_BITS`].
    pub oldest: [u32; RESIDENCY_BUCKETS],
    /// Bytes by their age, same buckets.
    pub bytes: [u64; RESIDENCY_BUCKETS],
}

impl SocketStats {
    /// Of a socket whose reads nobody follows.
    pub const UNFOLLOWED: Self = Self {
        pid: 0,
        kind: 0,
        reads: 0,
        read_bytes: 0,
        measured_bytes: 0,
        byte_us: 0,
        unmeasured_bytes: 0,
        merged: 0,
        oldest: [0; RESIDENCY_BUCKETS],
        bytes: [0; RESIDENCY_BUCKETS],
    };

    /// Whether its reads are followed.
    pub const fn is_followed(&self) -> bool {
        self.pid != 0
    }
}

/// Why something was lost. The kernel side counts each; the agent shows each.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossReason {
    /// The ring buffer had no room for a sample.
    RingFull = 0,
    /// The per-CPU scratch record was not to be had.
    ScratchMissing = 1,
    /// The kernel stack could not be taken (the sample still counts).
    KernelStackFailed = 2,
    /// The user stack could not be taken (the sample still counts).
    UserStackFailed = 3,
    /// The table of system call counters was full: calls of a new key went uncounted.
    SyscallTableFull = 4,
    /// Two threads shared a latency slot: the call counts, its latency is lost.
    SlotCollision = 5,
    /// The call began before the probe was attached: the call counts, its latency is lost.
    StartUnseen = 6,
    /// The table of sockets was full: a socket went unwatched.
    SocketTableFull = 7,
    /// A timer of the sampler fired late (interrupts were off, or the hypervisor ran something else): the periods between.
    TimerLate = 8,
    /// A thread found no room among the followed ones: its waiting is not known.
    ThreadTableFull = 9,
    /// A user stack ended in no known mapping (this and those below: the sample still counts).
    UnwindNoMapping = 10,
    /// A user stack ended in a file whose table is not loaded.
    UnwindNoTable = 11,
    /// A user stack ended at an address without a row.
    UnwindNoRow = 12,
    /// A user stack ended at a row that the unwinder cannot do.
    UnwindUnsupported = 13,
    /// A user stack could not be read further.
    UnwindBadRead = 14,
    /// A user stack has more frames than a sample holds.
    UnwindTruncated = 15,
    /// A user stack ended in code made at run time.
    UnwindJit = 16,
    /// A user stack went in a circle.
    UnwindStuck = 17,
    /// The table of flows was full: calls on a descriptor of a watched process went uncounted.
    FlowTableFull = 18,
}

impl LossReason {
    /// Every reason, by its number.
    pub const ALL: [Self; 19] = [
        Self::RingFull,
        Self::ScratchMissing,
        Self::KernelStackFailed,
        Self::UserStackFailed,
        Self::SyscallTableFull,
        Self::SlotCollision,
        Self::StartUnseen,
        Self::SocketTableFull,
        Self::TimerLate,
        Self::ThreadTableFull,
        Self::UnwindNoMapping,
        Self::UnwindNoTable,
        Self::UnwindNoRow,
        Self::UnwindUnsupported,
        Self::UnwindBadRead,
        Self::UnwindTruncated,
        Self::UnwindJit,
        Self::UnwindStuck,
        Self::FlowTableFull,
    ];

    /// Its name where losses are listed. A history on disk has it too: it is never changed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RingFull => "ring_full",
            Self::ScratchMissing => "scratch_missing",
            Self::KernelStackFailed => "kernel_stack_failed",
            Self::UserStackFailed => "user_stack_failed",
            Self::SyscallTableFull => "syscall_table_full",
            Self::SlotCollision => "slot_collision",
            Self::StartUnseen => "start_unseen",
            Self::SocketTableFull => "socket_table_full",
            Self::TimerLate => "timer_late",
            Self::ThreadTableFull => "thread_table_full",
            Self::UnwindNoMapping => "unwind_no_mapping",
            Self::UnwindNoTable => "unwind_no_table",
            Self::UnwindNoRow => "unwind_no_row",
            Self::UnwindUnsupported => "unwind_unsupported",
            Self::UnwindBadRead => "unwind_bad_read",
            Self::UnwindTruncated => "unwind_truncated",
            Self::UnwindJit => "unwind_jit",
            Self::UnwindStuck => "unwind_stuck",
            Self::FlowTableFull => "flow_table_full",
        }
    }
}

/// How many [`LossReason`]s there are.
#[expect(clippy::cast_possible_truncation, reason = "nineteen")]
pub const LOSS_REASONS: u32 = LossReason::ALL.len() as u32;

const _: () = assert!(COMM_BYTES == 16);

#[cfg(feature = "user")]
mod pod {
    // SAFETY (all): plain integers in `repr(C)`, no padding is read as a value, any bit pattern is valid.
    use super::{MarkRing, SocketStats, SyscallKey, SyscallStats, WatchedCgroup};
    use crate::{FlowKey, FlowStats, LedgerAccount, MappingEntry, SchedControl, SpaceRange, TableRange, UnwindRow};
    // SAFETY: see above.
    unsafe impl aya::Pod for SyscallKey {}
    // SAFETY: see above.
    unsafe impl aya::Pod for SyscallStats {}
    // SAFETY: see above.
    unsafe impl aya::Pod for WatchedCgroup {}
    // SAFETY: see above.
    unsafe impl aya::Pod for LedgerAccount {}
    // SAFETY: see above.
    unsafe impl aya::Pod for MarkRing {}
    // SAFETY: see above.
    unsafe impl aya::Pod for SocketStats {}
    // SAFETY: see above.
    unsafe impl aya::Pod for SchedControl {}
    // SAFETY: see above.
    unsafe impl aya::Pod for UnwindRow {}
    // SAFETY: see above.
    unsafe impl aya::Pod for TableRange {}
    // SAFETY: see above.
    unsafe impl aya::Pod for MappingEntry {}
    // SAFETY: see above.
    unsafe impl aya::Pod for SpaceRange {}
    // SAFETY: see above.
    unsafe impl aya::Pod for FlowKey {}
    // SAFETY: see above.
    unsafe impl aya::Pod for FlowStats {}
}
