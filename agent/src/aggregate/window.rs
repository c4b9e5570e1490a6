//! Tick windows: events in, what happened within one tick out. Cumulative counters become deltas here, never negative.
//!
//! A window is cut by a `Tick` event and covers what came before it. Everything is bounded; what does not fit makes
//! room and is counted. A fact that did not arrive is absent from the window, never zero.

use std::collections::BTreeMap;

use agent_common::{SocketRow, SyscallRow};

use crate::aggregate::lost::Lost;
use crate::aggregate::profiles::Profiles;
use crate::aggregate::report::{self, Levels, Report, ReportDelta, ReportFault};
use crate::aggregate::rows::{SocketRows, SocketTotals, SyscallRows, SyscallTotals, TaskDelta, TaskRows};
use crate::aggregate::table::Table;
use crate::event::{Body, Event, Input, Process};
use crate::units::{Nanos, Pid, PipelineName};

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Closed profile windows of 10 s.
    pub windows: usize,
    /// System call rows, 1.4 KiB each.
    pub syscalls: usize,
    /// Socket rows, 8 KiB each.
    pub sockets: usize,
    /// Process names, and cost rows.
    pub processes: usize,
    /// Pipelines.
    pub pipelines: usize,
    /// Bytes of a recording's table of names.
    pub names_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { windows: 31, syscalls: 4_096, sockets: 1_024, processes: 8_192, pipelines: 1_024, names_bytes: 64 << 20 }
    }
}

/// What happened within one tick.
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// Its first instant: the tick before.
    pub start: Nanos,
    /// Its last instant: its own tick.
    pub end: Nanos,
    /// What was lost in it.
    pub lost: Lost,
    /// By pipeline.
    pub pipelines: BTreeMap<PipelineName, PipelineWindow>,
}

/// What is known of one pipeline within one tick.
#[derive(Clone, Debug, Default)]
pub struct PipelineWindow {
    /// What its report said it holds now; absent when no good report came.
    pub levels: Option<Levels>,
    /// What happened between its last two good reports; absent when there is no pair.
    pub report: Option<ReportDelta>,
    /// Why a report was ignored.
    pub fault: Option<ReportFault>,
    /// Cost of its process.
    pub task: Option<TaskDelta>,
    /// System calls of its process.
    pub syscalls: Option<SyscallTotals>,
    /// Sockets of its process.
    pub sockets: Option<SocketTotals>,
}

/// Turns events into windows.
#[derive(Debug)]
pub struct Aggregator {
    limits: Limits,
    last_tick: Nanos,
    lost: Lost,
    lost_at_tick: Lost,
    profiles: Profiles,
    syscalls: SyscallRows,
    sockets: SocketRows,
    tasks: TaskRows,
    processes: Table<Pid, Process>,
    pipelines: BTreeMap<PipelineName, Reporter>,
    names: Option<Vec<u8>>,
}

/// The report side of a pipeline.
#[derive(Debug)]
struct Reporter {
    pid: Pid,
    before: Option<(Nanos, Report)>,
    newest: Option<(Nanos, Report)>,
    window: PipelineWindow,
}

impl Aggregator {
    /// Starts at `start`, with nothing.
    pub fn new(limits: Limits, start: Nanos) -> Self {
        Self {
            limits,
            last_tick: start,
            lost: Lost::default(),
            lost_at_tick: Lost::default(),
            profiles: Profiles::new(limits.windows, start),
            syscalls: SyscallRows::with_capacity(limits.syscalls),
            sockets: SocketRows::with_capacity(limits.sockets),
            tasks: TaskRows::with_capacity(limits.processes),
            processes: Table::with_capacity(limits.processes),
            pipelines: BTreeMap::new(),
            names: None,
        }
    }

    /// Takes in one event; a tick cuts a window.
    pub fn observe(&mut self, event: Event<'_>) -> Option<Window> {
        let Event { time, cpu: _, body } = event;
        match body {
            Body::CpuSample(sample) => self.profiles.observe(time, sample),
            Body::Syscall(row) => self.syscalls.observe(time, row),
            Body::Socket(row) => self.sockets.observe(time, row),
            Body::Loss(reason, count) => self.lost.set(reason, count),
            Body::Task(row) => self.tasks.observe(time, row),
            Body::Input(input) => self.input(&input),
            Body::Report(name, page) => self.report(time, &name, page),
            Body::Process(process) => {
                self.processes.put(time, process.pid, process);
            }
            Body::Names(json) if json.len() <= self.limits.names_bytes => self.names = Some(json.to_vec()),
            Body::Names(_too_long) => self.undecodable(),
            Body::Tick => return Some(self.cut(time)),
        }
        None
    }

    /// Counts a record that could not be decoded.
    pub fn undecodable(&mut self) {
        self.lost.undecodable = self.lost.undecodable.saturating_add(1);
    }

    /// Losses since the start.
    pub fn lost(&self) -> Lost {
        self.lost
    }

    /// The profile windows.
    pub fn profiles(&self) -> &Profiles {
        &self.profiles
    }

    /// The newest row of each (process, system call).
    pub fn syscalls(&self) -> impl Iterator<Item = &SyscallRow> {
        self.syscalls.table().iter().map(AsRef::as_ref)
    }

    /// The newest row of each socket.
    pub fn sockets(&self) -> impl Iterator<Item = &SocketRow> {
        self.sockets.table().iter().map(AsRef::as_ref)
    }

    /// Rows that had to make room: system calls, then sockets.
    pub fn evicted(&self) -> (u64, u64) {
        (self.syscalls.table().evicted(), self.sockets.table().evicted())
    }

    /// Who a process is, when it is known.
    pub fn process(&self, pid: Pid) -> Option<&Process> {
        self.processes.get(pid)
    }

    /// A pipeline is gone without having said so.
    pub fn forget(&mut self, name: &PipelineName) {
        self.pipelines.remove(name);
    }

    /// The table of names of a recording, once it was seen.
    pub fn names(&self) -> Option<&[u8]> {
        self.names.as_deref()
    }

    fn input(&mut self, input: &Input) {
        match input {
            Input::Register { name, pid, .. } => {
                if self.pipelines.len() < self.limits.pipelines || self.pipelines.contains_key(name) {
                    // The counters start anew with a registration, also when it is the same process again.
                    let fresh = Reporter { pid: *pid, before: None, newest: None, window: PipelineWindow::default() };
                    self.pipelines.insert(name.clone(), fresh);
                }
            }
            Input::Gone { name } => {
                self.pipelines.remove(name);
            }
            Input::Override { .. }
            | Input::Free { .. }
            | Input::Lease { .. }
            | Input::Pause
            | Input::Resume
            | Input::Watch(_) => {}
        }
    }

    fn report(&mut self, time: Nanos, name: &PipelineName, page: Result<&[u8], i32>) {
        let Some(reporter) = self.pipelines.get_mut(name) else {
            return; // Read before its pipeline left: it tells nobody anything.
        };
        let report = match page.map_err(ReportFault::Unreadable).and_then(report::parse) {
            Ok(report) => report,
            Err(fault) => {
                reporter.window.fault = Some(fault);
                return;
            }
        };
        let levels = report.levels();
        let delta = match &reporter.before {
            Some((then, before)) if time > *then => Some(report.since(before, time.since(*then))),
            Some(_) => return, // Twice at one instant: the first counts.
            None => None,
        };
        // Whatever is said of the pair, the newest page is the next baseline: a restarted counter costs one tick.
        reporter.newest = Some((time, report));
        match delta {
            Some(Err(fault)) => reporter.window.fault = Some(fault),
            Some(Ok(delta)) => {
                reporter.window.levels = Some(levels);
                reporter.window.report = Some(delta);
            }
            None => reporter.window.levels = Some(levels),
        }
    }

    fn cut(&mut self, now: Nanos) -> Window {
        self.profiles.tick(now);
        let watched: std::collections::BTreeSet<Pid> = self.pipelines.values().map(|r| r.pid).collect();
        let syscalls = self.syscalls.cut(|pid| watched.contains(&pid));
        let sockets = self.sockets.cut(|pid| watched.contains(&pid));
        let tasks = self.tasks.cut();
        let pipelines = self
            .pipelines
            .iter_mut()
            .map(|(name, reporter)| {
                let mut window = std::mem::take(&mut reporter.window);
                reporter.before = reporter.newest.take().or_else(|| reporter.before.take());
                window.task = tasks.get(&reporter.pid).copied();
                window.syscalls = syscalls.get(&reporter.pid).copied();
                window.sockets = sockets.get(&reporter.pid).copied();
                (name.clone(), window)
            })
            .collect();
        let lost = self.lost.since(&self.lost_at_tick);
        self.lost_at_tick = self.lost;
        let (start, end) = (self.last_tick, now.max(self.last_tick));
        self.last_tick = end;
        Window { start, end, lost, pipelines }
    }
}
