//! What watched processes cost: CPU time by their own clock, context switches by the scheduler's books; while somebody looks
//! at one, page faults, and cycles and instructions where there is a PMU, by perf events. These are not for all the time:
//! a perf event on each thread is put in and taken out with it, and a pipeline that wakes often pays a tenth of its CPU time.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use agent_common::{NOT_TOLD, TaskRow};
use perf_event::events::{Event, Hardware, Software};
use perf_event::{Builder, Counter};
use procfs::process::Process;

use crate::event::{RawBatch, encode};
use crate::source::cpu_time;
use crate::source::threads::Scheduled;
use crate::units::{Nanos, Pid};

/// Threads of one process that are counted by perf events.
const MOST_THREADS: usize = 64;
/// Perf events in all: each is a descriptor of the agent's, and a pipeline must not use them up by starting threads.
const MOST_EVENTS: usize = 4096;
/// Perf events of one thread.
const EVENTS_A_THREAD: usize = 3;

/// Counters of the processes that somebody looks at.
#[derive(Default)]
pub struct Tasks {
    watched: HashMap<Pid, Counters>,
}

impl std::fmt::Debug for Tasks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.watched.keys()).finish()
    }
}

/// One event on every thread of a process; threads that are born later are counted with their parent.
#[derive(Default)]
struct Counters {
    page_faults: Vec<Counter>,
    cycles: Vec<Counter>,
    instructions: Vec<Counter>,
}

impl Tasks {
    /// Appends a row for each process in `scheduled`; perf events are for those in `counted`.
    pub fn append(
        &mut self,
        scheduled: &BTreeMap<Pid, Scheduled>,
        counted: &BTreeSet<Pid>,
        now: Nanos,
        batch: &mut RawBatch,
    ) {
        self.watched.retain(|pid, _| counted.contains(pid));
        for (pid, scheduled) in scheduled {
            let Some(cpu) = cpu_time::of_process(*pid) else { continue };
            let counters = counted.contains(pid).then(|| self.counters(*pid)).flatten();
            encode::task(batch, now, &row(*pid, cpu, scheduled, counters));
        }
    }

    fn counters(&mut self, pid: Pid) -> Option<&mut Counters> {
        if !self.watched.contains_key(&pid) {
            let room = MOST_EVENTS.saturating_sub(self.watched.values().map(Counters::events).sum());
            self.watched.insert(pid, open(pid, room)?);
        }
        self.watched.get_mut(&pid)
    }
}

impl Counters {
    fn events(&self) -> usize {
        let Self { page_faults, cycles, instructions } = self;
        page_faults.len() + cycles.len() + instructions.len()
    }
}

fn row(pid: Pid, cpu: Nanos, scheduled: &Scheduled, counters: Option<&mut Counters>) -> TaskRow {
    let (page_faults, cycles, instructions) = counters.map_or((NOT_TOLD, NOT_TOLD, NOT_TOLD), |c| {
        (sum(&mut c.page_faults), sum(&mut c.cycles), sum(&mut c.instructions))
    });
    let Scheduled { threads, switches, delay_ns: _ } = *scheduled;
    TaskRow { pid: pid.0, threads, task_clock_ns: cpu.0, context_switches: switches, page_faults, cycles, instructions }
}

/// The sum over all threads.
fn sum(counters: &mut [Counter]) -> u64 {
    if counters.is_empty() {
        return NOT_TOLD;
    }
    counters.iter_mut().filter_map(|c| c.read().ok()).fold(0, u64::saturating_add)
}

/// Nothing of a process that has gone, or is not ours to see.
fn open(pid: Pid, room: usize) -> Option<Counters> {
    let process = Process::new(i32::try_from(pid.0).ok()?).ok()?;
    let tids: Vec<i32> = process.tasks().ok()?.filter_map(Result::ok).map(|t| t.tid).collect();
    if tids.len() > MOST_THREADS || tids.len() * EVENTS_A_THREAD > room {
        return Some(Counters::default());
    }
    // Whole or not at all: a counter that misses a thread tells too little, and does not say so.
    let each = |event: &dyn Fn() -> Event| -> Vec<Counter> {
        let all: Option<Vec<Counter>> = tids.iter().map(|tid| count(*tid, event())).collect();
        all.unwrap_or_default()
    };
    Some(Counters {
        page_faults: each(&|| Software::PAGE_FAULTS.into()),
        cycles: each(&|| Hardware::CPU_CYCLES.into()),
        instructions: each(&|| Hardware::INSTRUCTIONS.into()),
    })
}

fn count(tid: i32, event: Event) -> Option<Counter> {
    let mut builder = Builder::new().kind(event).observe_pid(tid);
    builder.include_kernel().inherit(true);
    let mut counter = builder.build().ok()?;
    counter.enable().ok()?;
    Some(counter)
}
