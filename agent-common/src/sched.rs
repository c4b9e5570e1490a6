//! What the scheduler's probes keep for each thread, and what the census of threads writes.

use crate::sample::{ThreadRow, WAIT_REASONS};

/// Where the time of one thread went up to when it last left a CPU, in its task storage. Only the CPU that it leaves writes
/// it; the census reads it from another one and so looks at `seq` before and after. What a switch writes comes first: it
/// lies in two cache lines.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ThreadTimes {
    /// [`SchedControl::epoch`] in which it was begun; of another one, it counts as absent.
    pub epoch: u32,
    /// Odd while it is being written.
    pub seq: u32,
    /// A [`crate::ThreadState`] as a number: since `since_ns`, unless a CPU runs it (see [`CpuSlot`]).
    pub state: u16,
    /// A [`crate::WaitReason`] as a number: of the wait that is going on, or of the last one.
    pub reason: u16,
    /// Ties this wait to the stack of the one who ended it; 0 when nobody took that.
    pub pair: u32,
    /// When it left its CPU, or when it was begun to be followed: all times below are up to then.
    pub since_ns: u64,
    /// Time on a CPU.
    pub run_ns: u64,
    /// Time it waited for a CPU.
    pub runq_ns: u64,
    /// The kernel's own sum of run-queue waits (`sched_info.run_delay`) that is in it.
    pub delay_seen_ns: u64,
    /// Up to when the present wait has had its chance of being sampled.
    pub charged_ns: u64,
    /// Times it left a CPU.
    pub switches: u64,
    /// What to add to the scheduler's clock to get the monotonic one, as of the last switch-in; 0 when not known.
    pub clock_offset_ns: u64,
    /// Time it was blocked, by [`crate::WaitReason`].
    pub blocked_ns: [u64; WAIT_REASONS],
    /// How much of the last wait has not been sampled yet and shall be; 0 for none.
    pub sample_ns: u64,
    /// From when on it was followed.
    pub first_ns: u64,
}

impl ThreadTimes {
    /// All zero.
    pub const ZERO: Self = Self {
        epoch: 0,
        seq: 0,
        state: 0,
        reason: 0,
        pair: 0,
        since_ns: 0,
        run_ns: 0,
        runq_ns: 0,
        delay_seen_ns: 0,
        charged_ns: 0,
        switches: 0,
        clock_offset_ns: 0,
        blocked_ns: [0; WAIT_REASONS],
        sample_ns: 0,
        first_ns: 0,
    };
}

/// What the switches of one CPU leave for each other, so that a switch looks one thread up and not two.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CpuSlot {
    /// When the thread that it runs came in.
    pub since_ns: u64,
    /// Which thread that is, if it may be followed; otherwise the last one that may have been.
    pub tid: u32,
    /// The thread whose stack shall be taken at the end of the switch; 0 for none.
    pub wanted: u32,
    /// What to add to the scheduler's clock to get the monotonic one; 0 when not known.
    pub clock_offset_ns: u64,
    /// State of the generator that draws waits.
    pub random: u64,
}

/// What the sampler keeps of a thread, in its task storage.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RunAccount {
    /// In which it was begun; of another one, it counts as absent.
    pub epoch: u32,
    /// Zero.
    pub reserved: u32,
    /// Of the thread's run time, what its samples stand for.
    pub charged_ns: u64,
}

/// What the agent tells the scheduler's probes at run time.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedControl {
    /// Rises whenever somebody else is followed; never 0 once the probes are attached.
    pub epoch: u32,
    /// Of so many wakeups the stack of one is taken; 0 for none.
    pub wake_one_in: u32,
    /// A wait at least this long is always sampled, a shorter one with the chance of its share of it.
    pub period_ns: u64,
    /// Time of the census that is going on.
    pub census_ns: u64,
}

/// Entries of the table of wait reasons by system call: numbers of 64-bit calls, then those of 32-bit calls.
pub const WAIT_CALLS: u32 = 1024;
/// From which entry on the 32-bit calls stand.
pub const WAIT_CALLS_COMPAT: u32 = 512;
/// An entry of that table: look at the file that the call's first argument names.
pub const WAIT_BY_FILE: u32 = 255;

/// One thread as the census saw it. `kernel_len` bytes of kernel frames follow, innermost first.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CensusRow {
    /// Time of `row`: that of the census, or later when the thread was switched during the walk.
    pub time_ns: u64,
    /// Its totals.
    pub row: ThreadRow,
    /// What a sample of its present wait stands for, ns; 0 when none was taken.
    pub weight_ns: u64,
    /// User instruction pointer where it entered the kernel.
    pub ip: u64,
    /// User stack pointer there.
    pub sp: u64,
    /// User frame pointer there.
    pub bp: u64,
    /// Register `rbx` there.
    pub bx: u64,
    /// Register `rdi` there.
    pub di: u64,
    /// Bytes of kernel frames that follow.
    pub kernel_len: u32,
    /// 1 when this wait has been told before, with its stack.
    pub told: u32,
}
