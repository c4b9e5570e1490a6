//! Wire bytes in, events out. Decoding never panics and never allocates more than the bytes it was given.
//!
//! A record that cannot be decoded is skipped by its length and counted; a record whose length is a lie ends the batch,
//! because nothing after it can be trusted.

mod decode;
mod input;
mod raw;

pub use decode::{DecodeError, Decoded, Decoder};
pub use input::{Input, Watch, WatchKind};
pub use raw::{RawBatch, encode};

use agent_common::{
    COMM_BYTES, FlowRow, LedgerRow, LossReason, SampleKind, SocketRow, SyscallRow, TaskRow, ThreadRow, UnwindEnd,
    UsageRow, WaitReason,
};

use crate::units::{CgroupId, CpuId, Nanos, Pid, PipelineName, Tid, Uid};

/// One fact, with its time.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    /// When it was recorded, on the monotonic clock of its source.
    pub time: Nanos,
    /// CPU on which it was recorded.
    pub cpu: CpuId,
    /// What happened.
    pub body: Body<'a>,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Body<'a> {
    /// A stack: a thread ran, waited, woke another one or read from a socket.
    Stack(Box<Sample>),
    /// Where the time of one thread went, cumulative.
    Thread(Box<ThreadRow>),
    /// Cumulative counters of one (process, system call).
    Syscall(Box<SyscallRow>),
    /// State and cumulative counters of one socket.
    Socket(Box<SocketRow>),
    /// Cumulative counters of one descriptor of a watched process.
    Flow(Box<FlowRow>),
    /// Cumulative counter of a loss.
    Loss(LossReason, u64),
    /// What became of the firings of the sampler's timers, cumulative.
    Ledger(LedgerRow),
    /// A tick ends here.
    Tick,
    /// Cumulative cost of one process.
    Task(TaskRow),
    /// What one process uses and waits for.
    Usage(Box<UsageRow>),
    /// Something came in over the control socket.
    Input(Box<Input>),
    /// A report page, or the errno with which reading it failed.
    Report(PipelineName, Result<&'a [u8], i32>),
    /// Who a process is.
    Process(Process),
    /// Where code of a process is mapped.
    Mapping(Box<Mapping>),
    /// The table of names that ends a recording, as JSON.
    Names(&'a [u8]),
}

/// One stack sample. Frames are innermost first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// What it is a sample of.
    pub kind: SampleKind,
    /// Process.
    pub pid: Pid,
    /// Thread.
    pub tid: Tid,
    /// Name of the thread.
    pub comm: Comm,
    /// Its cgroup.
    pub cgroup: CgroupId,
    /// What it stands for, in the unit of its kind.
    pub weight: u64,
    /// User who owned the process just then; 0 where that is not certain.
    pub uid: Uid,
    /// Why the thread was blocked, of `OffCpu` samples.
    pub reason: WaitReason,
    /// How the user stack ended.
    pub user_end: UnwindEnd,
    /// Thread that was woken, of `Wakeup` samples.
    pub other: Option<Tid>,
    /// Ties a waker's sample to the sleeper's; 0 when there is none.
    pub pair: u32,
    /// Kernel frames.
    pub kernel: Vec<u64>,
    /// User frames.
    pub user: Vec<u64>,
}

/// Who a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Process.
    pub pid: Pid,
    /// Start time, clock ticks since boot.
    pub start_ticks: u64,
    /// Name of its main thread.
    pub comm: Comm,
}

/// Code that is mapped into a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Process.
    pub pid: Pid,
    /// First address.
    pub begin: u64,
    /// First address behind it.
    pub end: u64,
    /// Place in the file of the first address.
    pub offset: u64,
    /// Device of the file.
    pub dev: u64,
    /// Inode of the file.
    pub inode: u64,
    /// Build id of the file, empty when it is not known.
    pub build_id: Box<[u8]>,
    /// Path in the mount namespace of the process; empty for memory, `[vdso]` for the code that the kernel lends.
    pub path: Box<[u8]>,
}

/// Name of a thread as the kernel keeps it: at most 15 bytes, any bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Comm(pub [u8; COMM_BYTES]);

impl Comm {
    /// As text; bytes that are not UTF-8 are replaced.
    pub fn to_text(&self) -> String {
        let end = self.0.iter().position(|&b| b == 0).unwrap_or(self.0.len());
        String::from_utf8_lossy(&self.0[..end]).into_owned()
    }
}
