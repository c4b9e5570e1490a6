//! Tick windows: events in, what happened within one tick out. Cumulative counters become deltas here, never negative.
//!
//! A window is cut by a `Tick` event and covers what came before it. Everything is bounded; what does not fit makes
//! room and is counted. A fact that did not arrive is absent from the window, never zero.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use agent_common::{SocketRow, SyscallRow};

use crate::aggregate::flows::{FlowDelta, FlowRows};
use crate::aggregate::ledger::Ledger;
use crate::aggregate::lost::Lost;
use crate::aggregate::profiles::Profiles;
use crate::aggregate::report::{Levels, ReportDelta, ReportFault};
use crate::aggregate::reporter::Reporter;
use crate::aggregate::rows::{SocketRows, SocketTotals, SyscallRows, SyscallTotals, TaskDelta, TaskRows};
use crate::aggregate::stacks::StackCounts;
use crate::aggregate::table::Table;
use crate::aggregate::usage::{UsageDelta, UsageRows};
use crate::event::{Body, Event, Input, Mapping, Process};
use crate::units::{Nanos, Pid, PipelineName};

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Closed profile windows of 10 s that wait to be taken.
    pub windows: usize,
    /// System call rows, 1.4 KiB each.
    pub syscalls: usize,
    /// Socket rows, 8 KiB each.
    pub sockets: usize,
    /// Descriptors of watched processes, 1 KiB each.
    pub flows: usize,
    /// Process names, and cost rows.
    pub processes: usize,
    /// Pipelines.
    pub pipelines: usize,
    /// Mappings that wait to be taken.
    pub mappings: usize,
    /// Bytes of a recording's table of names.
    pub names_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            windows: 3,
            syscalls: 4_096,
            sockets: 1_024,
            flows: 1_024,
            processes: 8_192,
            pipelines: 1_024,
            mappings: 32_768,
            names_bytes: 64 << 20,
        }
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
    /// What its process uses and waits for.
    pub usage: Option<UsageDelta>,
    /// System calls of its process.
    pub syscalls: Option<SyscallTotals>,
    /// Sockets of its process.
    pub sockets: Option<SocketTotals>,
    /// What moved through the descriptors of its process that were used; absent before the kernel has told of any,
    /// and while nobody looks at a pipeline that reports.
    pub flows: Option<Arc<[FlowDelta]>>,
}

/// Turns events into windows.
#[derive(Debug)]
pub struct Aggregator {
    limits: Limits,
    last_tick: Nanos,
    lost: Lost,
    lost_at_tick: Lost,
    ledger: Ledger,
    profiles: Profiles,
    syscalls: SyscallRows,
    sockets: SocketRows,
    flows: FlowRows,
    tasks: TaskRows,
    usages: UsageRows,
    /// Processes whose descriptors are counted.
    counted: BTreeSet<Pid>,
    processes: Table<Pid, Process>,
    pipelines: BTreeMap<PipelineName, Reporter>,
    mappings: VecDeque<Mapping>,
    names: Option<Vec<u8>>,
}

impl Aggregator {
    /// Starts at `start`, with nothing.
    pub fn new(limits: Limits, start: Nanos) -> Self {
        Self {
            limits,
            last_tick: start,
            lost: Lost::default(),
            lost_at_tick: Lost::default(),
            ledger: Ledger::default(),
            profiles: Profiles::new(limits.windows, start),
            syscalls: SyscallRows::with_capacity(limits.syscalls),
            sockets: SocketRows::with_capacity(limits.sockets),
            flows: FlowRows::with_capacity(limits.flows),
            tasks: TaskRows::with_capacity(limits.processes),
            usages: UsageRows::with_capacity(limits.pipelines),
            counted: BTreeSet::new(),
            processes: Table::with_capacity(limits.processes),
            pipelines: BTreeMap::new(),
            mappings: VecDeque::new(),
            names: None,
        }
    }

    /// Takes in one event; a tick cuts a window.
    pub fn observe(&mut self, event: Event<'_>) -> Option<Window> {
        let Event { time, cpu: _, body } = event;
        match body {
            Body::Stack(sample) => self.profiles.observe(time, *sample),
            Body::Thread(row) => self.profiles.observe_thread(time, &row),
            // For whoever looks names up; nothing is counted by it.
            Body::Mapping(mapping) => self.mapping(*mapping),
            Body::Ledger(row) => self.ledger = Ledger(row),
            Body::Syscall(row) => self.syscalls.observe(time, row),
            Body::Socket(row) => self.sockets.observe(time, row),
            Body::Flow(row) => self.flows.observe(time, &row),
            Body::Loss(reason, count) => self.lost.set(reason, count),
            Body::Task(row) => self.tasks.observe(time, row),
            Body::Usage(row) => self.usages.observe(time, *row),
            Body::Input(input) => self.input(time, &input),
            Body::Report(name, page) => self.reporter(&name, |reporter| reporter.page(time, page)),
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

    /// What became of the sampler's firings since the start.
    pub fn ledger(&self) -> Ledger {
        self.ledger
    }

    /// The profile windows.
    pub fn profiles(&self) -> &Profiles {
        &self.profiles
    }

    /// The profile windows that have closed since they were last taken, oldest first.
    pub fn take_closed(&mut self) -> Vec<Arc<StackCounts>> {
        self.profiles.take_closed()
    }

    /// The newest row of each (process, system call).
    pub fn syscalls(&self) -> impl Iterator<Item = &Arc<SyscallRow>> {
        self.syscalls.table().iter()
    }

    /// The newest row of each socket.
    pub fn sockets(&self) -> impl Iterator<Item = &Arc<SocketRow>> {
        self.sockets.table().iter()
    }

    /// Rows that had to make room: system calls, then sockets.
    pub fn evicted(&self) -> (u64, u64) {
        (self.syscalls.table().evicted(), self.sockets.table().evicted())
    }

    /// Who a process is, when it is known.
    pub fn process(&self, pid: Pid) -> Option<&Process> {
        self.processes.get(pid)
    }

    /// The processes whose descriptors are counted from now on: of any other, nothing is known.
    pub fn set_counted(&mut self, counted: BTreeSet<Pid>) {
        self.counted = counted;
    }

    /// A pipeline is gone without having said so.
    pub fn forget(&mut self, name: &PipelineName) {
        self.pipelines.remove(name);
    }

    /// The table of names of a recording, once it was seen.
    pub fn names(&self) -> Option<&[u8]> {
        self.names.as_deref()
    }

    /// Keeps where code is mapped until it is taken; of what nobody takes, the newest.
    fn mapping(&mut self, mapping: Mapping) {
        if self.mappings.len() >= self.limits.mappings {
            self.mappings.pop_front();
        }
        self.mappings.push_back(mapping);
    }

    /// Where code is mapped, as far as it has been told since it was last taken.
    pub fn take_mappings(&mut self) -> Vec<Mapping> {
        self.mappings.drain(..).collect()
    }

    fn input(&mut self, time: Nanos, input: &Input) {
        match input {
            Input::Register { name, pid, .. } => {
                if self.pipelines.len() < self.limits.pipelines || self.pipelines.contains_key(name) {
                    // The counters start anew with a registration, also when it is the same process again.
                    self.pipelines.insert(name.clone(), Reporter::new(*pid));
                }
            }
            Input::Gone { name } => {
                self.pipelines.remove(name);
            }
            Input::Report { name, report } => self.reporter(name, |reporter| reporter.posted(time, report)),
            Input::Ack { name, ack } => self.reporter(name, |reporter| reporter.acknowledged(*ack)),
            Input::Watch(_)
            | Input::Override { .. }
            | Input::Bound { .. }
            | Input::RollBack { .. }
            | Input::SetMode { .. }
            | Input::Free { .. }
            | Input::Lease { .. }
            | Input::CpuBudget { .. }
            | Input::Pause
            | Input::Resume => {}
        }
    }

    /// Somebody's page may be read once more after its pipeline left: that tells nobody anything.
    fn reporter(&mut self, name: &PipelineName, tell: impl FnOnce(&mut Reporter)) {
        if let Some(reporter) = self.pipelines.get_mut(name) {
            tell(reporter);
        }
    }

    fn cut(&mut self, now: Nanos) -> Window {
        self.profiles.tick(now);
        let watched: BTreeSet<Pid> = self.pipelines.values().map(|r| r.pid).collect();
        let syscalls = self.syscalls.cut(|pid| watched.contains(&pid));
        let sockets = self.sockets.cut(|pid| watched.contains(&pid));
        // What is not counted is not known: it is no idleness.
        let flows = self.flows.cut(|pid| self.counted.contains(&pid));
        let flows = flows.into_iter().filter(|(pid, _)| self.counted.contains(pid));
        let flows: BTreeMap<Pid, Arc<[FlowDelta]>> = flows.map(|(pid, deltas)| (pid, deltas.into())).collect();
        let tasks = self.tasks.cut();
        let usages = self.usages.cut();
        let pipelines = self
            .pipelines
            .iter_mut()
            .map(|(name, reporter)| {
                let mut window = reporter.cut();
                window.task = tasks.get(&reporter.pid).copied();
                window.usage = usages.get(&reporter.pid).copied();
                window.syscalls = syscalls.get(&reporter.pid).copied();
                window.sockets = sockets.get(&reporter.pid).copied();
                window.flows = flows.get(&reporter.pid).cloned();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::flows::tests::row;
    use crate::event::{Decoder, RawBatch, encode};
    use crate::source::sim::page;
    use crate::units::Uid;
    use proptest::prelude::*;
    use tidegate_client::abi::{Acknowledgement, REPORT_HISTOGRAM_WORDS, REPORT_WORDS, SignalsReport};

    fn name() -> PipelineName {
        PipelineName::try_from("p".to_owned()).unwrap()
    }

    fn register(batch: &mut RawBatch) {
        let registration = r#"{"knobs":{"batch_bytes":{"min":1,"max":2,"default":1},
            "flush_interval_us":{"min":1,"max":2,"default":1}},"report":"/r"}"#;
        let input = Input::Register {
            name: name(),
            pid: Pid(7),
            start_ticks: 1,
            uid: Uid(0),
            registration: serde_json::from_str(registration).unwrap(),
            resumed: None,
        };
        encode::input(batch, Nanos(0), &input);
    }

    fn report(batch: &mut RawBatch, time: u64, events: u64) {
        let mut words = [0; REPORT_WORDS];
        words[0] = events;
        let page = page::render(&words, &[0; REPORT_HISTOGRAM_WORDS]);
        encode::report(batch, Nanos(time), &name(), Ok(&page));
    }

    fn windows(aggregator: &mut Aggregator, batch: &RawBatch) -> Vec<Window> {
        Decoder::new(batch.bytes()).flatten().filter_map(|event| aggregator.observe(event)).collect()
    }

    #[test]
    fn every_event_between_two_good_reports_is_counted_once() {
        let mut batch = RawBatch::new();
        register(&mut batch);
        // Twice within a tick, then not at all, then cut short, then again.
        for (time, events) in [(10, 5), (60, 9), (110, 20), (160, 26)] {
            report(&mut batch, time, events);
            if time % 100 == 60 {
                encode::tick(&mut batch, Nanos(time + 40));
            }
        }
        encode::tick(&mut batch, Nanos(300));
        encode::report(&mut batch, Nanos(400), &name(), Ok(&[0; 17]));
        encode::tick(&mut batch, Nanos(400));
        report(&mut batch, 500, 96);
        encode::tick(&mut batch, Nanos(500));
        let seen = windows(&mut Aggregator::new(Limits::default(), Nanos(0)), &batch);
        let deltas: Vec<Option<(u64, u64)>> =
            seen.iter().map(|w| w.pipelines[&name()].report.as_ref().map(|r| (r.events_in, r.span.0))).collect();
        assert_eq!(deltas, [None, Some((17, 100)), None, None, Some((70, 340))]);
        assert_eq!(seen[3].pipelines[&name()].fault, Some(ReportFault::Size(17)));
        assert_eq!((seen[4].start, seen[4].end), (Nanos(400), Nanos(500)));
    }

    #[test]
    fn descriptors_that_nobody_looks_at_any_more_are_unknown_not_idle() {
        let (mut while_looked_at, mut after) = (RawBatch::new(), RawBatch::new());
        register(&mut while_looked_at);
        encode::flow(&mut while_looked_at, Nanos(100), &row(4, 0, 50, 9));
        for (batch, time) in [(&mut while_looked_at, 100), (&mut after, 300)] {
            encode::tick(batch, Nanos(time));
            encode::tick(batch, Nanos(time + 100));
        }
        let mut aggregator = Aggregator::new(Limits::default(), Nanos(0));
        aggregator.set_counted(BTreeSet::from([Pid(7)]));
        let mut seen = windows(&mut aggregator, &while_looked_at);
        aggregator.set_counted(BTreeSet::new());
        seen.extend(windows(&mut aggregator, &after));
        let known: Vec<Option<usize>> =
            seen.iter().map(|w| w.pipelines[&name()].flows.as_ref().map(|flows| flows.len())).collect();
        assert_eq!(known, [Some(1), Some(0), None, None]);
    }

    fn told(counts: &[u64]) -> Vec<Option<u64>> {
        let mut batch = RawBatch::new();
        register(&mut batch);
        for (time, events) in (1..).zip(counts) {
            report(&mut batch, time * 100, *events);
            encode::tick(&mut batch, Nanos(time * 100));
        }
        let seen = windows(&mut Aggregator::new(Limits::default(), Nanos(0)), &batch);
        seen.iter().skip(1).map(|w| w.pipelines[&name()].report.as_ref().map(|r| r.events_in)).collect()
    }

    #[test]
    fn one_fallen_report_is_passed_over_and_makes_no_burst() {
        assert_eq!(told(&[50, 55, 25, 66, 70]), [Some(5), None, Some(11), Some(4)]);
    }

    #[test]
    fn counters_that_stay_down_have_started_anew() {
        assert_eq!(told(&[50, 55, 2, 4, 6, 9]), [Some(5), None, None, None, Some(3)]);
    }

    fn post(batch: &mut RawBatch, time: u64, sequence: u64, events_in: u64) {
        let report = Box::new(SignalsReport { sequence, events_in, ..SignalsReport::default() });
        encode::input(batch, Nanos(time), &Input::Report { name: name(), report });
    }

    #[test]
    fn a_report_over_the_socket_counts_once_however_often_it_comes() {
        let mut batch = RawBatch::new();
        register(&mut batch);
        // The second comes twice, and the first once more, late; then one without a tick in between.
        for (time, sequence, events) in [(50, 1, 5), (150, 2, 9), (160, 2, 9), (170, 1, 5), (250, 3, 19), (260, 4, 20)]
        {
            if time % 100 == 50 {
                encode::tick(&mut batch, Nanos(time - 50));
            }
            post(&mut batch, time, sequence, events);
        }
        encode::tick(&mut batch, Nanos(300));
        let seen = windows(&mut Aggregator::new(Limits::default(), Nanos(0)), &batch);
        let of = |w: &Window| w.pipelines[&name()].report.as_ref().map(|r| (r.events_in, r.span.0));
        assert_eq!(seen.iter().map(of).collect::<Vec<_>>(), [None, None, Some((4, 100)), Some((11, 110))]);
        assert!(seen.iter().all(|w| w.pipelines[&name()].fault.is_none()), "a repetition looks like a fall");
    }

    #[test]
    fn what_a_pipeline_acknowledged_is_what_its_reports_say_it_runs_by() {
        let mut batch = RawBatch::new();
        register(&mut batch);
        let ack = |sequence, generation, batch_bytes| {
            let ack = Acknowledgement { sequence, generation, batch_bytes, flush_interval_us: 2 };
            Input::Ack { name: name(), ack }
        };
        encode::input(&mut batch, Nanos(10), &ack(5, 8, 4096));
        encode::input(&mut batch, Nanos(11), &ack(4, 7, 1024));
        post(&mut batch, 20, 6, 1);
        encode::tick(&mut batch, Nanos(100));
        let seen = windows(&mut Aggregator::new(Limits::default(), Nanos(0)), &batch);
        let levels = seen[0].pipelines[&name()].levels.expect("a report came");
        assert_eq!((levels.generation.0, levels.in_use.batch.0, levels.in_use.interval.0), (8, 4096, 2));
    }

    #[test]
    fn a_report_of_nobody_tells_nothing() {
        let mut batch = RawBatch::new();
        report(&mut batch, 10, 5);
        encode::tick(&mut batch, Nanos(100));
        assert!(windows(&mut Aggregator::new(Limits::default(), Nanos(0)), &batch)[0].pipelines.is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_make_windows_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            let mut aggregator = Aggregator::new(Limits::default(), Nanos(0));
            for window in windows(&mut aggregator, &RawBatch::from_bytes(bytes)) {
                prop_assert!(window.end >= window.start);
            }
        }

        #[test]
        fn counters_of_any_kind_never_yield_more_than_they_rose(counts in proptest::collection::vec(any::<u64>(), 2..30)) {
            let mut batch = RawBatch::new();
            register(&mut batch);
            for (time, events) in (1..).zip(&counts) {
                report(&mut batch, time * 100_000_000, *events);
                encode::tick(&mut batch, Nanos(time * 100_000_000));
            }
            let seen = windows(&mut Aggregator::new(Limits::default(), Nanos(0)), &batch);
            for (nth, window) in seen.iter().enumerate().skip(1) {
                let pipeline = &window.pipelines[&name()];
                let lowest = counts[..nth].iter().copied().min().unwrap_or(0);
                if let Some(delta) = &pipeline.report {
                    prop_assert!(delta.events_in <= counts[nth] - lowest && delta.events_in <= delta.span.0);
                } else {
                    prop_assert!(pipeline.fault.is_some(), "nothing said, and no reason");
                }
            }
        }
    }
}
