//! Records: a header of 16 bytes, then a body whose shape `kind` tells. Records are padded to [`RECORD_ALIGN`].

/// Records start at multiples of this many bytes.
pub const RECORD_ALIGN: usize = 8;
/// Length of a thread name in the kernel, terminating zero included.
pub const COMM_BYTES: usize = 16;
/// Most frames of one stack, kernel or user.
pub const MAX_FRAMES: usize = 127;
/// Set in a system call number when a 32-bit program made the call.
pub const COMPAT_BIT: u32 = 1 << 31;
/// [`SocketSeen::kind`] of a TCP connection.
pub const SOCKET_KIND_TCP: u16 = 1;
/// [`SocketSeen::kind`] of a Unix stream.
pub const SOCKET_KIND_UNIX_STREAM: u16 = 2;
/// [`SocketSeen::kind`] of a UDP socket.
pub const SOCKET_KIND_UDP: u16 = 3;
/// [`SocketSeen::kind`] of a Unix datagram socket.
pub const SOCKET_KIND_UNIX_DATAGRAM: u16 = 4;
/// [`SocketSeen::kind`] of a Unix socket that keeps packets apart and in order.
pub const SOCKET_KIND_UNIX_PACKET: u16 = 5;
/// Bytes kept of a Unix socket's name.
pub const SOCKET_NAME_BYTES: usize = 64;

/// Starts every record.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RecordHeader {
    /// Length of header and body, without the padding to [`RECORD_ALIGN`].
    pub len: u32,
    /// A [`RecordKind`] as a number.
    pub kind: u16,
    /// CPU on which the record was made; 0 where that means nothing.
    pub cpu: u16,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
}

/// What a record's body is. Numbers are never reused: recordings outlive versions. 1 was the on-CPU
/// sample without a weight.
#[repr(u16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// [`SyscallRow`]: cumulative counters of one (process, system call).
    Syscall = 2,
    /// [`SocketRow`]: state and cumulative counters of one watched socket.
    Socket = 3,
    /// [`LossRow`]: a cumulative counter of one loss reason.
    Loss = 4,
    /// No body: a tick (100 ms) ends here and everything before it belongs to it.
    Tick = 5,
    /// [`TaskRow`]: cumulative cost counters of one process.
    Task = 6,
    /// JSON of an `Input`: what came in over the control socket.
    Input = 7,
    /// [`ReportHeader`], then the pipeline's name, then the bytes of its report page.
    Report = 8,
    /// [`ProcessRow`]: who a process is.
    Process = 9,
    /// JSON of a table of names, the last record of a recording.
    Names = 10,
    /// [`crate::StackSample`], then its frames: kernel, user, innermost first.
    Stack = 11,
    /// [`crate::ThreadRow`]: where the time of one thread went.
    Thread = 12,
    /// [`LedgerRow`]: what became of the firings of the sampler's timers.
    Ledger = 13,
    /// [`MappingRow`], then its build id, then its path: where code of a process is mapped.
    Mapping = 14,
    /// [`crate::FlowRow`]: cumulative counters of one descriptor of a watched process.
    Flow = 15,
    /// [`crate::UsageRow`]: what a watched process uses and waits for.
    Usage = 16,
}

impl RecordKind {
    /// Every kind.
    pub const ALL: [Self; 15] = [
        Self::Syscall,
        Self::Socket,
        Self::Loss,
        Self::Tick,
        Self::Task,
        Self::Input,
        Self::Report,
        Self::Process,
        Self::Names,
        Self::Stack,
        Self::Thread,
        Self::Ledger,
        Self::Mapping,
        Self::Flow,
        Self::Usage,
    ];
}

/// System calls of one process and one call number, counted since the probe was attached.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SyscallRow {
    /// Process id.
    pub pid: u32,
    /// Call number, with [`COMPAT_BIT`] for 32-bit calls.
    pub nr: u32,
    /// Calls that have returned.
    pub calls: u64,
    /// Returned with an error, restarts not counted.
    pub errors: u64,
    /// Interrupted and to be restarted by the kernel (−512…−516).
    pub restarts: u64,
    /// Sum of the positive results: bytes, where the call returns a byte count.
    pub result_sum: u64,
    /// Calls whose latency is in `total_ns` and `histogram`.
    pub timed: u64,
    /// Sum of latencies.
    pub total_ns: u64,
    /// Calls that have not returned yet.
    pub in_flight: u64,
    /// Latencies, log-linear with [`crate::SYSCALL_SUB_BITS`].
    pub histogram: [u64; crate::SYSCALL_BUCKETS],
}

/// One watched socket: its queues now, and the residency of what was read since it has been watched.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SocketRow {
    /// What the walk over descriptors saw last.
    pub seen: SocketSeen,
    /// Residency of what was read.
    pub stats: crate::SocketStats,
}

/// A stream socket and its queues, as the walk over the descriptors of watched processes writes it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SocketSeen {
    /// The kernel's cookie: unique while the host is up.
    pub cookie: u64,
    /// Process.
    pub pid: u32,
    /// Descriptor, −1 once it has been closed.
    pub fd: i32,
    /// `SOCKET_KIND_…`.
    pub kind: u16,
    /// Address family.
    pub family: u16,
    /// Local port, host byte order.
    pub local_port: u16,
    /// Remote port, host byte order.
    pub remote_port: u16,
    /// Inode number.
    pub inode: u64,
    /// Local address: 4 or 16 bytes, or the name of a Unix socket.
    pub local: [u8; SOCKET_NAME_BYTES],
    /// Remote address, likewise.
    pub remote: [u8; SOCKET_NAME_BYTES],
    /// Bytes that wait to be read.
    pub receive_queue: u64,
    /// Receive buffer limit.
    pub receive_limit: u64,
    /// Bytes written and not yet taken by the peer (TCP: not acknowledged).
    pub send_queue: u64,
    /// Send buffer limit.
    pub send_limit: u64,
    /// Packets refused because the queue was full.
    pub overflows: u64,
}

impl SocketSeen {
    /// All zero.
    pub const ZERO: Self = Self {
        cookie: 0,
        pid: 0,
        fd: 0,
        kind: 0,
        family: 0,
        local_port: 0,
        remote_port: 0,
        inode: 0,
        local: [0; SOCKET_NAME_BYTES],
        remote: [0; SOCKET_NAME_BYTES],
        receive_queue: 0,
        receive_limit: 0,
        send_queue: 0,
        send_limit: 0,
        overflows: 0,
    };
}

/// How often something was lost, since the probes were attached.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct LossRow {
    /// A [`crate::LossReason`] as a number.
    pub reason: u32,
    /// Zero.
    pub reserved: u32,
    /// Times it happened.
    pub count: u64,
}

/// What became of the firings of the sampler's timers, on all CPUs, cumulative since the probes were loaded. At any
/// moment `fired` = `idle` + `unwatched` + `delivered` + `refused`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerRow {
    /// Nanoseconds between two firings on a CPU.
    pub period_ns: u64,
    /// Times a timer fired.
    pub fired: u64,
    /// Firings while the CPU had nothing to run.
    pub idle: u64,
    /// Firings while a process ran that nobody watches.
    pub unwatched: u64,
    /// Samples that went into the ring buffer.
    pub delivered: u64,
    /// Samples that did not: no room in the ring buffer, or no scratch record.
    pub refused: u64,
    /// Periods that passed without a firing while a watched thread ran on: samples that were never taken.
    pub late: u64,
    /// Periods that passed without a firing while the CPU was idle or went from one thread to another: whose time that
    /// was, nobody can tell. An idle CPU of a virtual machine sleeps through most of its timers.
    pub late_elsewhere: u64,
}

/// The account of one CPU's timer, as the sampler keeps it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct LedgerAccount {
    /// Counts; `period_ns` is not filled in.
    pub counts: LedgerRow,
    /// When the timer fired last; 0 before the first time.
    pub last_ns: u64,
    /// Thread that it found then.
    pub last_tid: u64,
    /// When that thread had come onto the CPU, by the scheduler's clock.
    pub last_arrival: u64,
}

/// Cost of one process, cumulative: CPU time since it began, switches since it was first watched, the rest since somebody
/// looks. [`NOT_TOLD`](crate::NOT_TOLD) stands for "not to be had here".
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct TaskRow {
    /// Process id.
    pub pid: u32,
    /// Threads.
    pub threads: u32,
    /// CPU time of all its threads.
    pub task_clock_ns: u64,
    /// Context switches.
    pub context_switches: u64,
    /// Page faults, while somebody looks.
    pub page_faults: u64,
    /// CPU cycles, likewise; needs a hardware PMU.
    pub cycles: u64,
    /// Instructions, likewise.
    pub instructions: u64,
}

/// Who a process is.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ProcessRow {
    /// Process id.
    pub pid: u32,
    /// Zero.
    pub reserved: u32,
    /// Start time in clock ticks since boot: tells a reused pid from the process before it.
    pub start_ticks: u64,
    /// Name of its main thread.
    pub comm: [u8; COMM_BYTES],
}

/// Code that is mapped into a process: what its addresses mean after it has ended, and on another machine.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MappingRow {
    /// Process id.
    pub pid: u32,
    /// Bytes of the build id that follow.
    pub build_id_len: u16,
    /// Bytes of the path that follow the build id: none where memory without a file is mapped, `[vdso]` for the code that
    /// the kernel lends.
    pub path_len: u16,
    /// First address.
    pub begin: u64,
    /// First address behind it.
    pub end: u64,
    /// Place in the file of the first address.
    pub offset: u64,
    /// Device of the file, as `makedev` makes it.
    pub dev: u64,
    /// Inode of the file.
    pub inode: u64,
}

/// Starts a report record: the pipeline's name and the page follow.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ReportHeader {
    /// Length of the name.
    pub name_len: u16,
    /// 0, or the `errno` with which reading the page failed.
    pub errno: u16,
    /// Bytes of the page that were read.
    pub page_len: u32,
}
