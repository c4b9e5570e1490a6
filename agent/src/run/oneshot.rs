//! Looking without a daemon: loads the probes, watches for a while, hands every event over, and leaves nothing behind.

use std::time::Duration;

use crate::source::Wanted;
use crate::units::Nanos;

#[cfg(feature = "ebpf")]
mod probes;
#[cfg(feature = "ebpf")]
pub use probes::watch;

/// What to watch, and for how long.
#[derive(Clone, Debug)]
pub struct Watching {
    /// What is wanted.
    pub wanted: Wanted,
    /// For how long, or until interrupted.
    pub length: Duration,
    /// CPU samples per second.
    pub hertz: u64,
    /// Latency slots of system calls.
    pub latency_slots: u32,
    /// What else is done.
    pub extra: Extra,
}

/// What is done beside what is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    /// Nothing.
    Nothing,
    /// The time of every system call, where one in some is usual.
    FullLatency,
    /// The empty pair of the benchmarks.
    Floor,
}

/// When the watching was.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// The probes were attached.
    pub start: Nanos,
    /// The last look.
    pub end: Nanos,
}

/// Without the probes there is nothing to watch.
#[cfg(not(feature = "ebpf"))]
pub fn watch(
    _watching: &Watching,
    _keep: impl FnMut(&crate::event::RawBatch) -> anyhow::Result<()>,
    _see: impl FnMut(&crate::event::Event<'_>),
) -> anyhow::Result<Span> {
    anyhow::bail!("this binary was built without probes: build it with the default features");
}
