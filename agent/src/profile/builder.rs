//! Puts profiles together: windows of one kind into one, or stacks into a new one. Stacks and profiles in, one profile
//! out, unique and sorted; it never drops a stack.
//!
//! A window is merged in time proportional to its stacks: no path is copied unless it is new, and as windows are sorted
//! themselves, the sort at the end finds long runs that are in order already.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::model::{Frame, Owner, Profile, Stack};
use crate::aggregate::lost::Lost;
use crate::units::{Nanos, ProfileKind};

/// Collects stacks.
#[derive(Debug, Default)]
pub struct Builder {
    frames: HashMap<Frame, u32, RandomState>,
    owners: HashMap<Owner, u32, RandomState>,
    stacks: Vec<Stack>,
    /// Places in `stacks`.
    index: HashTable<u32>,
    hasher: RandomState,
}

/// The place that stands for "has none yet".
const NOWHERE: u32 = u32::MAX;

impl Builder {
    /// The index of a frame.
    pub fn frame(&mut self, frame: Frame) -> u32 {
        number(&mut self.frames, frame)
    }

    /// The index of an owner.
    pub fn owner(&mut self, owner: Owner) -> u32 {
        number(&mut self.owners, owner)
    }

    /// Adds to a stack; indices are those that this builder gave. The path is copied only when it is new.
    pub fn add(&mut self, owner: u32, frames: &[u32], samples: u64, weight: u64) {
        let hash = self.hasher.hash_one((owner, frames));
        let stacks = &self.stacks;
        let same = |at: &u32| stacks.get(*at as usize).is_some_and(|s| s.owner == owner && *s.frames == *frames);
        if let Some(at) = self.index.find(hash, same) {
            let stack = &mut self.stacks[*at as usize];
            stack.samples = stack.samples.saturating_add(samples);
            stack.weight = stack.weight.saturating_add(weight);
            return;
        }
        let at = u32::try_from(self.stacks.len()).expect("fewer than 2^32 stacks fit into memory");
        self.stacks.push(Stack { owner, frames: frames.into(), samples, weight });
        let (stacks, hasher) = (&self.stacks, &self.hasher);
        self.index.insert_unique(hash, at, |at| {
            let stack = &stacks[*at as usize];
            hasher.hash_one((stack.owner, &*stack.frames))
        });
    }

    /// Adds all stacks of a profile that `keep` says yes to.
    pub fn merge(&mut self, other: &Profile, keep: impl Fn(&Owner) -> bool) {
        let mut frames = vec![NOWHERE; other.frames.len()];
        let owners: Vec<Option<u32>> =
            other.owners.iter().map(|owner| keep(owner).then(|| self.owner(owner.clone()))).collect();
        let mut path = Vec::new();
        for stack in &other.stacks {
            let Some(owner) = owners.get(stack.owner as usize).copied().flatten() else { continue };
            path.clear();
            for old in &stack.frames {
                let Some(new) = frames.get_mut(*old as usize) else { continue };
                if *new == NOWHERE {
                    *new = self.frame(other.frames[*old as usize].clone());
                }
                path.push(*new);
            }
            self.add(owner, &path, stack.samples, stack.weight);
        }
    }

    /// The profile, sorted.
    pub fn finish(self, kind: ProfileKind, start: Nanos, end: Nanos, lost: Lost) -> Profile {
        let (frames, frame_places) = sorted(self.frames);
        let (owners, owner_places) = sorted(self.owners);
        let mut stacks = self.stacks;
        for stack in &mut stacks {
            stack.owner = owner_places[stack.owner as usize];
            stack.frames.iter_mut().for_each(|frame| *frame = frame_places[*frame as usize]);
        }
        // Stable, because that one makes use of runs; no two are equal.
        stacks.sort_by(|a, b| (a.owner, &a.frames).cmp(&(b.owner, &b.frames)));
        Profile { kind, start, end, frames, owners, stacks, lost }
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
