//! Where facts come from: the live kernel, a recording, or a simulated host. The rest of the agent cannot tell.

pub mod cgroups;
pub mod clock;
pub mod cpu_time;
#[cfg(feature = "ebpf")]
pub mod ebpf;
pub mod host;
pub mod in_flight;
pub mod inbox;
pub mod io_uring;
pub mod processes;
pub mod recording;
pub mod replay;
pub mod reports;
mod reread;
pub mod sim;
pub mod tasks;
pub mod threads;
pub mod usage;

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::event::RawBatch;
use crate::units::{CgroupId, Nanos, Pid, PipelineName, Uid};

/// A source of wire records. Losses travel as records too, so that a replay sees them.
#[expect(async_fn_in_trait, reason = "the agent runs on one thread; no source is ever sent to another")]
pub trait EventSource {
    /// Appends the records that are ready, waiting no later than `until`. `End` only for finite sources.
    async fn pull(&mut self, until: Nanos, batch: &mut RawBatch) -> Result<Pulled, SourceError>;
}

/// What a pull brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulled {
    /// Zero or more records were appended.
    Batch,
    /// There will be no more.
    End,
}

/// How often a source ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Ten times a second.
    Tick,
    /// Once a second, and ten times again from the next request on.
    Rest,
}

/// Whether the run time of probes is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measuring {
    /// It is.
    On,
    /// It is not.
    Off,
}

/// Why a source cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A file could not be read or is not what it should be.
    #[error("{what}: {cause}")]
    File {
        /// What was tried, with the path.
        what: String,
        /// Why it failed and what to do.
        cause: String,
    },
    /// The kernel refused something.
    #[error("{what}: {cause}")]
    Kernel {
        /// What was tried.
        what: String,
        /// Why it failed and what to do.
        cause: String,
    },
}

/// Whose facts a probe brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every process of the host.
    Host,
    /// These processes only.
    Pids(BTreeSet<Pid>),
    /// What runs in these cgroups and in those below them.
    Cgroups(BTreeSet<CgroupId>),
}

/// What becomes of processes that are born to watched ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offspring {
    /// They are not watched.
    #[default]
    Ignored,
    /// They are watched as their parents are, from their first instruction, and so are theirs.
    Watched,
}

/// What a source is asked to bring. Probes that nobody wants are detached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// On-CPU samples.
    pub cpu: Option<Scope>,
    /// Off-CPU and run-queue samples, and thread totals.
    pub sched: Option<Scope>,
    /// What becomes of those that are born to the processes named here.
    pub offspring: Offspring,
    /// Wakers' stacks; only of threads that `sched` follows.
    pub wakeups: bool,
    /// Stacks of those who read from a watched socket.
    pub socket_stacks: bool,
    /// System call counters.
    pub syscalls: Option<Scope>,
    /// What moves through each descriptor of these processes.
    pub flows: BTreeSet<Pid>,
    /// Socket rows, with the time that bytes wait.
    pub sockets: Option<BTreeSet<Pid>>,
    /// Socket rows of these processes too, with what waits in them now and no more: it costs them nothing.
    pub queues: BTreeSet<Pid>,
    /// What these processes cost and use.
    pub tasks: BTreeSet<Pid>,
    /// Of them, those whose page faults, cycles and instructions are counted too.
    pub counted: BTreeSet<Pid>,
    /// Report pages to read on each tick.
    pub reports: Vec<ReportFile>,
}

/// A report page to read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReportFile {
    /// Pipeline.
    pub name: PipelineName,
    /// Path it named.
    pub path: PathBuf,
    /// User who must own the file.
    pub uid: Uid,
}
