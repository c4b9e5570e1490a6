//! Names by place in a file: what was found once holds for every process that maps the file, so that a thousand children of
//! one program cost no more than one. Holds open what is in use, and nothing for longer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::{AsFd as _, BorrowedFd};

use super::files::{self, Opened};
use super::keeper::{Keeper, NoAnswer, Reply};
use super::names::{ChainId, Names};
use super::spaces::{Backing, CodeMapping};
use super::stats::{Refusal, Stats};
use super::wire::{Ask, Companion, FileKey, Found, MOST_PLACES, Wish};
use crate::source::clock::monotonic;
use crate::units::{Bytes, Nanos, Pid};

/// Ranges that are kept, of all files together.
const MOST_RANGES: usize = 200_000;
/// Files that are held open, with their companions.
const MOST_OPEN: usize = 64;
/// A file that nobody asked about for so long is closed: an open file keeps its disk from being taken out.
const HOLD: Nanos = Nanos::from_secs(20);
/// A file may take one part in so many of the time of a CPU, in the long run.
const REST: u64 = 200;
/// The longest that a file is left alone.
const LONGEST_REST: Nanos = Nanos::from_secs(60);
/// A file that was refused is tried again after so long.
const RETRY: Nanos = Nanos::from_secs(60);

/// Names of places.
#[derive(Debug)]
pub(super) struct Places {
    /// Debug information of a file beyond this is not read.
    most_debug: Bytes,
    /// Files that are held open, and whose debug information was not read.
    without_debug: BTreeSet<FileKey>,
    files: BTreeMap<FileKey, Ranges>,
    /// Whole functions, where a place was looked up in one that others were inlined into.
    functions: BTreeMap<FileKey, Ranges>,
    /// Until when no file is asked about that has cost as much as it may.
    resting: BTreeMap<FileKey, Nanos>,
    ranges: usize,
    open: HashMap<FileKey, Held>,
    /// Which file lies at which (device, inode) of a mapping, while it is held open: nobody else can get the number.
    mapped: HashMap<(u64, u64), FileKey>,
    refused: HashMap<(u64, u64), Nanos>,
    vdso: Option<FileKey>,
}

/// First place → first place behind it, and the names, if there are any.
type Ranges = BTreeMap<u64, (u64, Option<ChainId>)>;

#[derive(Debug)]
struct Held {
    file: Opened,
    debug: Beside,
    shared: Beside,
    used: Nanos,
}

#[derive(Debug, Default)]
enum Beside {
    #[default]
    Unasked,
    Absent,
    There(Opened),
}

impl Beside {
    fn companion(&self) -> Companion {
        match self {
            Self::Unasked => Companion::Unasked,
            Self::Absent => Companion::Absent,
            Self::There(_) => Companion::Passed,
        }
    }

    fn opened(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::There(opened) => Some(opened.fd.as_fd()),
            Self::Unasked | Self::Absent => None,
        }
    }
}

/// What is known of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Names.
    Named(ChainId),
    /// Looked up, and there is none.
    Unnamed,
    /// Not looked up yet; the function that it lies in may be known all the same.
    Not(Option<ChainId>),
}

/// How much looking up may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effort {
    /// Everything is looked up now.
    All,
    /// A file is left alone for a while after it was costly, and functions stand for what was inlined into them.
    Thrifty,
}

impl Places {
    /// None yet; debug information of a file is read up to `most_debug`.
    pub(super) fn reading(most_debug: Bytes) -> Self {
        Self {
            most_debug,
            without_debug: BTreeSet::new(),
            files: BTreeMap::new(),
            functions: BTreeMap::new(),
            resting: BTreeMap::new(),
            ranges: 0,
            open: HashMap::new(),
            mapped: HashMap::new(),
            refused: HashMap::new(),
            vdso: None,
        }
    }

    /// Files whose debug information was not read.
    pub(super) fn without_inlined(&self) -> u64 {
        self.without_debug.len() as u64
    }

    /// The file of a mapping, opened if that was not done before.
    pub(super) fn file(&mut self, pid: Pid, mapping: &CodeMapping, now: Nanos, stats: &mut Stats) -> Option<FileKey> {
        let Backing::File { dev, inode, .. } = &mapping.backing else { return self.vdso(mapping, now) };
        let place = (*dev, *inode);
        if let Some(key) = self.mapped.get(&place).copied()
            && let Some(held) = self.open.get_mut(&key)
        {
            held.used = now;
            // Written to in place since: what is known of it may be wrong.
            if files::key_of(&held.file.fd) == Some(key) {
                return Some(key);
            }
            self.close(&key);
        }
        if self.refused.get(&place).is_some_and(|since| now.since(*since) < RETRY) {
            return None;
        }
        match files::of_mapping(pid, mapping) {
            Ok(file) => {
                let key = file.key;
                self.hold(file, now);
                self.mapped.insert(place, key);
                Some(key)
            }
            Err(why) => {
                // A process that has ended meanwhile says nothing about its file.
                if why != Refusal::NoAccess {
                    if self.refused.len() >= 4096 {
                        self.refused.clear();
                    }
                    self.refused.insert(place, now);
                    stats.refuse(why);
                }
                None
            }
        }
    }

    fn vdso(&mut self, mapping: &CodeMapping, now: Nanos) -> Option<FileKey> {
        if mapping.backing != Backing::Vdso {
            return None;
        }
        if let Some(key) = self.vdso
            && let Some(held) = self.open.get_mut(&key)
        {
            held.used = now;
            return Some(key);
        }
        let file = files::vdso()?;
        // Programs for another word length are lent other code.
        if mapping.end - mapping.begin != file.key.size.next_multiple_of(4096) {
            return None;
        }
        let key = self.vdso.get_or_insert(file.key).to_owned();
        self.hold(Opened { key, ..file }, now);
        Some(key)
    }

    fn hold(&mut self, file: Opened, now: Nanos) {
        if self.open.len() >= MOST_OPEN
            && let Some(oldest) = self.open.iter().min_by_key(|(_, held)| held.used).map(|(key, _)| *key)
        {
            self.close(&oldest);
        }
        let held = Held { debug: Beside::default(), shared: Beside::default(), used: now, file };
        self.open.insert(held.file.key, held);
    }

    fn close(&mut self, key: &FileKey) {
        self.open.remove(key);
        self.without_debug.remove(key);
        self.mapped.retain(|_, k| k != key);
    }

    /// Closes what nobody asked about for a while.
    pub(super) fn rest(&mut self, now: Nanos) {
        let old: Vec<FileKey> =
            self.open.iter().filter(|(_, held)| now.since(held.used) >= HOLD).map(|(key, _)| *key).collect();
        for key in old {
            self.close(&key);
        }
    }

    /// What is known of a place.
    pub(super) fn get(&self, key: &FileKey, place: u64) -> Known {
        let held = |files: &BTreeMap<FileKey, Ranges>| {
            let (_, (end, chain)) = files.get(key)?.range(..=place).next_back()?;
            (place < *end).then_some(*chain)
        };
        match held(&self.files) {
            Some(chain) => chain.map_or(Known::Unnamed, Known::Named),
            None => Known::Not(held(&self.functions).flatten()),
        }
    }

    /// Whether a file has cost enough for now.
    pub(super) fn rests(&self, key: &FileKey, now: Nanos) -> bool {
        self.resting.get(key).is_some_and(|until| now < *until)
    }

    /// Looks places of a file up that are not known. `pid` is a process that maps it, at `path`.
    pub(super) fn look_up(
        &mut self,
        key: FileKey,
        wanted: &BTreeSet<u64>,
        (pid, path): (Pid, &str),
        (keeper, names, stats): (&mut Keeper, &mut Names, &mut Stats),
    ) -> Result<(), NoAnswer> {
        // An answer tells of a whole function, and so of places that have not been asked about yet.
        let mut left: BTreeSet<u64> = wanted.clone();
        let begun = monotonic();
        while !left.is_empty() {
            let offsets: Vec<u64> = left.iter().copied().take(MOST_PLACES).collect();
            let found = self.ask(key, offsets, (pid, path), keeper, stats)?;
            if found.is_empty() {
                return Ok(());
            }
            self.keep(key, found, names);
            left.retain(|place| matches!(self.get(&key, *place), Known::Not(_)));
        }
        let now = monotonic();
        let rest = Nanos(now.since(begun).0.saturating_mul(REST)).min(LONGEST_REST);
        self.resting.retain(|_, until| now < *until);
        self.resting.insert(key, now + rest);
        Ok(())
    }

    fn ask(
        &mut self,
        key: FileKey,
        offsets: Vec<u64>,
        (pid, path): (Pid, &str),
        keeper: &mut Keeper,
        stats: &mut Stats,
    ) -> Result<Vec<Found>, NoAnswer> {
        let (debug, shared, most_debug) = (Companion::Absent, Companion::Absent, self.most_debug.0);
        let mut ask = Ask::Elf { key, debug, shared, most_debug, offsets };
        // At most once without, once with its debug file and once with that one's shared file.
        for _round in 0..3 {
            let Some(held) = self.open.get_mut(&key) else { break };
            if let Ask::Elf { debug, shared, .. } = &mut ask {
                (*debug, *shared) = (held.debug.companion(), held.shared.companion());
            }
            let own = std::iter::once(held.file.fd.as_fd());
            let descriptors: Vec<BorrowedFd<'_>> = own.chain(held.debug.opened()).chain(held.shared.opened()).collect();
            let find = |wish: &Wish| files::debug_file(pid, path, wish).map_or(Beside::Absent, Beside::There);
            match keeper.ask(key, &ask, &descriptors, stats)? {
                Reply::Names(found, without) => {
                    if without.is_none() {
                        self.without_debug.remove(&key);
                    } else if self.without_debug.len() < MOST_OPEN * MOST_OPEN {
                        self.without_debug.insert(key);
                    }
                    return Ok(found);
                }
                Reply::WantsDebug(wish) => held.debug = find(&wish),
                Reply::WantsShared(wish) => held.shared = find(&wish),
            }
        }
        Err(NoAnswer::BadFile("asks for file after file".to_owned()))
    }

    /// Keeps what was found.
    pub(super) fn keep(&mut self, key: FileKey, found: Vec<Found>, names: &mut Names) {
        if self.ranges >= MOST_RANGES {
            self.forget_names();
        }
        let ranges = self.files.entry(key).or_default();
        let functions = self.functions.entry(key).or_default();
        let before = ranges.len() + functions.len();
        for Found { begin, end, names: chain, function } in found {
            if let (Some((begin, end)), Some(outermost)) = (function, chain.first()) {
                functions.insert(begin, (end, Some(names.chain([outermost.clone()]))));
            }
            let chain = (!chain.is_empty()).then(|| names.chain(chain));
            ranges.insert(begin, (end, chain));
        }
        self.ranges += ranges.len() + functions.len() - before;
    }

    /// Forgets names: their numbers hold no longer.
    pub(super) fn forget_names(&mut self) {
        self.files.clear();
        self.functions.clear();
        self.ranges = 0;
    }
}
