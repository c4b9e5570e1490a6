//! The live host without probes: ticks, requests, report pages and cost counters. What remains where the kernel gives no
//! evidence, and the part of the live source that needs no `aya`.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::clock::monotonic;
use super::inbox::Inbox;
use super::processes::Processes;
use super::reports::Reports;
use super::tasks::Tasks;
use super::threads::Threads;
use super::usage::Usages;
use super::{EventSource, Pace, Pulled, SourceError, Wanted};
use crate::event::{Input, RawBatch, encode};
use crate::units::{Nanos, Pid};

/// Ticks, requests, reports and costs.
#[derive(Debug)]
pub struct HostSource {
    inbox: Inbox,
    wanted: Wanted,
    reports: Reports,
    tasks: Tasks,
    threads: Threads,
    usages: Usages,
    /// Who is who.
    pub(super) processes: Processes,
    next_tick: Nanos,
    ticks: u64,
    pace: Pace,
}

/// Ticks of the grid that are left out between two while nobody needs them.
const LEFT_OUT: u64 = 9;

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// It is time for the tick.
    Tick,
    /// A request came in, or the caller's time is up.
    Early,
}

impl HostSource {
    /// A source that hears `inbox`.
    pub fn new(inbox: Inbox) -> Self {
        raise_descriptor_limit();
        Self {
            inbox,
            wanted: Wanted::default(),
            reports: Reports::default(),
            tasks: Tasks::default(),
            threads: Threads::default(),
            usages: Usages::default(),
            processes: Processes::default(),
            next_tick: monotonic() + Nanos::TICK,
            ticks: 0,
            pace: Pace::Tick,
        }
    }

    /// What to bring from now on. Returns what cannot be had, each with its cause.
    pub fn apply(&mut self, wanted: &Wanted) -> Vec<String> {
        self.wanted.clone_from(wanted);
        let probes = wanted.cpu.is_some()
            || wanted.syscalls.is_some()
            || wanted.sockets.is_some()
            || !wanted.flows.is_empty()
            || !wanted.queues.is_empty();
        if probes {
            vec!["no probes: see `tidegate doctor` for the cause and the remedy".to_owned()]
        } else {
            Vec::new()
        }
    }

    /// How often it ticks from now on.
    pub fn set_pace(&mut self, pace: Pace) {
        if pace == Pace::Rest && self.pace == Pace::Tick {
            self.next_tick = self.next_tick + Nanos(LEFT_OUT * Nanos::TICK.0);
        }
        self.pace = pace;
    }

    /// Probes that are attached: none.
    pub fn attached(&self) -> Vec<&'static str> {
        Vec::new()
    }

    /// Waits for the tick, a request or `until`; requests are appended at once.
    pub(super) async fn wait(&mut self, until: Nanos, batch: &mut RawBatch) -> Woken {
        let now = monotonic();
        let wake = self.next_tick.min(until);
        tokio::select! {
            biased;
            () = tokio::time::sleep(wake.since(now).into()) => {}
            input = self.inbox.next() => self.take(&input, batch),
        }
        while let Some(input) = self.inbox.try_next() {
            self.take(&input, batch);
        }
        if monotonic() >= self.next_tick { Woken::Tick } else { Woken::Early }
    }

    fn take(&mut self, input: &Input, batch: &mut RawBatch) {
        let now = monotonic();
        // Whoever asks is not kept waiting.
        self.pace = Pace::Tick;
        while self.next_tick > now + Nanos::TICK {
            self.next_tick = Nanos(self.next_tick.0 - Nanos::TICK.0);
        }
        if let Input::Register { pid, .. } = input {
            self.processes.tell(*pid, now, batch);
        }
        encode::input(batch, now, input);
    }

    /// Appends what this source sees at a tick, the tick record last.
    pub(super) fn finish_tick(&mut self, now: Nanos, seen: impl IntoIterator<Item = Pid>, batch: &mut RawBatch) {
        const SWEEP_EVERY: u64 = 100;
        for pid in seen {
            self.processes.tell(pid, now, batch);
        }
        self.reports.append(&self.wanted.reports, now, batch);
        let scheduled = self.threads.read(&self.wanted.tasks);
        self.tasks.append(&scheduled, &self.wanted.counted, now, batch);
        self.usages.append(&scheduled, now, batch);
        // The tick ends when all of it has been read; what follows from it is timed from there.
        encode::tick(batch, monotonic());
        self.ticks += 1;
        if self.ticks.is_multiple_of(SWEEP_EVERY) {
            self.processes.sweep();
        }
        // Ticks keep to their grid; one that comes too late is skipped, never made up for.
        while self.next_tick <= now {
            self.next_tick = self.next_tick + Nanos::TICK;
        }
        if self.pace == Pace::Rest {
            self.next_tick = self.next_tick + Nanos(LEFT_OUT * Nanos::TICK.0);
        }
    }
}

/// Cost counters, connections and pages each take a descriptor: as many as the system grants, where a shell grants 1,024.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(errno) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%errno, "raise the limit of open files");
    }
}

impl EventSource for HostSource {
    async fn pull(&mut self, until: Nanos, batch: &mut RawBatch) -> Result<Pulled, SourceError> {
        if self.wait(until, batch).await == Woken::Tick {
            self.finish_tick(monotonic(), [], batch);
        }
        Ok(Pulled::Batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::inbox::inbox;

    #[test]
    fn a_source_at_rest_ticks_seldom_until_somebody_asks() {
        let (_sender, receiver) = inbox();
        let mut source = HostSource::new(receiver);
        let begun = monotonic();
        source.set_pace(Pace::Rest);
        source.set_pace(Pace::Rest);
        assert!(source.next_tick.since(begun) >= Nanos(LEFT_OUT * Nanos::TICK.0));
        let mut batch = RawBatch::new();
        let before = source.next_tick;
        source.finish_tick(before, [], &mut batch);
        assert_eq!(source.next_tick.since(before), Nanos((LEFT_OUT + 1) * Nanos::TICK.0));
        source.take(&Input::Pause, &mut batch);
        assert!(source.next_tick.since(monotonic()) <= Nanos::TICK, "who asks waits");
        let before = source.next_tick;
        source.finish_tick(before, [], &mut batch);
        assert_eq!(source.next_tick.since(before), Nanos::TICK);
    }
}
