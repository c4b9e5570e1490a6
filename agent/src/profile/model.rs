//! A profile with names: each frame and each owner once, stacks as numbers. What history keeps, what every format is
//! written from, and what two profiles are compared by.
//!
//! Stacks are unique and sorted, and so are frames: the same facts are the same bytes.

use std::sync::Arc;

use crate::aggregate::lost::Lost;
use crate::units::{Nanos, Pid, ProfileKind};

pub use super::builder::Builder;

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

impl Origin {
    /// What a frame is of which only the name is known: a name all in brackets is a note.
    pub fn of_text(name: &str) -> Self {
        if name.starts_with('[') && name.ends_with(']') { Self::Note } else { Self::User }
    }
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

impl Owner {
    /// An owner of whom only the name is known.
    pub fn named(comm: Arc<str>) -> Self {
        Self { pid: None, uid: None, comm, cgroup: None, container: None }
    }
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

    /// Samples behind it, of all stacks.
    pub fn samples(&self) -> u64 {
        self.stacks.iter().map(|stack| stack.samples).fold(0, u64::saturating_add)
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
