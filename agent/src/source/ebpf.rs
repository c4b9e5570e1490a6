//! The live source: samples from the ring buffer, snapshots of the counting maps, and everything that [`HostSource`]
//! brings, all as wire records through one door.
//!
//! Rows are sent when they changed. The kernel counts, this file copies: no threshold and no policy here.

mod attempt;
mod cgroups;
mod pace;
mod sched;
mod stacks;
mod wait_calls;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use agent_common::{
    LOSS_REASONS, LossReason, PackedStart, SCOPE_CGROUPS, SYSCALL_FIRST, SocketRow, SocketSeen, SocketStats,
    SyscallKey, SyscallRow, SyscallStats, WatchedCgroup, Wire,
};
use aya::maps::{Array, HashMap as BpfHashMap, MapData, PerCpuArray, PerCpuHashMap};

use super::clock::monotonic;
use super::host::{HostSource, Woken};
use super::in_flight::in_flight;
use super::inbox::Inbox;
use super::processes::look_up;
use super::{EventSource, Measuring, Offspring, Pace, Pulled, Scope, SourceError, Wanted};
use crate::event::{RawBatch, encode};
pub use crate::kernel::{Family, LoadOptions};
use crate::kernel::{LoadError, Probes};
use crate::units::{CgroupId, Nanos, Pid};
pub use attempt::{Lack, Shortfall};

const WATCH_CPU: u32 = 1;
const WATCH_SYSCALLS: u32 = 2;
const WATCH_SOCKETS: u32 = 4;
const WITH_SOCKET_STACKS: u32 = 1 << 15;
const WITH_OFFSPRING: u32 = 1 << 14;
const WATCH_SCHED: u32 = 8;
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
            sent_sockets: HashMap::new(),
            sent_lost: [0; LOSS_REASONS as usize],
            walk_failed: false,
            ticks: 0,
            period: Nanos(options.period()),
        })
    }

    /// Attaches what is wanted and detaches what is not. Returns what cannot be had, each with its cause.
    pub fn apply(&mut self, wanted: &Wanted) -> Vec<String> {
        let mut degraded =
            self.host.apply(&Wanted { cpu: None, sched: None, syscalls: None, sockets: None, ..wanted.clone() });
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
            (Family::Sockets, wanted.sockets.is_some()),
            (Family::Sched, wanted.sched.is_some()),
            (Family::Wakeups, wanted.sched.is_some() && wanted.wakeups),
        ];
        for (family, is_wanted) in families {
            if !is_wanted {
                self.probes.detach(family);
                if family == Family::Sockets {
                    self.forget_sockets();
                }
            } else if let Err(error) = self.attach(family) {
                degraded.push(error.to_string());
            }
        }
        let baseline = self.sched.follow((&mut self.probes, &mut self.stacks), &self.wanted, wanted);
        degraded.extend(baseline.err().map(|error| error.to_string()));
        self.wanted.clone_from(wanted);
        if wanted.sockets.is_some()
            && let Err(error) = self.probes.walk_descriptors()
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
        self.host.set_pace(pace);
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
        [Family::Cpu, Family::Syscalls, Family::Sockets, Family::Sched, Family::Wakeups]
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
        if family == Family::Syscalls && !self.probes.is_attached(family) {
            // Times from before would be taken for those of calls that begin now.
            let failed = |cause| LoadError::Map { what: "clear the latency slots", cause };
            for slot in 0..self.maps.starts.len() {
                if self.maps.starts.get(&slot, 0).map_err(failed)? != 0 {
                    self.maps.starts.set(slot, 0, 0).map_err(failed)?;
                }
            }
        }
        self.probes.attach(family)
    }

    /// Brings the kernel's watch list in line.
    fn watch(&mut self, wanted: &Wanted) -> Result<(), LoadError> {
        let mut scope = 0;
        let mut bits: HashMap<u32, u32> = HashMap::new();
        let mut cgroups: BTreeMap<CgroupId, u32> = BTreeMap::new();
        let mut add = |wish: Option<&Scope>, bit: u32| match wish {
            Some(Scope::Host) => scope |= bit,
            Some(Scope::Pids(pids)) => {
                for pid in pids {
                    *bits.entry(pid.0).or_insert(0) |= bit;
                }
            }
            Some(Scope::Cgroups(ids)) => {
                scope |= bit << SCOPE_CGROUPS;
                for id in ids {
                    *cgroups.entry(*id).or_insert(0) |= bit;
                }
            }
            None => {}
        };
        add(wanted.cpu.as_ref(), WATCH_CPU);
        add(wanted.syscalls.as_ref(), WATCH_SYSCALLS);
        add(wanted.sched.as_ref(), WATCH_SCHED);
        if let Some(pids) = &wanted.sockets {
            add(Some(&Scope::Pids(pids.clone())), WATCH_SOCKETS);
        }
        if wanted.socket_stacks {
            scope |= WITH_SOCKET_STACKS;
        }
        if wanted.offspring == Offspring::Watched {
            scope |= WITH_OFFSPRING;
        }
        let failed = |cause| LoadError::Map { what: "set the watch list", cause };
        cgroups::watch(&mut self.maps.cgroups, &cgroups)?;
        self.maps.scope.set(0, scope, 0).map_err(failed)?;
        if self.wanted.offspring == Offspring::Watched && wanted.offspring == Offspring::Ignored {
            // Whom the kernel side has put on the list since, it alone knows.
            for index in 0..self.maps.watch.len() {
                self.maps.watch.set(index, 0, 0).map_err(failed)?;
            }
            self.bits.clear();
        }
        let changed = |pid: &&u32| self.bits.get(pid) != bits.get(pid);
        let pids: BTreeSet<u32> = self.bits.keys().chain(bits.keys()).filter(changed).copied().collect();
        for pid in pids {
            let (index, shift) = (pid / 8, pid % 8 * 8);
            if index >= self.maps.watch.len() {
                continue; // No process can have that number here.
            }
            let word = self.maps.watch.get(&index, 0).map_err(failed)?;
            let byte = u64::from(bits.get(&pid).copied().unwrap_or(0) & 0xff);
            self.maps.watch.set(index, (word & !(0xff << shift)) | (byte << shift), 0).map_err(failed)?;
        }
        self.bits = bits;
        Ok(())
    }

    /// Counters of sockets that nobody watches: without them a later watch begins anew, and what came and went between
    /// the two is never taken for read just now.
    fn forget_sockets(&mut self) {
        let cookies: Vec<u64> = self.maps.sockets.keys().filter_map(Result::ok).collect();
        for cookie in cookies {
            if let Err(cause) = self.maps.sockets.remove(&cookie) {
                tracing::debug!(%cause, cookie, "forget a socket");
            }
        }
        self.sent_sockets.clear();
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
        if self.wanted.sockets.is_some() {
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

    fn snapshot_syscalls(&mut self, now: Nanos, batch: &mut RawBatch, seen: &mut BTreeSet<Pid>) {
        let whole_second = self.ticks.is_multiple_of(TICKS_A_SECOND);
        let waiting = match &self.wanted.syscalls {
            // The whole host is a big table: once a second is often enough.
            Some(Scope::Host) if !whole_second => return,
            Some(scope) => whole_second.then(|| in_flight(scope)),
            None => return,
        };
        // Before the counters are read: what has ended by now makes no further call, so that its last counts are told.
        let ended = if whole_second { self.ended() } else { BTreeSet::new() };
        let mut rows: HashMap<(u32, u32), SyscallRow> = HashMap::new();
        for (key, per_cpu) in self.maps.syscalls.iter().filter_map(Result::ok) {
            rows.insert((key.pid, key.nr), sum(key, &per_cpu));
        }
        // A call that has not returned has no counters yet; one that ended with its thread never gets any.
        let waits = waiting.iter().flat_map(HashMap::keys).map(|(pid, nr)| (pid.0, *nr));
        let waited = self.sent_syscalls.iter().filter(|(_, sent)| sent.1 > 0).map(|(key, _)| *key);
        for (pid, nr) in waits.chain(waited) {
            rows.entry((pid, nr)).or_insert_with(|| sum(SyscallKey { pid, nr }, &[]));
        }
        for (key, mut row) in rows {
            let sent = self.sent_syscalls.entry(key).or_insert((u64::MAX, 0));
            row.in_flight = match &waiting {
                Some(waiting) => waiting.get(&(Pid(key.0), key.1)).copied().unwrap_or(0),
                None => sent.1,
            };
            if *sent != (row.calls, row.in_flight) {
                *sent = (row.calls, row.in_flight);
                seen.insert(Pid(key.0));
                encode::syscall(batch, now, &row);
            }
            if ended.contains(&key.0) {
                self.sent_syscalls.remove(&key);
                if let Err(cause) = self.maps.syscalls.remove(&SyscallKey { pid: key.0, nr: key.1 }) {
                    tracing::debug!(%cause, pid = key.0, "make room for other processes");
                }
            }
        }
    }

    /// Processes in the table of system calls that have ended: their rows make room, and whoever gets their number next
    /// begins from nothing.
    fn ended(&self) -> BTreeSet<u32> {
        let pids: BTreeSet<u32> = self.sent_syscalls.keys().map(|(pid, _)| *pid).collect();
        pids.into_iter().filter(|pid| look_up(Pid(*pid)).is_none()).collect()
    }

    fn snapshot_sockets(&mut self, now: Nanos, batch: &mut RawBatch, seen: &mut BTreeSet<Pid>) {
        // Before the walk: what was known by then and is not found by it has been closed.
        let known: Vec<u64> = self.maps.sockets.keys().filter_map(Result::ok).collect();
        let bytes = match self.probes.walk_descriptors() {
            Ok(bytes) => bytes,
            Err(error) => {
                if !std::mem::replace(&mut self.walk_failed, true) {
                    tracing::warn!(%error, "sockets are not seen");
                }
                return;
            }
        };
        self.walk_failed = false;
        let mut open: HashMap<u64, SocketSeen> = HashMap::new();
        let mut rest = &bytes[..];
        while let Some((socket, after)) = SocketSeen::from_prefix(rest) {
            rest = after;
            seen.insert(Pid(socket.pid));
            // A socket may have several descriptors; the lowest speaks for it.
            open.entry(socket.cookie).and_modify(|s| *s = if socket.fd < s.fd { socket } else { *s }).or_insert(socket);
        }
        for (cookie, socket) in &open {
            if let Ok(stats) = self.maps.sockets.get(cookie, 0) {
                encode::socket(batch, now, &SocketRow { seen: *socket, stats });
            }
        }
        for cookie in known.into_iter().filter(|cookie| !open.contains_key(cookie)) {
            self.tell_closed(now, cookie, batch, seen);
        }
        self.sent_sockets = open;
    }

    /// A socket that has been closed is told once more, with its last counts, and then makes room. One that lived for less
    /// than a tick was never found by a walk: its ends are not known, its bytes are.
    fn tell_closed(&mut self, now: Nanos, cookie: u64, batch: &mut RawBatch, seen: &mut BTreeSet<Pid>) {
        if let Ok(stats) = self.maps.sockets.get(&cookie, 0) {
            let unfound = SocketSeen {
                cookie,
                pid: stats.pid,
                kind: u16::try_from(stats.kind).unwrap_or_default(),
                ..SocketSeen::ZERO
            };
            let last = self.sent_sockets.get(&cookie).copied().unwrap_or(unfound);
            seen.insert(Pid(last.pid));
            let socket = SocketSeen { fd: -1, receive_queue: 0, send_queue: 0, ..last };
            encode::socket(batch, now, &SocketRow { seen: socket, stats });
        }
        if let Err(cause) = self.maps.sockets.remove(&cookie) {
            tracing::debug!(%cause, cookie, "forget a closed socket");
        }
    }
}

fn sum(key: SyscallKey, per_cpu: &[SyscallStats]) -> SyscallRow {
    let mut row = SyscallRow {
        pid: key.pid,
        nr: key.nr,
        calls: 0,
        errors: 0,
        restarts: 0,
        result_sum: 0,
        timed: 0,
        total_ns: 0,
        in_flight: 0,
        histogram: [0; agent_common::SYSCALL_BUCKETS],
    };
    for cpu in per_cpu {
        row.calls = row.calls.saturating_add(cpu.calls);
        row.errors = row.errors.saturating_add(cpu.errors);
        row.restarts = row.restarts.saturating_add(cpu.restarts);
        row.result_sum = row.result_sum.wrapping_add(cpu.result_sum);
        row.timed = row.timed.saturating_add(cpu.timed);
        row.total_ns = row.total_ns.saturating_add(cpu.total_ns);
        for (total, count) in row.histogram.iter_mut().skip(SYSCALL_FIRST).zip(cpu.histogram) {
            *total += u64::from(count);
        }
    }
    row
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
