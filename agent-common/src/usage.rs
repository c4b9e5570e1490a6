//! What a watched process uses and waits for, beside its CPU time: memory, run-queue delay, pressure.

/// Marks a counter that is not to be had here.
pub const NOT_TOLD: u64 = u64::MAX;
/// [`UsageRow::host`] and `group`: tasks that waited for a CPU.
pub const PRESSURE_CPU_SOME: usize = 0;
/// Likewise: nobody ran for want of a CPU; of a cgroup only.
pub const PRESSURE_CPU_FULL: usize = 1;
/// Likewise: some waited for memory.
pub const PRESSURE_MEMORY_SOME: usize = 2;
/// Likewise: all did.
pub const PRESSURE_MEMORY_FULL: usize = 3;
/// Likewise: some waited for a disk.
pub const PRESSURE_IO_SOME: usize = 4;
/// Likewise: all did.
pub const PRESSURE_IO_FULL: usize = 5;

/// Levels and cumulative counters of one process. [`NOT_TOLD`] stands for "not to be had here".
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageRow {
    /// Process.
    pub pid: u32,
    /// Zero.
    pub reserved: u32,
    /// Resident memory now, bytes.
    pub resident: u64,
    /// Time that its threads have waited for a CPU while they could run, ns, over those that live.
    pub run_delay_ns: u64,
    /// Microseconds of pressure on the whole host, by `PRESSURE_…`.
    pub host: [u64; 6],
    /// Likewise on the process's own cgroup, where it has one.
    pub group: [u64; 6],
}
