//! Stack samples and thread totals: what the sampler and the scheduler's probes write.

use crate::{COMM_BYTES, LossReason};

/// What a [`StackSample`] is a sample of.
#[repr(u16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SampleKind {
    /// A thread was on a CPU; `weight` is the sampling period, ns.
    Cpu = 1,
    /// A thread has waited, blocked, and is on a CPU again; `weight` is the nanoseconds it stands for.
    OffCpu = 2,
    /// A thread was runnable and waited for a CPU; `weight` is the nanoseconds it stands for.
    RunQueue = 3,
    /// A thread woke another one: the stack is the waker's, `other_tid` the thread that was woken; `weight` is the
    /// wakeups it stands for. The sleeper's own stack follows as an `OffCpu` sample of `other_tid` with the same `pair`.
    Wakeup = 4,
    /// A thread took bytes out of a receive queue; `weight` is byte-microseconds of waiting.
    Socket = 5,
}

impl SampleKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Cpu, Self::OffCpu, Self::RunQueue, Self::Wakeup, Self::Socket];
}

/// Why a thread was blocked. The probes look it up by the call the thread was in, in a table that the agent fills.
#[repr(u16)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WaitReason {
    /// None of the others.
    #[default]
    Other = 0,
    /// Disk, or any other wait that the kernel counts as waiting for I/O.
    Io = 1,
    /// A futex: lock, condition, join.
    Lock = 2,
    /// It asked to sleep.
    Sleep = 3,
    /// A read or write of a socket.
    Socket = 4,
    /// `epoll`, `poll`, `select`: waits until something happens.
    Poll = 5,
    /// A pipe, terminal or another file that is no disk.
    Pipe = 6,
    /// A child process.
    Child = 7,
    /// Stopped by a signal or a debugger.
    Stopped = 8,
    /// A page that was not in memory.
    Page = 9,
}

impl WaitReason {
    /// Every reason, by its number.
    pub const ALL: [Self; 10] = [
        Self::Other,
        Self::Io,
        Self::Lock,
        Self::Sleep,
        Self::Socket,
        Self::Poll,
        Self::Pipe,
        Self::Child,
        Self::Stopped,
        Self::Page,
    ];
}

/// How many [`WaitReason`]s there are.
pub const WAIT_REASONS: usize = WaitReason::ALL.len();

/// Where the unwinding of a user stack ended.
#[repr(u16)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UnwindEnd {
    /// There is no user stack: a kernel thread.
    #[default]
    NoUser = 0,
    /// At the entry of the thread: the stack is whole.
    Entry = 1,
    /// An address in no mapping that is known.
    NoMapping = 2,
    /// A mapping whose table is not loaded (no room for it, or not yet).
    NoTable = 3,
    /// A table without a row for the address, and no frame pointer to follow.
    NoRow = 4,
    /// A row that says what the unwinder cannot do.
    Unsupported = 5,
    /// The stack could not be read.
    BadRead = 6,
    /// More frames than a sample holds.
    Truncated = 7,
    /// In code made at run time, where frame pointers led nowhere.
    Jit = 8,
    /// Two frames in a row at the same place.
    Stuck = 9,
}

impl UnwindEnd {
    /// Every end, by its number.
    pub const ALL: [Self; 10] = [
        Self::NoUser,
        Self::Entry,
        Self::NoMapping,
        Self::NoTable,
        Self::NoRow,
        Self::Unsupported,
        Self::BadRead,
        Self::Truncated,
        Self::Jit,
        Self::Stuck,
    ];
}

impl UnwindEnd {
    /// The reason under which an end is counted that is no success.
    #[inline]
    pub const fn loss(self) -> Option<LossReason> {
        Some(match self {
            Self::NoUser | Self::Entry => return None,
            Self::NoMapping => LossReason::UnwindNoMapping,
            Self::NoTable => LossReason::UnwindNoTable,
            Self::NoRow => LossReason::UnwindNoRow,
            Self::Unsupported => LossReason::UnwindUnsupported,
            Self::BadRead => LossReason::UnwindBadRead,
            Self::Truncated => LossReason::UnwindTruncated,
            Self::Jit => LossReason::UnwindJit,
            Self::Stuck => LossReason::UnwindStuck,
        })
    }
}

/// How many [`UnwindEnd`]s there are.
pub const UNWIND_ENDS: usize = UnwindEnd::ALL.len();

/// One sample: kernel and user stack of the same instant. `kernel_len` bytes of kernel frames follow, then `user_len` of
/// user frames, both innermost first, then `copied_len` bytes where the unwinder could not go on: the registers `rbx` and
/// `rdi` there (0 when they are not known), an address at or above `resume_sp`, and the user stack from there on. The agent
/// goes on before anybody else sees the record, and takes these bytes out.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct StackSample {
    /// Process (thread group) id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Name of the thread.
    pub comm: [u8; COMM_BYTES],
    /// Id of its cgroup (version 2), 0 when not known.
    pub cgroup: u64,
    /// What it stands for, in the unit of its kind.
    pub weight: u64,
    /// A [`SampleKind`] as a number.
    pub kind: u16,
    /// A [`WaitReason`] as a number, of `OffCpu` samples.
    pub reason: u16,
    /// An [`UnwindEnd`] as a number.
    pub user_end: u16,
    /// 1 when `resume_ip` was interrupted there, 0 when it is a return address.
    pub resume_exact: u16,
    /// Thread that was woken, of `Wakeup` samples; else 0.
    pub other_tid: u32,
    /// Ties a waker's sample to the sleeper's; 0 when there is none.
    pub pair: u32,
    /// Bytes of kernel frames that follow.
    pub kernel_len: u32,
    /// Bytes of user frames that follow the kernel's.
    pub user_len: u32,
    /// Bytes that follow the frames: registers, an address and a part of the user stack.
    pub copied_len: u32,
    /// User whose process it is; 0 also where that is not known or where its real and its effective user differ, so
    /// that no ordinary user is taken for its owner.
    pub uid: u32,
    /// Instruction pointer where the unwinder stopped: its frame is not among the user frames yet.
    pub resume_ip: u64,
    /// Stack pointer there.
    pub resume_sp: u64,
    /// Frame pointer there.
    pub resume_bp: u64,
}

impl StackSample {
    /// All zero.
    pub const ZERO: Self = Self {
        pid: 0,
        tid: 0,
        comm: [0; COMM_BYTES],
        cgroup: 0,
        weight: 0,
        kind: 0,
        reason: 0,
        user_end: 0,
        resume_exact: 0,
        other_tid: 0,
        pair: 0,
        kernel_len: 0,
        user_len: 0,
        copied_len: 0,
        uid: 0,
        resume_ip: 0,
        resume_sp: 0,
        resume_bp: 0,
    };
}

/// State of a thread at the time of a [`ThreadRow`].
#[repr(u16)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ThreadState {
    /// On a CPU.
    #[default]
    Running = 0,
    /// Waits for a CPU.
    Runnable = 1,
    /// Blocked.
    Blocked = 2,
    /// It has ended: the last row of this thread.
    Ended = 3,
}

/// Where the time of one thread went, cumulative since it was first seen by the scheduler's probes. Times include what
/// has passed of the current state by the record's own time, so that running + runnable + blocked is the wall time
/// since `first_ns`, always.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ThreadRow {
    /// Process (thread group) id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Name of the thread.
    pub comm: [u8; COMM_BYTES],
    /// Id of its cgroup (version 2), 0 when not known.
    pub cgroup: u64,
    /// Start of the thread, ns since boot: tells a reused id from the thread before it.
    pub started_ns: u64,
    /// From when on it was followed.
    pub first_ns: u64,
    /// Since when it is in its state.
    pub since_ns: u64,
    /// A [`ThreadState`] as a number.
    pub state: u16,
    /// A [`WaitReason`] as a number, of blocked threads.
    pub reason: u16,
    /// Zero.
    pub reserved: u32,
    /// Times it left a CPU.
    pub switches: u64,
    /// Time on a CPU.
    pub run_ns: u64,
    /// Time it waited for a CPU.
    pub runq_ns: u64,
    /// Time it was blocked, by [`WaitReason`].
    pub blocked_ns: [u64; WAIT_REASONS],
}
