//! Keeps the kernel side's view of processes, mappings and tables up to date: what the kernel tells and what /proc shows
//! comes in, entries of its maps go out. It never parses a file itself and never waits for one unless asked to.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Duration;

use agent_common::{MAPPING_JIT, MAPPING_NO_TABLE, MAPPING_PENDING, MappingEntry, SpaceRange};
use aya::maps::{HashMap as BpfHashMap, MapData, MapError};
use aya::util::online_cpus;

use super::elf::TableError;
use super::files::{Files, State};
use super::installed::Installed;
use super::interest::{Children, Followed, Interest};
use super::loader::{Loader, Made};
use super::maps;
use super::reader::Reader;
use super::regions::{Region, Regions};
use super::shared::Shared;
use super::sideband::{Fact, Mapped, Sideband};
use super::spaces::{Code, Mapping, SpaceId, Spaces};
use super::tell::Told;
use crate::kernel::{LoadError, Probes};
use crate::units::Nanos;

/// Follows processes.
#[derive(Debug)]
pub struct Tracker {
    followed: Followed,
    sideband: Option<Sideband>,
    pub(super) spaces: Spaces,
    pub(super) files: Files,
    pub(super) told: Told,
    loader: Loader,
    /// Reads the stacks of threads that stand still, once there are such.
    pub(super) reader: Option<Reader>,
    pub(super) installed: Installed,
    mappings: Shared<MappingEntry>,
    regions: Regions,
    published: HashMap<SpaceId, Region>,
    map: BpfHashMap<MapData, u32, SpaceRange>,
    /// Processes that replaced their program, and when they are told to the kernel side once more: its own probe forgets
    /// the old program at some moment in between.
    again: Vec<(Nanos, u32)>,
    /// Processes that found no room for their mappings.
    without_room: u64,
    swept: Nanos,
    reviewed: Nanos,
}

/// After so long the kernel's own probe has run.
const SETTLED: Nanos = Nanos(2_000_000);
/// For so long it is remembered what a process had mapped: samples come in on the tick.
const REMEMBERED: Nanos = Nanos::from_secs(6);
/// Between two looks for what is needed no more.
const SWEEP_EVERY: Nanos = Nanos::from_secs(2);
/// Between two looks at what is used and what is not.
const REVIEW_EVERY: Nanos = Nanos::from_secs(10);

impl Tracker {
    /// Takes over the maps that belong to it.
    pub fn new(probes: &mut Probes) -> Result<Self, LoadError> {
        let installed = Installed::new(probes.shared("ROWS")?, probes.shared("TABLES")?, probes.map("TABLE_HITS")?);
        let mappings = probes.shared::<MappingEntry>("MAPPINGS")?;
        let regions = Regions::of(u32::try_from(mappings.len()).unwrap_or(u32::MAX));
        let failed = |cause| LoadError::System { what: "start the thread that makes unwind tables", cause };
        Ok(Self {
            followed: Followed::default(),
            sideband: None,
            spaces: Spaces::default(),
            files: Files::default(),
            told: Told::default(),
            loader: Loader::start().map_err(failed)?,
            reader: None,
            installed,
            mappings,
            regions,
            published: HashMap::new(),
            map: probes.map("SPACES")?,
            again: Vec::new(),
            without_room: 0,
            swept: Nanos(0),
            reviewed: Nanos(0),
        })
    }

    /// Follows these processes from now on, those that run included; nobody's for `None`.
    pub fn follow(&mut self, interest: Option<Interest>, children: Children, now: Nanos) -> Result<(), LoadError> {
        if self.followed.is(interest.as_ref(), children) {
            return Ok(());
        }
        if interest.is_none() {
            self.sideband = None;
        } else if self.sideband.is_none() {
            let cpus = online_cpus().map_err(|(_, cause)| LoadError::System { what: "list the CPUs", cause })?;
            let failed = |cause| LoadError::System { what: "listen to births and mappings of processes", cause };
            self.sideband = Some(Sideband::open(&cpus).map_err(failed)?);
        }
        let before = std::mem::replace(&mut self.followed, Followed::new(interest, children));
        let wanted: Vec<u32> = match self.followed.interest() {
            None => Vec::new(),
            Some(Interest::Host) => maps::pids(),
            Some(Interest::Pids(pids)) => pids.iter().copied().collect(),
        };
        for pid in self.spaces.pids() {
            if !self.followed.covers(pid) {
                self.spaces.remove(pid);
            }
        }
        for pid in wanted {
            if !before.covers(pid) || !self.spaces.knows(pid) {
                self.scan(pid, now);
                // Of a whole host this spares ten thousand records. One of a few may be about to become another program.
                if self.followed.interest() == Some(&Interest::Host)
                    && let Some(mappings) = self.spaces.at(pid, now)
                {
                    self.told.is_known(pid, mappings);
                }
            }
        }
        self.load();
        Ok(())
    }

    /// Readable when something has happened.
    pub fn readiness(&self) -> Option<BorrowedFd<'_>> {
        self.sideband.as_ref().map(|sideband| sideband.as_fd())
    }

    /// Takes in what happened before `now`, and the tables that are ready.
    pub fn look(&mut self, now: Nanos) {
        if let Some(sideband) = &mut self.sideband {
            let look = sideband.look(now);
            for (time, fact) in look.facts {
                self.take(time, fact, now);
            }
            if look.gap {
                tracing::debug!("a ring of the sideband was full: every process is looked at anew");
                self.scan_all(now);
            }
        }
        let due: Vec<u32> = self.again.iter().filter(|(at, _)| *at <= now).map(|(_, pid)| *pid).collect();
        self.again.retain(|(at, _)| *at > now);
        for pid in due {
            self.spaces.touch_process(pid);
        }
        if now.since(self.swept) >= SWEEP_EVERY {
            self.swept = now;
            self.sweep(now);
        }
        self.load();
        self.regions.pass();
    }

    /// Whether tables are being made.
    pub fn pending(&self) -> bool {
        self.files.pending()
    }

    /// Waits for a table, no longer than `time`.
    pub fn wait(&mut self, time: Duration) {
        if let Some(made) = self.loader.wait(time) {
            let files = [self.install(&made)].into();
            self.spaces.touch(&files);
        }
        self.load();
    }

    /// What cannot be unwound, and why.
    pub fn degraded(&self) -> Vec<String> {
        let mut degraded: Vec<String> = self.installed.degraded().into_iter().collect();
        if self.without_room > 0 {
            degraded.push(format!(
                "unwinding: {} times a process found no room for its mappings: their stacks end at once",
                self.without_room
            ));
        }
        degraded
    }

    fn take(&mut self, time: Nanos, fact: Fact, now: Nanos) {
        let pid = match &fact {
            Fact::Fork { pid, .. } | Fact::Exec { pid } | Fact::Exit { pid } => *pid,
            Fact::Map(mapped) => mapped.pid,
        };
        if let Fact::Fork { pid, parent } = &fact {
            self.followed.born(*pid, *parent);
        }
        if !self.followed.covers(pid) {
            return;
        }
        match fact {
            Fact::Fork { pid, parent } => {
                if !self.spaces.fork(time, pid, parent) {
                    self.scan(pid, now);
                }
            }
            Fact::Exec { pid } => {
                self.spaces.exec(time, pid);
                self.again.push((now + SETTLED, pid));
            }
            Fact::Exit { pid } => self.spaces.exit(time, pid),
            Fact::Map(mapped) => {
                let code = self.files.identify(&mapped, now);
                if !self.spaces.map(pid, Mapping::of(&mapped, code)) {
                    self.scan(pid, now);
                    self.spaces.map(pid, Mapping::of(&mapped, code));
                }
            }
        }
    }

    /// Reads what a process has mapped now.
    pub(super) fn scan(&mut self, pid: u32, now: Nanos) -> bool {
        let Some(mapped) = maps::of(pid) else { return false };
        let mapping = |m: &Mapped| Mapping::of(m, self.files.identify(m, now));
        let mappings = mapped.iter().map(mapping).collect();
        self.spaces.set(now, pid, mappings);
        true
    }

    fn scan_all(&mut self, now: Nanos) {
        let pids = maps::pids();
        for pid in &pids {
            if self.followed.covers(*pid) {
                self.scan(*pid, now);
            }
        }
        let pids: BTreeSet<u32> = pids.into_iter().collect();
        for pid in self.spaces.pids() {
            if !pids.contains(&pid) {
                self.spaces.exit(now, pid);
            }
        }
    }

    /// Gives files to the thread that makes tables, takes in what it made, and tells the kernel side.
    fn load(&mut self) {
        let mut changed = BTreeSet::new();
        while let Some(made) = self.loader.ready() {
            changed.insert(self.install(&made));
        }
        if !changed.is_empty() {
            self.spaces.touch(&changed);
        }
        while let Some(job) = self.files.next_job() {
            if let Err(job) = self.loader.give(job) {
                self.files.put_back(job);
                break;
            }
        }
        self.publish();
    }

    fn install(&mut self, made: &Made) -> u32 {
        let Made { file, table } = made;
        let name = self.files.name(*file).to_owned();
        match table {
            Ok(table) => {
                let number = self.installed.install(&name, table);
                let state = number.map_or(State::None, State::Table);
                if let Some(number) = number
                    && *self.files.state(*file) != state
                {
                    self.installed.acquire(number);
                }
                self.files.settle(*file, state, table.segments.clone(), table.base);
            }
            Err(error) => {
                // Without a description of its frames only frame pointers can lead on.
                let state = match error {
                    TableError::NotElf(_) | TableError::NoFrames | TableError::NoCode => State::Jit,
                    _ => State::None,
                };
                tracing::debug!(%error, name, "no unwind table");
                self.files.settle(*file, state, Vec::new(), 0);
            }
        }
        *file
    }

    /// Tells the kernel side what has changed.
    fn publish(&mut self) {
        let changes = self.spaces.changes();
        for pid in changes.gone {
            if !self.spaces.knows(pid) {
                self.told.forget(pid);
                self.followed.forget(pid);
                tolerate(self.map.remove(&pid), "forget the mappings of a process");
            }
        }
        for id in changes.spaces {
            if let Some(old) = self.published.remove(&id) {
                self.regions.give(old);
            }
            let Some((mappings, pids)) = self.spaces.space(id) else { continue };
            if mappings.is_empty() || pids.is_empty() {
                continue;
            }
            let entries: Vec<MappingEntry> = mappings.iter().map(|m| entry(&self.files, m)).collect();
            let region = u32::try_from(entries.len()).ok().and_then(|len| self.regions.take(len));
            let Some(region) = region else {
                self.without_room += 1;
                for pid in pids {
                    tolerate(self.map.remove(pid), "forget the mappings of a process");
                }
                continue;
            };
            let start = usize::try_from(region.start).unwrap_or(usize::MAX);
            if !self.mappings.write(start, &entries) {
                continue;
            }
            let range = SpaceRange { start: region.start, len: region.len };
            for pid in pids {
                tolerate(self.map.insert(pid, range, 0), "tell the mappings of a process");
            }
            self.published.insert(id, region);
        }
    }

    /// Forgets what nobody can ask for any more.
    fn sweep(&mut self, now: Nanos) {
        let then = Nanos(now.0.saturating_sub(REMEMBERED.0));
        self.spaces.forget_past(then);
        for pid in self.spaces.ended_before(then) {
            if !maps::lives(pid) {
                self.spaces.remove(pid);
            }
        }
        for table in self.files.keep(&self.spaces.files()) {
            self.installed.release(table);
        }
        if now.since(self.reviewed) >= REVIEW_EVERY {
            self.reviewed = now;
            self.review();
        }
    }

    /// Has the tables made again that are used more than others that are loaded.
    fn review(&mut self) {
        for table in self.installed.review() {
            let shown = self.files.showing(table);
            let at = shown.and_then(|file| Some((file, self.spaces.place_of(file)?)));
            if let Some((file, (pid, begin, end))) = at {
                self.files.make_again(file, pid, begin, end);
            }
        }
    }
}

fn entry(files: &Files, mapping: &Mapping) -> MappingEntry {
    let Mapping { begin, end, offset, code } = *mapping;
    let (bias, table) = match code {
        Code::Anonymous => (0, MAPPING_JIT),
        Code::File(file) => match files.state(file) {
            State::Pending => (0, MAPPING_PENDING),
            State::Jit => (0, MAPPING_JIT),
            State::None => (0, MAPPING_NO_TABLE),
            State::Table(number) => {
                files.bias(file, begin, offset).map_or((0, MAPPING_NO_TABLE), |bias| (bias, *number))
            }
        },
    };
    MappingEntry { bias, begin, end, table, reserved: 0 }
}

/// A process may have ended meanwhile, and the table may be full: its stacks then end with a reason that is counted.
fn tolerate(done: Result<(), MapError>, what: &'static str) {
    if let Err(cause) = done {
        tracing::trace!(%cause, "{what}");
    }
}
