//! Ranges of an array: handed out, taken back, and handed out again only when nobody can still be reading them.

use std::collections::BTreeMap;

/// A range of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Region {
    /// Index of its first value.
    pub(super) start: u32,
    /// Number of values.
    pub(super) len: u32,
}

/// Passes that a range rests after it was given back: by then the kernel side has told of every process that took it over.
const RESTS: u32 = 2;

/// The free ranges of an array.
#[derive(Debug)]
pub(super) struct Regions {
    free: BTreeMap<u32, u32>,
    resting: Vec<(u32, Region)>,
}

impl Regions {
    /// An array of `len` values, all free.
    pub(super) fn of(len: u32) -> Self {
        Self { free: [(0, len)].into(), resting: Vec::new() }
    }

    /// Hands out a range: the first that is long enough.
    pub(super) fn take(&mut self, len: u32) -> Option<Region> {
        if len == 0 {
            return Some(Region { start: 0, len: 0 });
        }
        let (start, room) = self.free.iter().find(|(_, room)| **room >= len).map(|(s, r)| (*s, *r))?;
        self.free.remove(&start);
        if room > len {
            self.free.insert(start + len, room - len);
        }
        Some(Region { start, len })
    }

    /// Takes a range back; it rests first.
    pub(super) fn give(&mut self, region: Region) {
        if region.len > 0 {
            self.resting.push((RESTS, region));
        }
    }

    /// A pass over everything that was told is over.
    pub(super) fn pass(&mut self) {
        let mut rested = Vec::new();
        self.resting.retain_mut(|(left, region)| {
            *left -= 1;
            if *left == 0 {
                rested.push(*region);
            }
            *left > 0
        });
        for region in rested {
            self.free(region);
        }
    }

    fn free(&mut self, region: Region) {
        let Region { mut start, mut len } = region;
        if let Some((before, room)) = self.free.range(..start).next_back().map(|(s, r)| (*s, *r))
            && before + room == start
        {
            self.free.remove(&before);
            (start, len) = (before, room + len);
        }
        if let Some(room) = self.free.remove(&(start + len)) {
            len += room;
        }
        self.free.insert(start, len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_never_overlap_and_all_come_back(steps in proptest::collection::vec((any::<bool>(), 1..20_u32), 0..100)) {
            let mut regions = Regions::of(100);
            let mut held: Vec<Region> = Vec::new();
            for (take, len) in steps {
                if take {
                    if let Some(new) = regions.take(len) {
                        prop_assert!(held.iter().all(|h| new.start + new.len <= h.start || h.start + h.len <= new.start));
                        held.push(new);
                    }
                } else if !held.is_empty() {
                    regions.give(held.remove(len as usize % held.len()));
                    regions.pass();
                }
            }
            for region in held {
                regions.give(region);
            }
            for _ in 0..RESTS {
                regions.pass();
            }
            prop_assert_eq!(regions.free, [(0, 100)].into());
        }
    }
}
