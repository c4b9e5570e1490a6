//! Looking without a daemon: loads the probes, watches for a while, hands every event over, and leaves nothing behind.

use std::time::Duration;

use crate::source::Wanted;
use crate::units::Nanos;

pub mod command;
#[cfg(feature = "ebpf")]
mod probes;
#[cfg(feature = "ebpf")]
pub use probes::watch_subject;

use crate::event::{Event, RawBatch};

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

/// Something that runs while it is watched.
pub trait Subject {
    /// The probes are in place.
    fn attached(&mut self) -> anyhow::Result<()>;
    /// Whether there is nothing to watch any more. Asked at every tick.
    fn is_over(&mut self) -> anyhow::Result<bool>;
    /// The last look was taken.
    fn ended(&mut self) -> anyhow::Result<()>;
}

/// Whatever runs, runs.
#[derive(Clone, Copy, Debug)]
pub struct Anything;

impl Subject for Anything {
    fn attached(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    fn is_over(&mut self) -> anyhow::Result<bool> {
        Ok(false)
    }

    fn ended(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}

/// Watches, and hands each event to `see`, each raw batch to `keep`.
pub fn watch(
    watching: &Watching,
    keep: impl FnMut(&RawBatch) -> anyhow::Result<()>,
    see: impl FnMut(&Event<'_>),
) -> anyhow::Result<Span> {
    watch_subject(watching, &mut Anything, keep, see)
}

/// Without the probes there is nothing to watch.
#[cfg(not(feature = "ebpf"))]
pub fn watch_subject(
    _watching: &Watching,
    _subject: &mut impl Subject,
    _keep: impl FnMut(&RawBatch) -> anyhow::Result<()>,
    _see: impl FnMut(&Event<'_>),
) -> anyhow::Result<Span> {
    anyhow::bail!("this binary was built without probes: build it with the default features");
}
