//! What enters over the control socket: the requests that change state. They travel as records, so that a recording
//! holds them and a replay decides as the live agent did.

use serde::{Deserialize, Serialize};
use tidegate_client::abi::{Acknowledgement, Knobs, Mode, OverrideRequest, Registration, SignalsReport};

use crate::units::{Generation, Nanos, Pid, PipelineName, Settings, Uid};

/// A request that changes state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Input {
    /// A pipeline registers, or registers again.
    Register {
        /// Its name.
        name: PipelineName,
        /// Its process, from the peer's credentials; where another process is only watched, that one.
        pid: Pid,
        /// Start time of that process, clock ticks since boot.
        start_ticks: u64,
        /// Its user.
        uid: Uid,
        /// What it asked for.
        registration: Box<Registration>,
        /// What its settings page held before, when an agent served it earlier: generations only rise.
        resumed: Option<(Generation, Settings)>,
    },
    /// The process of a pipeline has ended, or the pipeline said farewell.
    Gone {
        /// Its name.
        name: PipelineName,
    },
    /// A human pins the knobs.
    Override {
        /// Pipeline.
        name: PipelineName,
        /// Who.
        uid: Uid,
        /// What.
        request: OverrideRequest,
    },
    /// A human frees the knobs.
    Free {
        /// Pipeline.
        name: PipelineName,
    },
    /// A pipeline without a report page says that it lives.
    Lease {
        /// Pipeline.
        name: PipelineName,
    },
    /// A pipeline without a report page says what it does.
    Report {
        /// Pipeline.
        name: PipelineName,
        /// What it says.
        report: Box<SignalsReport>,
    },
    /// A pipeline without a report page says what it runs by.
    Ack {
        /// Pipeline.
        name: PipelineName,
        /// What it says.
        ack: Acknowledgement,
    },
    /// Other bounds, within those of the registration.
    Bound {
        /// Pipeline.
        name: PipelineName,
        /// Who.
        uid: Uid,
        /// The bounds, and the pipeline's own settings as registered.
        knobs: Knobs,
    },
    /// A human wants the settings back that were before the newest change.
    RollBack {
        /// Pipeline.
        name: PipelineName,
        /// Who.
        uid: Uid,
    },
    /// A human says whether the agent may act.
    SetMode {
        /// Pipeline.
        name: PipelineName,
        /// Who.
        uid: Uid,
        /// What he says.
        mode: Mode,
    },
    /// CPU time that the tuned pipelines divide among them.
    CpuBudget {
        /// Cores.
        cores: f64,
    },
    /// All tuning stops: settings stay where they are.
    Pause,
    /// Tuning goes on.
    Resume,
    /// Somebody wants to see something for a while.
    Watch(Watch),
}

/// Somebody wants to see something for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// What.
    pub what: WatchKind,
    /// Whose; the whole host when absent.
    pub pid: Option<Pid>,
    /// Until when.
    pub until: Nanos,
}

/// What can be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WatchKind {
    /// On-CPU stacks.
    Cpu,
    /// System calls.
    Syscalls,
    /// Sockets.
    Sockets,
    /// Off-CPU and run-queue stacks.
    Sched,
    /// Wakers' stacks.
    Wakeups,
    /// Stacks of those who read from a watched socket.
    SocketStacks,
    /// What comes in and goes out by each descriptor of a process.
    Flows,
}

impl WatchKind {
    /// Name of the probes that bring it.
    pub fn family(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Syscalls => "syscalls",
            // The stacks come with the rows, by the same probes.
            Self::Sockets | Self::SocketStacks => "sockets",
            Self::Sched => "sched",
            Self::Wakeups => "wakeups",
            Self::Flows => "flows",
        }
    }
}
