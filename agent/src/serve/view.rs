//! What the agent shows at one tick: made by the run loop, read by the routes. A view is never changed, only replaced.

use std::collections::VecDeque;
use std::sync::Arc;

use agent_common::{SocketRow, SyscallRow};
use serde::{Deserialize, Serialize};
use tidegate_client::abi::{DecisionJson, Knobs, Registration, SignalsJson};

use crate::aggregate::lost::Lost;
use crate::aggregate::stacks::StackCounts;
use crate::event::Comm;
use crate::serve::losses::LossLog;
use crate::units::{Generation, Nanos, Pid, PipelineName, ProfileKind, Ratio, Settings, Uid};

/// Everything the routes may show.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Time of the tick it was made at.
    pub now: Nanos,
    /// When the agent started.
    pub started: Nanos,
    /// Whether tuning is paused.
    pub paused: bool,
    /// Registered pipelines, by name.
    pub pipelines: Vec<PipelineView>,
    /// Closed slices of 1 s of the open profile window, oldest first.
    pub slices: Vec<Arc<StackCounts>>,
    /// End of the newest profile window that has closed.
    pub closed: Nanos,
    /// Profile windows lost because the thread that names them was behind.
    pub windows_lost: u64,
    /// Kinds of profiles that are being recorded.
    pub recorded: Arc<[ProfileKind]>,
    /// System calls by process and call: cumulative counters, also of what was watched earlier.
    pub syscalls: Arc<Vec<Listed<SyscallRow>>>,
    /// Sockets, likewise.
    pub sockets: Arc<Vec<Listed<SocketRow>>>,
    /// Where the budget of the agent's own cost stands.
    pub budget: BudgetView,
    /// How those do who look names up.
    pub names: NamesView,
    /// How the history does; absent where there is none.
    pub history: Option<HistoryView>,
    /// Losses since the start.
    pub lost: Lost,
    /// Losses over time.
    pub losses: LossLog,
    /// What the agent itself costs.
    pub own: OwnCost,
    /// Which probes are attached.
    pub attached: Vec<&'static str>,
    /// What is worth knowing of the way in which they see.
    pub remarks: Vec<String>,
    /// What cannot be seen here, each with its cause.
    pub degraded: Vec<String>,
}

/// A row as it came from the kernel, and whose it is. Cheap to copy: the row is shared with the table it is kept in, which
/// holds another one as soon as it changes.
#[derive(Clone, Debug)]
pub struct Listed<R> {
    /// The row.
    pub row: Arc<R>,
    /// Name of the main thread of its process, when it is known.
    pub comm: Option<Comm>,
}

/// One pipeline.
#[derive(Clone, Debug)]
pub struct PipelineView {
    /// Its name.
    pub name: PipelineName,
    /// Its process.
    pub pid: Pid,
    /// Its user.
    pub uid: Uid,
    /// What it asked for.
    pub registration: Arc<Registration>,
    /// Its bounds in force: as registered, or narrower.
    pub bounds: Knobs,
    /// Where its control stands.
    pub state: TuningState,
    /// Settings in force.
    pub settings: Settings,
    /// Their generation.
    pub generation: Generation,
    /// Newest signals.
    pub signals: SignalsJson,
    /// Decisions, oldest first; bounded.
    pub decisions: Arc<VecDeque<Arc<DecisionJson>>>,
    /// Decisions so far by reason.
    pub decisions_by_reason: Vec<(&'static str, u64)>,
}

/// Where the control of a pipeline stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TuningState {
    /// Advice only.
    Observe,
    /// The agent sets the knobs.
    On,
    /// A human, or somebody else, holds the knobs: hands off.
    Manual,
    /// Tuning is paused.
    Paused,
}

/// Where the budget of the agent's own cost stands.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BudgetView {
    /// Share of the host that it may cost.
    pub budget: Ratio,
    /// Share that it cost over the last ten seconds; absent when that is not known yet.
    pub share: Option<Ratio>,
    /// Step of the ladder: 0 when nothing is left out.
    pub step: usize,
    /// Time between two samples of a CPU.
    pub cpu_period: Nanos,
    /// It is so many times as long as configured.
    pub cpu_factor: u32,
    /// Time between two stacks of waits is so many times as long.
    pub wait_factor: u32,
    /// Kinds that are not recorded unless somebody asks.
    pub shed: &'static [ProfileKind],
}

impl BudgetView {
    /// What is left out, in words; nothing while nothing is.
    pub fn degraded(&self) -> Option<String> {
        use std::fmt::Write as _;
        if self.step == 0 {
            return None;
        }
        let percent = |share: Ratio| share.0 * 100.0;
        let mut text = format!("budget: the agent may cost {} % of the host", percent(self.budget));
        let mut say = |part: std::fmt::Arguments<'_>| text.write_fmt(part).expect("a string takes everything");
        if let Some(share) = self.share {
            say(format_args!(" and cost {:.2} %", percent(share)));
        }
        say(format_args!(", step {}:", self.step));
        if self.cpu_factor > 1 {
            say(format_args!(" CPUs are sampled {} times as rarely,", self.cpu_factor));
        }
        if self.wait_factor > 1 {
            say(format_args!(" stacks of waits {} times as rarely (their totals stay exact),", self.wait_factor));
        }
        for kind in self.shed {
            say(format_args!(" no {kind},"));
        }
        text.pop();
        text.push_str(" (raise `[budget] percent` in the configuration, or ask for what is missing with seconds=)");
        Some(text)
    }
}

/// How those do who look names up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamesView {
    /// The process that reads files of programs, if one runs.
    pub symbolizer: Option<Pid>,
    /// Such processes started.
    pub started: u64,
    /// Such processes that died of a file or had to be ended.
    pub died: u64,
    /// Files that were not shown to them.
    pub refused: u64,
    /// Files whose functions are named, and what was inlined into them is not.
    pub without_inlined: u64,
    /// Addresses that are known.
    pub addresses: u64,
    /// What works less well, in words.
    pub degraded: Option<String>,
}

/// How the history does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistoryView {
    /// Bytes of the database in use.
    pub bytes: u64,
    /// Windows in it.
    pub windows: u64,
    /// Records taken since the start.
    pub taken: u64,
    /// Records that did not get there, by cause.
    pub lost: [(&'static str, u64); 3],
}

/// What the agent itself costs, since its start.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct OwnCost {
    /// CPU time in user space, ns.
    pub user_cpu_ns: u64,
    /// CPU time in the kernel on its behalf, ns.
    pub system_cpu_ns: u64,
    /// Resident memory, bytes.
    pub resident_bytes: u64,
    /// CPU time of the processes that it started, user and kernel, ns.
    pub children_cpu_ns: u64,
    /// CPU time that the host did not get from the one it runs on (a virtual machine's steal time), ns, of all CPUs.
    pub steal_ns: Option<u64>,
    /// Run time of its probes, ns; absent where the kernel keeps no statistics.
    pub probes_ns: Option<u64>,
}

impl OwnCost {
    /// CPU time of the agent and its children.
    pub fn cpu(&self) -> Nanos {
        Nanos(self.user_cpu_ns) + Nanos(self.system_cpu_ns) + Nanos(self.children_cpu_ns)
    }
}

/// A row of the system call listing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SyscallJson {
    /// Process.
    pub pid: u32,
    /// Name of its main thread.
    pub comm: String,
    /// Name of the call, or `syscall_N`.
    pub syscall: String,
    /// Calls that have returned.
    pub calls: u64,
    /// Calls that have not returned yet.
    pub in_flight: u64,
    /// Returned with an error.
    pub errors: u64,
    /// Interrupted, restarted by the kernel; not errors.
    pub restarts: u64,
    /// Bytes moved; absent for calls whose result is no byte count.
    pub bytes: Option<u64>,
    /// Sum of latencies, from the mean of those that were timed; absent when none was.
    pub total_ns: Option<u64>,
    /// Median latency; absent when none was seen.
    pub p50_ns: Option<u64>,
    /// 99th percentile.
    pub p99_ns: Option<u64>,
    /// Calls that were not timed: not chosen, slot shared, or begun before the probe.
    pub untimed: u64,
}

/// A row of the socket listing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SocketJson {
    /// Process.
    pub pid: u32,
    /// Name of its main thread.
    pub comm: String,
    /// Descriptor; absent once closed.
    pub fd: Option<i32>,
    /// `tcp`, `udp`, `unix` (stream), `unixgram` or `unixpacket`.
    pub kind: &'static str,
    /// Local end.
    pub local: String,
    /// Remote end.
    pub remote: String,
    /// Inode number, as `/proc/PID/fd` shows it.
    pub inode: u64,
    /// Bytes that wait to be read.
    pub receive_queue_bytes: u64,
    /// Bytes written, not yet taken by the peer.
    pub send_queue_bytes: u64,
    /// Reads that took bytes.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Age of the oldest byte of a read, median, ns.
    pub oldest_p50_ns: Option<u64>,
    /// Same, 99th percentile.
    pub oldest_p99_ns: Option<u64>,
    /// Age of bytes when read, byte-weighted mean, ns.
    pub mean_ns: Option<u64>,
    /// Age of bytes when read, byte-weighted median, ns.
    pub p50_ns: Option<u64>,
    /// Same, 99th percentile.
    pub p99_ns: Option<u64>,
    /// Bytes read whose arrival was not seen.
    pub unmeasured_bytes: u64,
    /// Packets refused because the queue was full.
    pub overflows: u64,
}
