//! What watched processes cost, by perf events: task clock, context switches, page faults; cycles and instructions where
//! there is a PMU.

use std::collections::{BTreeSet, HashMap};

use agent_common::TaskRow;
use perf_event::events::{Event, Hardware, Software};
use perf_event::{Builder, Counter};
use procfs::process::Process;

use crate::event::{RawBatch, encode};
use crate::units::{Nanos, Pid};

/// Threads of one process that are counted by perf events; a process with more is read from /proc.
const MOST_THREADS: usize = 64;
/// Perf events in all: each is a descriptor of the agent's, and a pipeline must not use them up by starting threads.
const MOST_EVENTS: usize = 4096;
/// Perf events of one thread.
const EVENTS_A_THREAD: usize = 5;

/// Counters of the watched processes.
#[derive(Default)]
pub struct Tasks {
    watched: HashMap<Pid, Counters>,
}

impl std::fmt::Debug for Tasks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.watched.keys()).finish()
    }
}

/// One event on every thread of a process; threads that are born later are counted with their parent. Without any event
/// the CPU time comes from /proc, in clock ticks, and the rest stays unknown.
#[derive(Default)]
struct Counters {
    threads: u32,
    task_clock: Vec<Counter>,
    context_switches: Vec<Counter>,
    page_faults: Vec<Counter>,
    cycles: Vec<Counter>,
    instructions: Vec<Counter>,
}

impl Tasks {
    /// Appends a row for each wanted process that can be counted.
    pub fn append(&mut self, wanted: &BTreeSet<Pid>, now: Nanos, batch: &mut RawBatch) {
        self.watched.retain(|pid, _| wanted.contains(pid));
        for pid in wanted {
            let room = MOST_EVENTS.saturating_sub(self.watched.values().map(Counters::events).sum());
            let counters = match self.watched.entry(*pid) {
                std::collections::hash_map::Entry::Occupied(o) => o.into_mut(),
                std::collections::hash_map::Entry::Vacant(v) => match open(*pid, room) {
                    Some(counters) => v.insert(counters),
                    None => continue, // Gone, or not ours to see: its cost stays unknown.
                },
            };
            encode::task(batch, now, &counters.row(*pid));
        }
    }
}

impl Counters {
    fn events(&self) -> usize {
        let Self { threads: _, task_clock, context_switches, page_faults, cycles, instructions } = self;
        task_clock.len() + context_switches.len() + page_faults.len() + cycles.len() + instructions.len()
    }

    fn row(&mut self, pid: Pid) -> TaskRow {
        TaskRow {
            pid: pid.0,
            threads: self.threads,
            task_clock_ns: if self.task_clock.is_empty() { cpu_time(pid) } else { sum(&mut self.task_clock) },
            context_switches: sum(&mut self.context_switches),
            page_faults: sum(&mut self.page_faults),
            cycles: sum(&mut self.cycles),
            instructions: sum(&mut self.instructions),
        }
    }
}

/// The sum over all threads; `u64::MAX` when there is no counter.
fn sum(counters: &mut [Counter]) -> u64 {
    if counters.is_empty() {
        return u64::MAX;
    }
    counters.iter_mut().filter_map(|c| c.read().ok()).fold(0, u64::saturating_add)
}

/// CPU time of a process from /proc, `u64::MAX` when it has gone.
fn cpu_time(pid: Pid) -> u64 {
    let stat = i32::try_from(pid.0).ok().and_then(|pid| Process::new(pid).ok()?.stat().ok());
    stat.map_or(u64::MAX, |s| (s.utime + s.stime).saturating_mul(1_000_000_000 / procfs::ticks_per_second()))
}

fn open(pid: Pid, room: usize) -> Option<Counters> {
    let process = Process::new(i32::try_from(pid.0).ok()?).ok()?;
    let tids: Vec<i32> = process.tasks().ok()?.filter_map(Result::ok).map(|t| t.tid).collect();
    let plain = Counters { threads: u32::try_from(tids.len()).unwrap_or(u32::MAX), ..Counters::default() };
    if tids.len() > MOST_THREADS || tids.len() * EVENTS_A_THREAD > room {
        return Some(plain);
    }
    // Whole or not at all: a counter that misses a thread tells too little, and does not say so.
    let each = |event: &dyn Fn() -> Event| -> Vec<Counter> {
        let all: Option<Vec<Counter>> = tids.iter().map(|tid| count(*tid, event())).collect();
        all.unwrap_or_default()
    };
    Some(Counters {
        task_clock: each(&|| Software::TASK_CLOCK.into()),
        context_switches: each(&|| Software::CONTEXT_SWITCHES.into()),
        page_faults: each(&|| Software::PAGE_FAULTS.into()),
        cycles: each(&|| Hardware::CPU_CYCLES.into()),
        instructions: each(&|| Hardware::INSTRUCTIONS.into()),
        ..plain
    })
}

fn count(tid: i32, event: Event) -> Option<Counter> {
    let mut builder = Builder::new().kind(event).observe_pid(tid);
    builder.include_kernel().inherit(true);
    let mut counter = builder.build().ok()?;
    counter.enable().ok()?;
    Some(counter)
}
