//! Numbers with their units. A plain integer never crosses a module boundary when it means one of these.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

macro_rules! whole {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);
    };
}

whole! {
    /// Nanoseconds: a span, or an instant of the monotonic clock.
    Nanos(u64)
}
whole! {
    /// A number of bytes.
    Bytes(u64)
}
whole! {
    /// A process (thread group) id.
    Pid(u32)
}
whole! {
    /// A thread id.
    Tid(u32)
}
whole! {
    /// A cgroup (version 2), as the kernel numbers it; 0 when not known.
    CgroupId(u64)
}
whole! {
    /// A CPU number.
    CpuId(u32)
}
whole! {
    /// A user id.
    Uid(u32)
}
whole! {
    /// Rises with every change of a pipeline's settings; 0 stands for the pipeline's own defaults.
    Generation(u64)
}
whole! {
    /// Size at which a batch is flushed, bytes.
    BatchSize(u64)
}
whole! {
    /// Age of the oldest event at which a batch is flushed, microseconds (Kafka's linger).
    FlushInterval(u64)
}

/// A share, 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ratio(pub f64);

/// A rate of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventsPerSec(pub f64);

/// The two knobs of a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Batch size.
    pub batch: BatchSize,
    /// Flush interval.
    pub interval: FlushInterval,
}

impl Nanos {
    /// One second.
    pub const SECOND: Self = Self(1_000_000_000);
    /// One tick of the signals.
    pub const TICK: Self = Self(100_000_000);
    /// Longest span there is: "never".
    pub const MAX: Self = Self(u64::MAX);

    /// From milliseconds.
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms.saturating_mul(1_000_000))
    }

    /// From microseconds.
    pub const fn from_micros(us: u64) -> Self {
        Self(us.saturating_mul(1_000))
    }

    /// From whole seconds.
    pub const fn from_secs(s: u64) -> Self {
        Self(s.saturating_mul(1_000_000_000))
    }

    /// In seconds.
    #[expect(clippy::cast_precision_loss, reason = "a span of 104 days is still exact to a nanosecond")]
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// In milliseconds.
    pub fn as_millis_f64(self) -> f64 {
        self.as_secs_f64() * 1e3
    }

    /// The span since `earlier`, zero when that is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }
}

impl Add for Nanos {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for Nanos {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self.since(other)
    }
}

impl From<Duration> for Nanos {
    fn from(d: Duration) -> Self {
        Self(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl From<Nanos> for Duration {
    fn from(n: Nanos) -> Self {
        Duration::from_nanos(n.0)
    }
}

impl From<FlushInterval> for Nanos {
    fn from(i: FlushInterval) -> Self {
        Nanos::from_micros(i.0)
    }
}

impl From<Nanos> for FlushInterval {
    /// Rounded to the nearest microsecond.
    fn from(n: Nanos) -> Self {
        FlushInterval(n.0.saturating_add(500) / 1_000)
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a profile shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProfileKind {
    /// Time on a CPU.
    #[default]
    Cpu,
    /// Time blocked, by reason.
    Offcpu,
    /// Time runnable and without a CPU.
    Runq,
    /// All three: sums to wall time.
    Wall,
    /// Who woke whom.
    Wakeup,
    /// Time that bytes waited in a receive queue, by the stack that read them.
    Sock,
}

impl ProfileKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [Self::Cpu, Self::Offcpu, Self::Runq, Self::Wall, Self::Wakeup, Self::Sock];

    /// Its name in paths, options and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Offcpu => "offcpu",
            Self::Runq => "runq",
            Self::Wall => "wall",
            Self::Wakeup => "wakeup",
            Self::Sock => "sock",
        }
    }

    /// What a graph of it is called.
    pub fn title(self) -> &'static str {
        match self {
            Self::Cpu => "On-CPU time",
            Self::Offcpu => "Off-CPU time",
            Self::Runq => "Time waiting for a CPU",
            Self::Wall => "Wall-clock time",
            Self::Wakeup => "Wakeups",
            Self::Sock => "Time of bytes in receive queues",
        }
    }

    /// What its values count.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Cpu => "samples",
            Self::Offcpu | Self::Runq | Self::Wall => "nanoseconds",
            Self::Wakeup => "wakeups",
            Self::Sock => "byte-microseconds",
        }
    }
}

impl std::str::FromStr for ProfileKind {
    type Err = NoSuchKind;

    fn from_str(text: &str) -> Result<Self, NoSuchKind> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| NoSuchKind(text.to_owned()))
    }
}

/// No kind of profile has that name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("no kind of profile is named {0:?}: there are cpu, offcpu, runq, wall, wakeup and sock")]
pub struct NoSuchKind(pub String);

impl fmt::Display for ProfileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Name of a pipeline: 1 to 64 characters of `a-z A-Z 0-9 . _ -`, not starting with a dot. Safe as a file name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PipelineName(String);

/// Why a name was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("pipeline name {0:?}: want 1 to 64 of a-z A-Z 0-9 . _ -, not starting with a dot")]
pub struct BadName(pub String);

impl PipelineName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PipelineName {
    type Error = BadName;
    fn try_from(s: String) -> Result<Self, BadName> {
        let ok = (1..=64).contains(&s.len())
            && !s.starts_with('.')
            && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if ok { Ok(Self(s)) } else { Err(BadName(s)) }
    }
}

impl From<PipelineName> for String {
    fn from(n: PipelineName) -> Self {
        n.0
    }
}

impl fmt::Display for PipelineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_a_directory_are_refused() {
        for bad in ["", ".", "..", "../x", "a/b", ".hidden", "a b", "ä", &"x".repeat(65)] {
            assert!(PipelineName::try_from(bad.to_owned()).is_err(), "{bad:?} was taken");
        }
        assert!(PipelineName::try_from("ingest-1.eu_west".to_owned()).is_ok());
    }
}
