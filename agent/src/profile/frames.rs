//! Frames by number: names in, one number for each distinct frame out. Names lie one behind the other in one text, so
//! that a window's names are taken in without an allocation each; it never forgets one.

use std::hash::BuildHasher as _;
use std::ops::Range;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::model::{Frame, Origin};

#[derive(Debug, Default)]
pub(super) struct Frames {
    text: String,
    known: Vec<(Range<usize>, Origin)>,
    /// Hashes and places in `known` of the first [`Self::indexed`] of them.
    index: HashTable<(u64, u32)>,
    indexed: usize,
    hasher: RandomState,
}

impl Frames {
    /// The number of a frame.
    pub(super) fn number(&mut self, name: &str, origin: Origin) -> u32 {
        self.catch_up();
        let hash = self.hasher.hash_one((name, origin));
        let (text, known) = (&mut self.text, &mut self.known);
        let is_same = |(other, at): &(u64, u32)| {
            *other == hash && {
                let (range, its) = &known[*at as usize];
                *its == origin && text[range.clone()] == *name
            }
        };
        match self.index.entry(hash, is_same, |(hash, _)| *hash) {
            Entry::Occupied(found) => found.get().1,
            Entry::Vacant(free) => {
                let number = u32::try_from(known.len()).expect("fewer than 2^32 frames fit into memory");
                free.insert((hash, number));
                let from = text.len();
                text.push_str(name);
                known.push((from..text.len(), origin));
                self.indexed = known.len();
                number
            }
        }
    }

    /// As [`Self::number`], for frames that come in their order: as long as nobody has asked in another way, nothing is
    /// looked up, which is most of the work where names are many.
    pub(super) fn next_number(&mut self, name: &str, origin: Origin) -> u32 {
        let is_next = self.known.last().is_none_or(|(range, last)| (&self.text[range.clone()], *last) < (name, origin));
        if self.indexed > 0 || !is_next {
            return self.number(name, origin);
        }
        let number = u32::try_from(self.known.len()).expect("fewer than 2^32 frames fit into memory");
        let from = self.text.len();
        self.text.push_str(name);
        self.known.push((from..self.text.len(), origin));
        number
    }

    fn catch_up(&mut self) {
        for at in self.indexed..self.known.len() {
            let (range, origin) = &self.known[at];
            let hash = self.hasher.hash_one((&self.text[range.clone()], *origin));
            let number = u32::try_from(at).expect("they were counted when they came");
            self.index.insert_unique(hash, (hash, number), |(hash, _)| *hash);
        }
        self.indexed = self.known.len();
    }

    /// The frames in their order, and where each number has gone.
    pub(super) fn sorted(self) -> (Vec<Frame>, Vec<u32>) {
        let of = |number: u32| {
            let (range, origin) = &self.known[number as usize];
            (&self.text[range.clone()], *origin)
        };
        let mut order: Vec<u32> = (0..).take(self.known.len()).collect();
        // Stable, because that one makes use of runs: windows are sorted themselves.
        order.sort_by(|a, b| of(*a).cmp(&of(*b)));
        let mut places = vec![0; order.len()];
        for (place, number) in (0..).zip(&order) {
            places[*number as usize] = place;
        }
        let frame = |number: u32| {
            let (name, origin) = of(number);
            Frame { name: name.into(), origin }
        };
        (order.into_iter().map(frame).collect(), places)
    }
}
