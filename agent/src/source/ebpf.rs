//! The live source: samples from the ring buffer, snapshots of the counting maps, and everything that [`HostSource`]
//! brings, all as wire records through one door.
//!
//! Rows are sent when they changed. The kernel counts, this file copies: no threshold and no policy here.

mod attempt;
mod cgroups;
mod flows;
mod pace;
mod sched;
mod sockets;
mod stacks;
mod syscalls;
mod wait_calls;
mod watch;

use std::collections::{BTreeSet, HashMap};

use agent_common::{
    FlowKey, FlowStats, LOSS_REASONS, LossReason, PackedStart, SocketSeen, SocketStats, SyscallKey, SyscallStats,
    WatchedCgroup,
};
use aya::maps::{Array, HashMap as BpfHashMap, MapData, PerCpuArray, PerCpuHashMap};

use super::clock::monotonic;
use super::host::{HostSource, Woken};
use super::inbox::Inbox;
use super::{EventSource, Measuring, Pace, Pulled, SourceError, Wanted};
use crate::event::{RawBatch, encode};
pub use crate::kernel::{Family, LoadOptions};
use crate::kernel::{LoadError, Probes};
use crate::units::{Nanos, Pid};
pub use attempt::{Lack, Shortfall};

/// What reads all of /proc, or all of a big table, is done once a second.
const TICKS_A_SECOND: u64 = 10;

/// How long the end of a look waits for the tables that its last samples need.
const LAST_PATIENCE: Nanos = Nanos::SECOND;

/// The live kernel.
pub struct EbpfSource {
    probes: Probes,
    maps: Maps,
    stacks: stacks::Stacks,
    settle: Nanos,
    sched: sched::Sched,
    host: HostSource,
    wanted: Wanted,
    bits: HashMap<u32, u32>,
    sent_syscalls: HashMap<(u32, u32), (u64, u64)>,
    flows: flows::Sent,
    sent_sockets: HashMap<u64, SocketSeen>,
    sent_lost: [u64; LOSS_REASONS as usize],
    /// Whether the last walk over the descriptors failed: it is said once, not at every tick.
    walk_failed: bool,
    ticks: u64,
    /// Sampling period as configured.
    period: Nanos,
}

struct Maps {
    /// A byte for each process number, eight to a word.
    watch: Array<MapData, u64>,
    scope: Array<MapData, u32>,
    cgroups: Array<MapData, WatchedCgroup>,
    lost: PerCpuArray<MapData, u64>,
    syscalls: PerCpuHashMap<MapData, SyscallKey, SyscallStats>,
    starts: Array<MapData, PackedStart>,
    sockets: BpfHashMap<MapData, u64, SocketStats>,
    flows: BpfHashMap<MapData, FlowKey, FlowStats>,
    flow_starts: Array<MapData, PackedStart>,
    flow_intake: BpfHashMap<MapData, u32, u64>,
}

impl std::fmt::Debug for EbpfSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EbpfSource").field("wanted", &self.wanted).field("ticks", &self.ticks).finish_non_exhaustive()
    }
}

impl From<LoadError> for SourceError {
    fn from(error: LoadError) -> Self {
        Self::Kernel { what: "probes".to_owned(), cause: error.to_string() }
    }
}

impl EbpfSource {
    /// Loads the probes; attaches none.
    pub fn new(options: LoadOptions, inbox: Inbox) -> Result<Self, SourceError> {
        let mut probes = Probes::load(options)?;
        let maps = Maps {
            watch: probes.map("WATCH")?,
            scope: probes.map("SCOPE")?,
            cgroups: probes.map("CGROUPS")?,
            lost: probes.map("LOST")?,
            syscalls: probes.map("SYSCALLS")?,
            starts: probes.map("STARTS")?,
            sockets: probes.map("SOCKETS")?,
            flows: probes.map("FLOWS")?,
            flow_starts: probes.map("FLOW_STARTS")?,
            flow_intake: probes.map("FLOW_INTAKE")?,
        };
        let stacks = stacks::Stacks::new(&mut probes, Nanos(options.period()))?;
        let sched = sched::Sched::new(&mut probes, options)?;
        Ok(Self {
            probes,
            maps,
            stacks,
            settle: options.settle,
            sched,
            host: HostSource::new(inbox),
            wanted: Wanted::default(),
            bits: HashMap::new(),
            sent_syscalls: HashMap::new(),
            flows: flows::Sent::default(),
            sent_sockets: HashMap::new(),
            sent_lost: [0; LOSS_REASONS as usize],
            walk_failed: false,
            ticks: 0,
            period: Nanos(options.period()),
        })
    }

    /// Attaches what is wanted and detaches what is not. Returns what cannot be had, each with its cause.
    pub fn apply(&mut self, wanted: &Wanted) -> Vec<String> {
        let mut degraded = self.host.apply(&Wanted {
            cpu: None,
            sched: None,
            syscalls: None,
            sockets: None,
            queues: BTreeSet::new(),
            flows: BTreeSet::new(),
            ..wanted.clone()
        });
        if self.wanted.cpu != wanted.cpu {
            degraded.extend(self.probes.forget_run_times().err().map(|error| error.to_string()));
        }
        let refollow = self.sched.prepare((&mut self.probes, &mut self.stacks), &self.wanted, wanted);
        degraded.extend(refollow.err().map(|error| error.to_string()));
        if let Err(error) = self.watch(wanted) {
            degraded.push(error.to_string());
        }
        if let Err(error) = self.stacks.follow(wanted, self.settle) {
            degraded.push(error.to_string());
        }
        let families = [
            (Family::Processes, wanted.cpu.is_some() || wanted.sched.is_some() || wanted.socket_stacks),
            (Family::Cpu, wanted.cpu.is_some()),
            (Family::Syscalls, wanted.syscalls.is_some()),
            (Family::Flows, !wanted.flows.is_empty()),
            (Family::Sockets, wanted.sockets.is_some()),
            (Family::Sched, wanted.sched.is_some()),
            (Family::Wakeups, wanted.sched.is_some() && wanted.wakeups),
        ];
        for (family, is_wanted) in families {
            if !is_wanted {
                self.probes.detach(family);
            } else if let Err(error) = self.attach(family) {
                degraded.push(error.to_string());
            }
        }
        self.forget_sockets(wanted);
        self.forget_flows(wanted);
        let baseline = self.sched.follow((&mut self.probes, &mut self.stacks), &self.wanted, wanted);
        degraded.extend(baseline.err().map(|error| error.to_string()));
        self.wanted.clone_from(wanted);
        if self.walks_descriptors()
            && let Err(error) = self.walk_descriptors()
        {
            degraded.push(error.to_string());
        }
        degraded
    }

    /// Appends what has come since the last tick, and ends that tick: for a look that is over.
    pub fn flush(&mut self, batch: &mut RawBatch) {
        self.ticks = self.ticks.next_multiple_of(TICKS_A_SECOND);
        self.sched.hurry();
        // No sample comes after the last account: what was delivered is what is read.
        self.probes.detach(Family::Cpu);
        self.stacks.drain(monotonic(), batch, &mut BTreeSet::new(), |record| self.sched.count(record));
        self.stacks.finish(LAST_PATIENCE, batch);
        self.tick(batch);
        self.stacks.finish(Nanos(0), batch);
    }

    fn tick(&mut self, batch: &mut RawBatch) {
        self.probes.hear();
        // What is loaded together is loaded between two ticks.
        self.probes.let_go();
        let now = monotonic();
        let mut seen = BTreeSet::new();
        self.snapshot(now, batch, &mut seen);
        self.host.finish_tick(now, seen, batch);
        self.ticks += 1;
    }

    /// Attaches the empty pair of the benchmarks.
    pub fn attach_floor(&mut self) -> Result<(), SourceError> {
        Ok(self.probes.attach(Family::Floor)?)
    }

    /// Run time of the probes so far; known only where `kernel.bpf_stats_enabled` is set, because keeping it costs.
    pub fn run_time(&self) -> Option<Nanos> {
        self.probes.run_time()
    }

    /// How often it ticks from now on.
    pub fn set_pace(&mut self, pace: Pace) {
        // Samples that wait for a table bring copies of their stacks, which would fill the ring buffer between two ticks.
        self.host.set_pace(if self.stacks.is_settled() { pace } else { Pace::Tick });
    }

    /// Has the kernel keep that time, or no more. Where it refuses, the budget judges by the rest.
    pub fn measure_run_time(&mut self, on: Measuring) {
        match on {
            Measuring::On => {
                if let Err(error) = self.probes.keep_run_time() {
                    tracing::debug!(%error, "the run time of probes is not known");
                }
            }
            Measuring::Off => self.probes.drop_run_time(),
        }
    }

    /// Samples CPUs and waits so many times as rarely as configured; returns why not, if not.
    pub fn thin(&mut self, cpu: u32, waits: u32) -> Option<String> {
        let set = self.sched.thin(self.period, waits).and_then(|()| self.probes.thin_cpu(cpu));
        self.stacks.set_period(self.probes.cpu_period());
        set.err().map(|error| error.to_string())
    }

    /// What cannot be seen, although its probes are attached.
    pub fn degraded(&self) -> Vec<String> {
        self.stacks.degraded()
    }

    /// Names of the families that are attached.
    pub fn attached(&self) -> Vec<&'static str> {
        [Family::Cpu, Family::Syscalls, Family::Flows, Family::Sockets, Family::Sched, Family::Wakeups]
            .into_iter()
            .filter(|f| self.probes.is_attached(*f))
            .map(Family::name)
            .collect()
    }

    /// What is worth knowing of the way in which facts come.
    pub fn remarks(&self) -> Vec<String> {
        self.probes.remark_on_waits().into_iter().collect()
    }

    fn attach(&mut self, family: Family) -> Result<(), LoadError> {
        let starts = match family {
            Family::Syscalls => Some(&mut self.maps.starts),
            Family::Flows => Some(&mut self.maps.flow_starts),
            _ => None,
        };
        if let Some(starts) = starts.filter(|_| !self.probes.is_attached(family)) {
            // Times from before would be taken for those of calls that begin now.
            let failed = |cause| LoadError::Map { what: "clear the latency slots", cause };
            for slot in 0..starts.len() {
                if starts.get(&slot, 0).map_err(failed)? != 0 {
                    starts.set(slot, 0, 0).map_err(failed)?;
                }
            }
        }
        self.probes.attach(family)
    }

    fn snapshot(&mut self, now: Nanos, batch: &mut RawBatch, seen: &mut BTreeSet<Pid>) {
        self.stacks.drain(now, batch, seen, |record| self.sched.count(record));
        self.stacks.account(now, batch);
        if self.wanted.sched.is_some() {
            self.sched.tick((&mut self.probes, &mut self.stacks), batch, seen);
        }
        if self.wanted.syscalls.is_some() {
            self.snapshot_syscalls(now, batch, seen);
        }
        if !self.wanted.flows.is_empty() {
            self.snapshot_flows(now, batch, seen);
        }
        if self.walks_descriptors() {
            self.snapshot_sockets(now, batch, seen);
        }
        for reason in LossReason::ALL {
            let Ok(counts) = self.maps.lost.get(&(reason as u32), 0) else { continue };
            let count = counts.iter().fold(self.stacks.lost(reason), |sum, c| sum.saturating_add(*c));
            let sent = &mut self.sent_lost[reason as usize];
            if *sent != count {
                *sent = count;
                encode::loss(batch, now, reason, count);
            }
        }
    }
}

impl EventSource for EbpfSource {
    async fn pull(&mut self, until: Nanos, batch: &mut RawBatch) -> Result<Pulled, SourceError> {
        loop {
            tokio::select! {
                biased;
                woken = self.host.wait(until, batch) => {
                    if woken == Woken::Tick {
                        self.tick(batch);
                    }
                    return Ok(Pulled::Batch);
                }
                () = self.stacks.happened() => self.stacks.look(),
            }
        }
    }
}
