//! The two clocks of the client: the only place that reads one. Both are served by the vDSO, without a system call.

use rustix::time::{ClockId, clock_gettime};

use crate::units::Nanos;

/// Time since boot, suspend included: the clock of leases.
pub fn boottime() -> Nanos {
    read(ClockId::Boottime)
}

/// The monotonic clock: the clock of arrivals and latencies.
pub fn monotonic() -> Nanos {
    read(ClockId::Monotonic)
}

/// CPU time of this process, all threads, user and kernel.
pub fn process_cpu() -> Nanos {
    read(ClockId::ProcessCPUTime)
}

fn read(clock: ClockId) -> Nanos {
    let t = clock_gettime(clock);
    let seconds = u64::try_from(t.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(t.tv_nsec).unwrap_or(0);
    Nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}
