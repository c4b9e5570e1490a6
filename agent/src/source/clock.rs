//! The clock module: the only place that reads a clock. Everything above it gets time as `now: Nanos`.

use rustix::time::{ClockId, clock_gettime};

use crate::units::Nanos;

/// `CLOCK_MONOTONIC`: the clock of events and decisions, and of the kernel's own stamps.
pub fn monotonic() -> Nanos {
    read(ClockId::Monotonic)
}

/// `CLOCK_BOOTTIME`: the clock of leases; it goes on while the host sleeps.
pub fn boottime() -> Nanos {
    read(ClockId::Boottime)
}

/// `CLOCK_REALTIME`, for people only: it jumps.
pub fn wall() -> Nanos {
    read(ClockId::Realtime)
}

fn read(clock: ClockId) -> Nanos {
    let t = clock_gettime(clock);
    let seconds = u64::try_from(t.tv_sec).unwrap_or(0);
    Nanos::from_secs(seconds) + Nanos(u64::try_from(t.tv_nsec).unwrap_or(0))
}
