//! Forms and kinds of profiles as they are typed in.

use std::path::PathBuf;

use crate::profile;
use crate::units::ProfileKind;

/// The form of a profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A flame graph
    #[default]
    Svg,
    /// Folded stacks: a line a stack, outermost frame first
    Folded,
    /// Stacks with all that is known of them, JSON
    Json,
    /// For `go tool pprof`, Pyroscope, Parca; gzipped
    Pprof,
    /// For speedscope.app
    Speedscope,
    /// For profiler.firefox.com
    Firefox,
    /// OpenTelemetry profiles, protobuf
    Otlp,
}

impl Format {
    /// A file of that name in this form.
    pub fn file_of(self, stem: &str) -> PathBuf {
        format!("{stem}.{}", profile::Format::from(self).suffix()).into()
    }
}

impl From<Format> for profile::Format {
    fn from(format: Format) -> Self {
        match format {
            Format::Svg => Self::Svg,
            Format::Folded => Self::Folded,
            Format::Json => Self::Json,
            Format::Pprof => Self::Pprof,
            Format::Speedscope => Self::Speedscope,
            Format::Firefox => Self::Firefox,
            Format::Otlp => Self::Otlp,
        }
    }
}

/// What a profile shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Time on a CPU
    #[default]
    Cpu,
    /// Time blocked, by reason
    Offcpu,
    /// Time runnable, waiting for a CPU
    Runq,
    /// All three: sums to wall-clock time
    Wall,
    /// Who woke whom
    Wakeup,
    /// Time that bytes waited in receive queues
    Sock,
}

impl From<Kind> for ProfileKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Cpu => Self::Cpu,
            Kind::Offcpu => Self::Offcpu,
            Kind::Runq => Self::Runq,
            Kind::Wall => Self::Wall,
            Kind::Wakeup => Self::Wakeup,
            Kind::Sock => Self::Sock,
        }
    }
}
