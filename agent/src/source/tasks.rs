//! What watched processes cost, by perf events: task clock, context switches, page faults; cycles and instructions where
//! there is a PMU.

use std::collections::{BTreeSet, HashMap};

use agent_common::TaskRow;
use perf_event::events::{Event, Hardware, Software};
use perf_event::{Builder, Counter};
use procfs::process::Process;

use crate::event::{RawBatch, encode};
use crate::units::{Nanos, Pid};

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

/// One event on every thread of a process; threads that are born later are counted with their parent.
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
            let counters = match self.watched.entry(*pid) {
                std::collections::hash_map::Entry::Occupied(o) => o.into_mut(),
                std::collections::hash_map::Entry::Vacant(v) => match open(*pid) {
                    Some(counters) => v.insert(counters),
                    None => continue, // Gone, or not ours to see: its cost stays unknown.
                },
            };
            encode::task(batch, now, &counters.row(*pid));
        }
    }
}

impl Counters {
    fn row(&mut self, pid: Pid) -> TaskRow {
        TaskRow {
            pid: pid.0,
            threads: self.threads,
            task_clock_ns: sum(&mut self.task_clock),
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

fn open(pid: Pid) -> Option<Counters> {
    let process = Process::new(i32::try_from(pid.0).ok()?).ok()?;
    let tids: Vec<i32> = process.tasks().ok()?.filter_map(Result::ok).map(|t| t.tid).collect();
    let each =
        |event: &dyn Fn() -> Event| -> Vec<Counter> { tids.iter().filter_map(|tid| count(*tid, event())).collect() };
    let counters = Counters {
        threads: u32::try_from(tids.len()).unwrap_or(u32::MAX),
        task_clock: each(&|| Software::TASK_CLOCK.into()),
        context_switches: each(&|| Software::CONTEXT_SWITCHES.into()),
        page_faults: each(&|| Software::PAGE_FAULTS.into()),
        cycles: each(&|| Hardware::CPU_CYCLES.into()),
        instructions: each(&|| Hardware::INSTRUCTIONS.into()),
    };
    (!counters.task_clock.is_empty()).then_some(counters)
}

fn count(tid: i32, event: Event) -> Option<Counter> {
    let mut builder = Builder::new().kind(event).observe_pid(tid);
    builder.include_kernel().inherit(true);
    let mut counter = builder.build().ok()?;
    counter.enable().ok()?;
    Some(counter)
}
