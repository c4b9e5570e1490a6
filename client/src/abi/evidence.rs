//! What the kernel alone tells of a process, as the socket shows it: types only. Every number that is not known is absent.

use serde::{Deserialize, Serialize};

/// What the kernel alone tells of a process. A number that is not known is absent, never 0.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KernelGradeJson {
    /// Whether the signals beside it rest on this alone: the process was never changed.
    pub alone: bool,
    /// Where most of its bytes come in.
    pub input: Option<DescriptorJson>,
    /// Where its flushes go.
    pub sink: Option<DescriptorJson>,
    /// What ends a flush: `answer`, or `write` where nothing answers and each write is taken for one.
    pub flush_ends_with: Option<String>,
    /// Bytes that come in, a second.
    pub bytes_in_per_s: Option<f64>,
    /// Event rate, events/s, where the size of an event is known.
    pub rate: Option<f64>,
    /// Mean size of a flush, bytes as they went out.
    pub flush_bytes: Option<f64>,
    /// Mean number of events of a flush, where the size of an event is known.
    pub flush_events: Option<f64>,
    /// Mean duration of a flush, ms.
    pub flush_ms: Option<f64>,
    /// Flushes a second.
    pub flushes_per_s: Option<f64>,
    /// Mean time from the end of a flush to the begin of the next, ms.
    pub gap_ms: Option<f64>,
    /// Share of the time in which a flush was in flight; above 1 where several were.
    pub busy_share: Option<f64>,
    /// Share of the time in which a thread was in a call that writes to the sink.
    pub in_writes_share: Option<f64>,
    /// Why flushes begin: `timer`, `size`, `downstream` or `unclear`.
    pub cause: Option<String>,
    /// Fixed cost of a flush, ms.
    pub flush_fixed_ms: Option<f64>,
    /// Its standard error, ms.
    pub flush_fixed_error_ms: Option<f64>,
    /// Cost of a KiB, microseconds: of one that came in, or where there is no input, of one that goes out.
    pub flush_per_kib_us: Option<f64>,
    /// Its standard error, microseconds.
    pub flush_per_kib_error_us: Option<f64>,
}

/// A descriptor in its role.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DescriptorJson {
    /// Its number.
    pub fd: u32,
    /// Where it leads, as /proc shows it.
    pub target: String,
    /// Its share of all bytes of that direction: it has the most, and is chosen by it.
    pub share: f64,
    /// Descriptors in the same role, this one among them.
    pub among: usize,
}

/// What a process uses and waits for, over the newest second. What this host does not tell is absent, never 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UsageJson {
    /// CPU time over wall time, cores.
    pub cpu_cores: Option<f64>,
    /// Context switches a second.
    pub switches_per_s: Option<f64>,
    /// Resident memory, bytes.
    pub resident_bytes: Option<u64>,
    /// Time that its threads waited for a CPU over wall time; above 1 where several did at once.
    pub run_delay: Option<f64>,
    /// Page faults a second, while somebody looks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page_faults_per_s: Option<f64>,
    /// Instructions a cycle, while somebody looks and where there are hardware counters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions_per_cycle: Option<f64>,
    /// Pressure on the host.
    pub host_pressure: Option<PressureJson>,
    /// Pressure on the process's own cgroup.
    pub group_pressure: Option<PressureJson>,
}

/// Shares of the time in which some, or all, waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PressureJson {
    /// Some waited for a CPU.
    pub cpu_some: Option<f64>,
    /// Nobody ran for want of one.
    pub cpu_full: Option<f64>,
    /// Some waited for memory.
    pub memory_some: Option<f64>,
    /// All did.
    pub memory_full: Option<f64>,
    /// Some waited for a disk.
    pub io_some: Option<f64>,
    /// All did.
    pub io_full: Option<f64>,
}
