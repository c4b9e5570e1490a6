//! Puts profiles together: windows of one kind into one, or stacks into a new one. Stacks and profiles in, one profile
//! out, unique and sorted; it never drops a stack.
//!
//! A window is merged in time proportional to the nodes of its call tree and to its names: what a stack shares with the
//! one before it is not looked up again, names are merged as the sorted lists that they are, and no path is written down
//! before the end.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::frames::Frames;
use super::model::{Frame, Origin, Owner, Profile, Stack};
use super::paths::{NOWHERE, Paths};
use super::unpacked::Unpacked;
use crate::aggregate::lost::Lost;
use crate::units::{Nanos, ProfileKind};

/// Collects stacks.
#[derive(Debug, Default)]
pub struct Builder {
    frames: Frames,
    owners: HashMap<Owner, u32, RandomState>,
    paths: Paths,
    stacks: Vec<Counted>,
    /// The first stack of each path; that of the path without a frame stands first.
    first: Vec<u32>,
    /// Owner, path, and place in `stacks` of all that are not the first of their path.
    index: HashTable<(u32, u32, u32)>,
    hasher: RandomState,
}

/// A stack by the numbers of its owner and its path.
#[derive(Clone, Copy, Debug)]
struct Counted {
    owner: u32,
    path: u32,
    samples: u64,
    weight: u64,
}

impl Builder {
    /// The index of a frame.
    pub fn frame(&mut self, name: &str, origin: Origin) -> u32 {
        self.frames.number(name, origin)
    }

    /// The index of an owner.
    pub fn owner(&mut self, owner: Owner) -> u32 {
        number(&mut self.owners, owner)
    }

    /// Adds to a stack; indices are those that this builder gave.
    pub fn add(&mut self, owner: u32, frames: &[u32], samples: u64, weight: u64) {
        let path = self.paths.walk(frames);
        self.count(Counted { owner, path, samples, weight });
    }

    /// Adds all stacks of a profile that `keep` says yes to.
    pub fn merge(&mut self, other: &Profile, keep: impl Fn(&Owner) -> bool) {
        let mut frames = vec![NOWHERE; other.frames.len()];
        let owners = self.owners(&other.owners, &keep);
        let mut path = Vec::new();
        for stack in &other.stacks {
            let Some(owner) = owners.get(stack.owner as usize).copied().flatten() else { continue };
            path.clear();
            for old in &stack.frames {
                let Some(new) = frames.get_mut(*old as usize) else { continue };
                if *new == NOWHERE {
                    let Frame { name, origin } = &other.frames[*old as usize];
                    *new = self.frames.number(name, *origin);
                }
                path.push(*new);
            }
            self.add(owner, &path, stack.samples, stack.weight);
        }
    }

    /// Adds all stacks of packed windows that `keep` says yes to. Windows have sorted names: those of all of them are put
    /// in one order, and so each is looked up once in all, not once a window.
    pub(super) fn merge_unpacked(&mut self, windows: &[Unpacked<'_>], keep: impl Fn(&Owner) -> bool) {
        let owners: Vec<_> = windows.iter().map(|window| self.owners(&window.owners, &keep)).collect();
        let numbers = self.numbers(windows, &owners);
        for ((window, owners), numbers) in windows.iter().zip(&owners).zip(&numbers) {
            // How many frames of the stack that is read the path that was walked last has too.
            let mut walked = 0;
            window.walk(|step, path| {
                walked = walked.min(step.same as usize);
                let Some(owner) = owners[step.owner as usize] else { return };
                let new = path[walked..].iter().map(|old| numbers[*old as usize]);
                let path_number = self.paths.branch(walked, new);
                walked = path.len();
                self.count(Counted { owner, path: path_number, samples: step.samples, weight: step.weight });
            });
        }
    }

    /// The number of each frame of each window that a stack of an owner who is kept has.
    fn numbers(&mut self, windows: &[Unpacked<'_>], owners: &[Vec<Option<u32>>]) -> Vec<Vec<u32>> {
        let mut names: Vec<(&str, Origin, u32, u32)> = Vec::new();
        for ((nth, window), owners) in (0..).zip(windows).zip(owners) {
            let is_used = window.used(|owner| owners[owner as usize].is_some());
            let used = (0..).zip(&window.frames).zip(is_used).filter(|(_, is_used)| *is_used);
            names.extend(used.map(|((at, (origin, name)), _)| (*name, *origin, nth, at)));
        }
        // Stable, because that one makes use of runs.
        names.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
        let mut numbers: Vec<Vec<u32>> = windows.iter().map(|window| vec![NOWHERE; window.frames.len()]).collect();
        let mut last = None;
        for (name, origin, window, at) in names {
            let number = match last {
                Some((same, number)) if same == (name, origin) => number,
                _ => self.frames.next_number(name, origin),
            };
            last = Some(((name, origin), number));
            numbers[window as usize][at as usize] = number;
        }
        numbers
    }

    /// The profile, sorted.
    pub fn finish(self, kind: ProfileKind, start: Nanos, end: Nanos, lost: Lost) -> Profile {
        let Self { frames, owners, paths, mut stacks, first: _, index: _, hasher: _ } = self;
        let (frames, frame_places) = frames.sorted();
        let (owners, owner_places) = sorted(owners);
        let order = paths.order(&frame_places);
        for stack in &mut stacks {
            stack.owner = owner_places[stack.owner as usize];
        }
        // The path without a frame comes before all others.
        stacks.sort_unstable_by_key(|stack| (stack.owner, order.get(stack.path as usize).copied()));
        let stack = |Counted { owner, path, samples, weight }| {
            let frames = paths.frames(path, |frame| frame_places[frame as usize]);
            Stack { owner, frames, samples, weight }
        };
        let stacks = stacks.into_iter().map(stack).collect();
        Profile { kind, start, end, frames, owners, stacks, lost }
    }

    fn owners(&mut self, owners: &[Owner], keep: &impl Fn(&Owner) -> bool) -> Vec<Option<u32>> {
        owners.iter().map(|owner| keep(owner).then(|| self.owner(owner.clone()))).collect()
    }

    fn count(&mut self, new: Counted) {
        let Counted { owner, path, samples, weight } = new;
        let at = u32::try_from(self.stacks.len()).expect("fewer than 2^32 stacks fit into memory");
        let place = self.place(owner, path, at);
        match self.stacks.get_mut(place as usize) {
            Some(stack) => {
                stack.samples = stack.samples.saturating_add(samples);
                stack.weight = stack.weight.saturating_add(weight);
            }
            None => self.stacks.push(new),
        }
    }

    /// Where the stack of an owner with a path is; `new` when there is none yet, and from then on there. Few paths are
    /// those of more than one owner, and so few are looked up in the table.
    fn place(&mut self, owner: u32, path: u32, new: u32) -> u32 {
        let at = path.wrapping_add(1) as usize;
        if at >= self.first.len() {
            self.first.resize(at + 1, NOWHERE);
        }
        let first = &mut self.first[at];
        match self.stacks.get(*first as usize) {
            None => *first = new,
            Some(stack) if stack.owner == owner => return *first,
            Some(_other_owner) => {
                let hash = |owner: u32, path: u32| self.hasher.hash_one(u64::from(owner) << 32 | u64::from(path));
                let is_same = |known: &(u32, u32, u32)| (known.0, known.1) == (owner, path);
                match self.index.entry(hash(owner, path), is_same, |known| hash(known.0, known.1)) {
                    Entry::Occupied(known) => return known.get().2,
                    Entry::Vacant(free) => free.insert((owner, path, new)),
                };
            }
        }
        new
    }
}

fn number<T: Eq + Hash>(known: &mut HashMap<T, u32, RandomState>, item: T) -> u32 {
    let next = u32::try_from(known.len()).expect("fewer than 2^32 of them fit into memory");
    *known.entry(item).or_insert(next)
}

/// The keys in their order, and where each index has gone.
fn sorted<T: Ord>(indices: HashMap<T, u32, RandomState>) -> (Vec<T>, Vec<u32>) {
    let mut all: Vec<(T, u32)> = indices.into_iter().collect();
    all.sort_unstable();
    let mut places = vec![0; all.len()];
    for (place, (_, old)) in (0..).zip(&all) {
        places[*old as usize] = place;
    }
    (all.into_iter().map(|(key, _)| key).collect(), places)
}
