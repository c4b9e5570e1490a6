//! What the scheduler's probes keep for each thread, and what the census of threads writes.

use crate::sample::{ThreadRow, WAIT_REASONS};

/// Where the time of one thread went, in its task storage. Only the CPU that switches the thread writes it; the census
/// reads it from another one and so looks at `seq` before and after.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ThreadTimes {
    /// [`SchedControl::epoch`] in which it was begun; of another one, it counts as absent.
    pub epoch: u32,
    /// Odd while it is being written.
    pub seq: u32,
    /// A [`crate::ThreadState`] as a number.
    pub state: u16,
    /// A [`crate::WaitReason`] as a number: of the wait that is going on, or of the last one.
    pub reason: u16,
    /// Ties this wait to the stack of the one who ended it; 0 when nobody took that.
    pub pair: u32,
    /// From when on it was followed.
    pub first_ns: u64,
    /// Since when it is in its state.
    pub since_ns: u64,
    /// Up to when the present wait has had its chance of being sampled.
    pub charged_ns: u64,
    /// Times it left a CPU.
    pub switches: u64,
    /// Time on a CPU up to `since_ns`.
    pub run_ns: u64,
    /// Time it waited for a CPU up to `since_ns`, without `off_ns`.
    pub runq_ns: u64,
    /// Length of the last wait; how much of it was waiting for a CPU is read from the kernel's own sum once that has it.
    pub off_ns: u64,
    /// The kernel's own sum of run-queue waits (`sched_info.run_delay`) up to which all is in `runq_ns`.
    pub delay_seen_ns: u64,
    /// What to add to the scheduler's clock to get the monotonic one, as of the last switch-in; 0 when not known.
    pub clock_offset_ns: u64,
    /// How much of the last wait has not been sampled yet and shall be; 0 for none.
    pub sample_ns: u64,
    /// Time it was blocked, by [`crate::WaitReason`], without `off_ns`.
    pub blocked_ns: [u64; WAIT_REASONS],
}

impl ThreadTimes {
    /// All zero.
    pub const ZERO: Self = Self {
        epoch: 0,
        seq: 0,
        state: 0,
        reason: 0,
        pair: 0,
        first_ns: 0,
        since_ns: 0,
        charged_ns: 0,
        switches: 0,
        run_ns: 0,
        runq_ns: 0,
        off_ns: 0,
        delay_seen_ns: 0,
        clock_offset_ns: 0,
        sample_ns: 0,
        blocked_ns: [0; WAIT_REASONS],
    };
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
