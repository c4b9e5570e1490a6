//! Whose stacks are to be unwound: what was asked for and births in, yes or no for each process out. Plain computation: it
//! never looks at a process.

use std::collections::BTreeSet;

/// Whose stacks are to be unwound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Of every process.
    Host,
    /// Of these.
    Pids(BTreeSet<u32>),
}

/// What becomes of processes that are born to followed ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Children {
    /// They are followed if they are among those that were named.
    #[default]
    Left,
    /// They are followed.
    Followed,
}

/// The processes that are followed.
#[derive(Debug, Default)]
pub(super) struct Followed {
    interest: Option<Interest>,
    children: Children,
    born: BTreeSet<u32>,
}

impl Followed {
    pub(super) fn new(interest: Option<Interest>, children: Children) -> Self {
        Self { interest, children, born: BTreeSet::new() }
    }

    /// What was asked for.
    pub(super) fn interest(&self) -> Option<&Interest> {
        self.interest.as_ref()
    }

    /// Whether just that was asked for.
    pub(super) fn is(&self, interest: Option<&Interest>, children: Children) -> bool {
        self.interest.as_ref() == interest && self.children == children
    }

    pub(super) fn covers(&self, pid: u32) -> bool {
        let named = match &self.interest {
            None => false,
            Some(Interest::Host) => true,
            Some(Interest::Pids(pids)) => pids.contains(&pid),
        };
        named || self.born.contains(&pid)
    }

    /// A process was born; whoever had its number before has ended.
    pub(super) fn born(&mut self, pid: u32, parent: u32) {
        if self.children == Children::Followed && self.covers(parent) {
            self.born.insert(pid);
        } else {
            self.born.remove(&pid);
        }
    }

    /// A process is known no more.
    pub(super) fn forget(&mut self, pid: u32) {
        self.born.remove(&pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_and_their_children_are_followed_and_whoever_gets_their_number_next_is_not() {
        let of = |children| Followed::new(Some(Interest::Pids([7].into())), children);
        let mut followed = of(Children::Followed);
        followed.born(8, 7);
        followed.born(9, 8);
        followed.born(20, 19);
        assert!([7, 8, 9].iter().all(|pid| followed.covers(*pid)) && !followed.covers(20));
        followed.born(9, 19);
        followed.forget(8);
        assert!(!followed.covers(8) && !followed.covers(9));
        let mut left = of(Children::Left);
        left.born(8, 7);
        assert!(!left.covers(8));
    }
}
