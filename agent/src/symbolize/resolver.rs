//! Looks addresses up while their process still lives, and keeps what it found.
//!
//! A caller's frame is a return address: it is looked up one byte earlier, inside the call, or the last call of a
//! function would be charged to its neighbour.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd as _;
use std::sync::Arc;

use super::files;
use super::keeper::{Keeper, NoAnswer, Reply};
use super::kernel::{KernelNames, UNNAMED};
use super::names::{Names, Space, Standing};
use super::places::{Effort, Known, Places};
use super::spaces::{Backing, CodeMapping, Now, Spaces};
use super::stats::{Refusal, Stats};
use super::wire::{Ask, FileKey, Found, MOST_PLACES};
use crate::aggregate::stacks::StackCounts;
use crate::event::Mapping;
use crate::source::clock::monotonic;
use crate::units::{Bytes, Nanos, Pid};

/// Addresses kept; the table is emptied when it is full, and what is still needed is looked up again.
const MOST_ADDRESSES: usize = 300_000;
/// Chains of names kept, likewise.
const MOST_CHAINS: usize = 60_000;
/// A perf map that grows is read no more often than this.
const PERF_MAP_AGE: Nanos = Nanos::from_millis(250);
/// Processes with code made at run time that are remembered, and for how long when there are more.
const MOST_JITS: usize = 512;
const PERF_MAP_FORGET: Nanos = Nanos::from_secs(60);
/// Addresses that are looked up in one perf map at a time.
const MOST_JIT_PLACES: usize = 16_384;

/// Fills a [`Names`].
#[derive(Debug)]
pub struct Resolver {
    kernel: KernelNames,
    keeper: Keeper,
    spaces: Spaces,
    places: Places,
    jits: BTreeMap<Pid, Jit>,
    effort: Effort,
    names: Names,
    stats: Stats,
}

/// Code made at run time by one process.
#[derive(Debug, Default)]
struct Jit {
    /// When its map was last found to have changed.
    looked: Nanos,
    /// Which map that was.
    key: Option<FileKey>,
    /// Addresses that were looked up in it.
    asked: BTreeSet<u64>,
    refused: Option<Refusal>,
}

impl Default for Resolver {
    fn default() -> Self {
        Self::new()
    }
}

impl Resolver {
    /// An empty table, and the symbolizer of this program.
    pub fn new() -> Self {
        Self::with(Keeper::of_this_program())
    }

    /// An empty table, and a symbolizer.
    pub fn with(keeper: Keeper) -> Self {
        Self {
            kernel: KernelNames::default(),
            keeper,
            spaces: Spaces::default(),
            places: Places::reading(Bytes(u64::MAX)),
            jits: BTreeMap::new(),
            effort: Effort::All,
            names: Names::default(),
            stats: Stats::default(),
        }
    }

    /// For somebody who looks names up all the time: costs little. Inlined functions come later, and where a file has
    /// more debug information than `most_debug` not at all.
    #[must_use]
    pub fn thrifty(self, most_debug: Bytes) -> Self {
        Self { effort: Effort::Thrifty, places: Places::reading(most_debug), ..self }
    }

    /// What is known.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// What became of the looking up.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Files whose functions are named, and what was inlined into them is not.
    pub fn files_without_inlined(&self) -> u64 {
        self.places.without_inlined()
    }

    /// The process that looks names up, if one is running.
    pub fn symbolizer(&self) -> Option<Pid> {
        self.keeper.pid()
    }

    /// Starts the process that looks names up before it is needed. What hinders it stands in [`Self::stats`].
    pub fn warm_up(&mut self) {
        if let Err(why) = self.keeper.start(&mut self.stats) {
            tracing::debug!(%why, "start a symbolizer");
        }
    }

    /// Notes where code is mapped: a process can then be named after it has ended.
    pub fn learn(&mut self, mapping: &Mapping) {
        if self.spaces.learn(mapping, monotonic()) == Now::Another {
            self.names.doubt(mapping.pid);
        }
    }

    /// Looks up every address of `counts` that is not known yet.
    pub fn resolve(&mut self, counts: &StackCounts) {
        if self.names.len() > MOST_ADDRESSES || self.names.chains() > MOST_CHAINS {
            self.names = Names::default();
            self.places.forget_names();
        }
        let now = monotonic();
        self.keeper.reap();
        let mut kernel: BTreeSet<u64> = BTreeSet::new();
        let mut user: BTreeMap<Pid, BTreeSet<u64>> = BTreeMap::new();
        for key in counts.counts.keys() {
            kernel.extend(frames(&key.kernel, Space::Kernel).map(|(_, address)| address));
            let addresses = frames(&key.user, Space::User(key.pid)).map(|(_, address)| address);
            user.entry(key.pid).or_default().extend(addresses);
            if let Some(waker) = &key.waker {
                kernel.extend(frames(&waker.kernel, Space::Kernel).map(|(_, address)| address));
                let addresses = frames(&waker.user, Space::User(waker.pid)).map(|(_, address)| address);
                user.entry(waker.pid).or_default().extend(addresses);
            }
        }
        kernel.retain(|address| !self.names.is_final(Space::Kernel, *address));
        for address in kernel {
            let name = self.kernel.get(address, now).unwrap_or(UNNAMED).to_owned();
            self.names.insert(Space::Kernel, address, [name]);
        }
        self.user(user, now);
        self.places.rest(now);
    }

    fn user(&mut self, mut wanted: BTreeMap<Pid, BTreeSet<u64>>, now: Nanos) {
        // Files in common are asked about once, with the places of all processes.
        let mut by_file: BTreeMap<FileKey, Question> = BTreeMap::new();
        let mut placed: Vec<(Pid, u64, Place)> = Vec::new();
        for (pid, addresses) in &mut wanted {
            // First, because another program at the same number has other names.
            if self.spaces.visit(*pid, now) == Now::Another {
                self.names.doubt(*pid);
                self.jits.remove(pid);
            }
            addresses.retain(|address| !self.names.is_final(Space::User(*pid), *address));
            let unplaced = |space: &Spaces, a: &u64| space.get(*pid).is_none_or(|space| space.find(*a).is_none());
            if addresses.iter().any(|address| unplaced(&self.spaces, address)) {
                self.spaces.look_again(*pid, now);
            }
            for address in addresses.iter() {
                let place = self.place(*pid, *address, now);
                if let Place::File { key, offset, path, .. } = &place
                    && let Known::Not(function) = self.places.get(key, *offset)
                    && (self.effort == Effort::All || function.is_none() || !self.places.rests(key, now))
                {
                    let question = by_file.entry(*key);
                    let question = question.or_insert_with(|| Question {
                        pid: *pid,
                        path: Arc::clone(path),
                        places: BTreeSet::new(),
                    });
                    question.places.insert(*offset);
                }
                placed.push((*pid, *address, place));
            }
        }
        let mut failed: BTreeMap<FileKey, Standing> = BTreeMap::new();
        for (key, Question { pid, path, places }) in &by_file {
            let tools = (&mut self.keeper, &mut self.names, &mut self.stats);
            if let Err(why) = self.places.look_up(*key, places, (*pid, path), tools) {
                failed.insert(*key, standing(&why));
            }
        }
        let mut jit: BTreeMap<Pid, BTreeSet<u64>> = BTreeMap::new();
        for (pid, address, place) in placed {
            self.name(pid, address, place, &failed, &mut jit);
        }
        for (pid, addresses) in jit {
            self.jit(pid, &addresses, now);
        }
    }

    fn place(&mut self, pid: Pid, address: u64, now: Nanos) -> Place {
        let Some(space) = self.spaces.get(pid).filter(|space| space.is_known()) else {
            return Place::Nowhere("ended");
        };
        let Some(mapping) = space.find(address) else { return Place::Nowhere("unmapped") };
        if mapping.backing == Backing::Anonymous {
            return Place::Jit(mapping.place(address));
        }
        let (offset, module) = (mapping.place(address), mapping.module());
        match self.places.file(pid, mapping, now, &mut self.stats) {
            Some(key) => Place::File { key, offset, path: path(mapping), module: module.into() },
            None => Place::Unread { offset, module: module.into() },
        }
    }

    fn name(
        &mut self,
        pid: Pid,
        address: u64,
        place: Place,
        failed: &BTreeMap<FileKey, Standing>,
        jit: &mut BTreeMap<Pid, BTreeSet<u64>>,
    ) {
        let space = Space::User(pid);
        let (name, standing) = match place {
            Place::File { key, offset, module, .. } => match self.places.get(&key, offset) {
                Known::Named(chain) => return self.names.set(space, address, chain, Standing::Final),
                Known::Unnamed => (format!("{module}+{offset:#x}"), Standing::Final),
                Known::Not(Some(function)) => return self.names.set(space, address, function, Standing::Provisional),
                Known::Not(None) => {
                    (format!("{module}+{offset:#x}"), failed.get(&key).copied().unwrap_or(Standing::Provisional))
                }
            },
            Place::Unread { offset, module } => (format!("{module}+{offset:#x}"), Standing::Provisional),
            Place::Jit(offset) => {
                jit.entry(pid).or_default().insert(address);
                (format!("jit+{offset:#x}"), Standing::Provisional)
            }
            // Of a program that ran before in this process, or of a process that has ended: what was known stays.
            Place::Nowhere(_) if self.names.get(space, address).is_some() => return,
            Place::Nowhere(why) => (format!("{why}+{address:#x}"), Standing::Provisional),
        };
        let chain = self.names.chain([name]);
        self.names.set(space, address, chain, standing);
    }

    /// Names code made at run time by the map that its maker writes.
    fn jit(&mut self, pid: Pid, addresses: &BTreeSet<u64>, now: Nanos) {
        if self.jits.len() >= MOST_JITS {
            self.jits.retain(|_, jit| now.since(jit.looked) < PERF_MAP_FORGET);
        }
        let found = files::perf_map(pid);
        let jit = self.jits.entry(pid).or_default();
        let refused = found.as_ref().err().copied();
        if let Some(why) = refused.filter(|_| refused != jit.refused) {
            self.stats.refuse(why);
        }
        jit.refused = refused;
        let Ok(Some(map)) = found else { return };
        if jit.key != Some(map.key) {
            // It grows all the time, and each time it is read from the beginning.
            if jit.key.is_some() && now.since(jit.looked) < PERF_MAP_AGE {
                return;
            }
            *jit = Jit { looked: now, key: Some(map.key), ..Jit::default() };
        }
        let new: Vec<u64> = addresses.difference(&jit.asked).copied().take(MOST_JIT_PLACES).collect();
        for some in new.chunks(MOST_PLACES) {
            let ask = Ask::PerfMap { key: map.key, addresses: some.to_vec() };
            let answer = self.keeper.ask(map.key, &ask, &[map.fd.as_fd()], &mut self.stats);
            let Ok(Reply::Names(found, _)) = answer else { return };
            for (address, Found { names, .. }) in some.iter().zip(found) {
                jit.asked.insert(*address);
                if !names.is_empty() {
                    self.names.insert(Space::User(pid), *address, names);
                }
            }
        }
    }
}

/// What is asked about one file.
struct Question {
    /// A process that maps it, and where that one sees it.
    pid: Pid,
    path: Arc<str>,
    places: BTreeSet<u64>,
}

/// What lies at an address.
enum Place {
    File {
        key: FileKey,
        offset: u64,
        path: Arc<str>,
        module: Box<str>,
    },
    /// A file that is not read.
    Unread {
        offset: u64,
        module: Box<str>,
    },
    Jit(u64),
    Nowhere(&'static str),
}

fn path(mapping: &CodeMapping) -> Arc<str> {
    match &mapping.backing {
        Backing::File { path, .. } => Arc::clone(path),
        Backing::Vdso | Backing::Anonymous => "".into(),
    }
}

fn standing(why: &NoAnswer) -> Standing {
    match why {
        NoAnswer::NotNow(_) => Standing::Provisional,
        NoAnswer::BadFile(_) => Standing::Final,
    }
}

/// Nothing is ever mapped below this: a frame pointer chain that leads there has ended.
const LOWEST_ADDRESS: u64 = 4096;

/// The addresses under which the frames of a stack are looked up: the innermost as it is, callers one byte earlier.
pub fn frames(stack: &[u64], space: Space) -> impl Iterator<Item = (Space, u64)> + '_ {
    stack.iter().enumerate().filter_map(move |(at, address)| place(at, *address, space))
}

/// The address under which frame number `at` of a stack is looked up; none where a chain of frame pointers has ended.
pub fn place(at: usize, address: u64, space: Space) -> Option<(Space, u64)> {
    let address = if at == 0 { address } else { address.saturating_sub(1) };
    (address >= LOWEST_ADDRESS).then_some((space, address))
}
