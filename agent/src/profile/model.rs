//! A profile with names: each frame and each owner once, stacks as numbers. What history keeps, what every format is
//! written from, and what two profiles are compared by.
//!
//! Stacks are unique and sorted, and so are frames: the same facts are the same bytes.

use std::collections::HashMap;
use std::sync::Arc;

use crate::aggregate::lost::Lost;
use crate::units::{Nanos, Pid, ProfileKind};

/// One kind of stacks over one span.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// What it shows.
    pub kind: ProfileKind,
    /// First instant, monotonic clock of its host.
    pub start: Nanos,
    /// Last instant.
    pub end: Nanos,
    /// Every frame, once.
    pub frames: Vec<Frame>,
    /// Every owner, once.
    pub owners: Vec<Owner>,
    /// Stacks, unique by owner and frames.
    pub stacks: Vec<Stack>,
    /// What was lost meanwhile.
    pub lost: Lost,
}

/// A function, or a note that stands where one would.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frame {
    /// Its name, clean (see `symbolize::names::clean`).
    pub name: Arc<str>,
    /// What kind of frame it is.
    pub origin: Origin,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// A function of a program.
    User,
    /// A function of the kernel.
    Kernel,
    /// A note of the profiler, in brackets: what was lost, why a thread waited.
    Note,
}

/// Whose a stack is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// Process; absent for what belongs to none (losses).
    pub pid: Option<Pid>,
    /// User who owned the process when it was seen; absent when not known.
    pub uid: Option<u32>,
    /// Name of the thread, clean.
    pub comm: Arc<str>,
    /// Path of its cgroup.
    pub cgroup: Option<Arc<str>>,
    /// Id of its container.
    pub container: Option<Arc<str>>,
}

/// One stack of one owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// Index of its owner.
    pub owner: u32,
    /// Indices of its frames, outermost first; the owner's name is none of them.
    pub frames: Box<[u32]>,
    /// Samples taken.
    pub samples: u64,
    /// What they stand for: nanoseconds, or the unit of the kind where that is no time.
    pub weight: u64,
}

impl Stack {
    /// What a graph of this kind counts: samples on the CPU, else the weight.
    pub fn value(&self, kind: ProfileKind) -> u64 {
        if kind == ProfileKind::Cpu { self.samples } else { self.weight }
    }
}

impl Profile {
    /// A profile of nothing.
    pub fn empty(kind: ProfileKind, start: Nanos, end: Nanos) -> Self {
        Self { kind, start, end, frames: vec![], owners: vec![], stacks: vec![], lost: Lost::default() }
    }

    /// Whether it has no stack.
    pub fn is_empty(&self) -> bool {
        self.stacks.is_empty()
    }

    /// Sum of all values.
    pub fn total(&self) -> u64 {
        self.stacks.iter().map(|stack| stack.value(self.kind)).fold(0, u64::saturating_add)
    }

    /// Name of a stack's owner and names of its frames, outermost first.
    pub fn names_of<'a>(&'a self, stack: &'a Stack) -> impl Iterator<Item = &'a Frame> + 'a {
        stack.frames.iter().filter_map(|index| self.frames.get(*index as usize))
    }

    /// The owner of a stack.
    pub fn owner_of(&self, stack: &Stack) -> Option<&Owner> {
        self.owners.get(stack.owner as usize)
    }
}

/// Puts profiles together: windows of one kind into one, or stacks into a new one.
#[derive(Debug, Default)]
pub struct Builder {
    frames: HashMap<Frame, u32>,
    owners: HashMap<Owner, u32>,
    stacks: HashMap<(u32, Box<[u32]>), Sum>,
}

/// Samples and weight.
type Sum = (u64, u64);

impl Builder {
    /// The index of a frame.
    pub fn frame(&mut self, frame: Frame) -> u32 {
        let next = u32::try_from(self.frames.len()).expect("fewer than 2^32 frames fit into memory");
        *self.frames.entry(frame).or_insert(next)
    }

    /// The index of an owner.
    pub fn owner(&mut self, owner: Owner) -> u32 {
        let next = u32::try_from(self.owners.len()).expect("fewer than 2^32 owners fit into memory");
        *self.owners.entry(owner).or_insert(next)
    }

    /// Adds to a stack; indices are those that this builder gave.
    pub fn add(&mut self, owner: u32, frames: Box<[u32]>, samples: u64, weight: u64) {
        let sum = self.stacks.entry((owner, frames)).or_insert((0, 0));
        sum.0 = sum.0.saturating_add(samples);
        sum.1 = sum.1.saturating_add(weight);
    }

    /// Adds all stacks of a profile that `keep` says yes to.
    pub fn merge(&mut self, other: &Profile, keep: impl Fn(&Owner) -> bool) {
        let frames: Vec<u32> = other.frames.iter().map(|frame| self.frame(frame.clone())).collect();
        let owners: Vec<Option<u32>> =
            other.owners.iter().map(|owner| keep(owner).then(|| self.owner(owner.clone()))).collect();
        for stack in &other.stacks {
            if let Some(owner) = owners.get(stack.owner as usize).copied().flatten() {
                let mapped = stack.frames.iter().filter_map(|f| frames.get(*f as usize)).copied().collect();
                self.add(owner, mapped, stack.samples, stack.weight);
            }
        }
    }

    /// The profile, sorted.
    pub fn finish(self, kind: ProfileKind, start: Nanos, end: Nanos, lost: Lost) -> Profile {
        let (frames, frame_places) = sorted(self.frames);
        let (owners, owner_places) = sorted(self.owners);
        let mut stacks: Vec<Stack> = self
            .stacks
            .into_iter()
            .map(|((owner, mut path), (samples, weight))| {
                path.iter_mut().for_each(|f| *f = frame_places[*f as usize]);
                Stack { owner: owner_places[owner as usize], frames: path, samples, weight }
            })
            .collect();
        stacks.sort_unstable_by(|a, b| (a.owner, &a.frames).cmp(&(b.owner, &b.frames)));
        Profile { kind, start, end, frames, owners, stacks, lost }
    }
}

/// The keys in their order, and where each index has gone.
fn sorted<T: Ord>(indices: HashMap<T, u32>) -> (Vec<T>, Vec<u32>) {
    let mut all: Vec<(T, u32)> = indices.into_iter().collect();
    all.sort_unstable();
    let mut places = vec![0; all.len()];
    for (place, (_, old)) in (0..).zip(&all) {
        places[*old as usize] = place;
    }
    (all.into_iter().map(|(key, _)| key).collect(), places)
}
