//! Paths as a tree: paths of frames in, one number for each out. What two paths share stands once; only what a path does
//! not share with the one before it is looked up, so that sorted paths cost as much as they differ.

use std::hash::BuildHasher as _;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// The path without a frame; also what stands for "none".
pub(super) const NOWHERE: u32 = u32::MAX;

/// Children of a node that are looked through one by one. Most have fewer, and what was merged before lies in memory in the
/// order in which it is asked for, as it does in no table.
const NARROW: usize = 4;

#[derive(Clone, Copy, Debug)]
struct Node {
    parent: u32,
    frame: u32,
    /// The first child.
    first: u32,
    /// The next one of the same parent, as far as they are looked through.
    next: u32,
}

/// Every path that was walked, and all that they begin with.
#[derive(Debug)]
pub(super) struct Paths {
    nodes: Vec<Node>,
    /// The first node without a parent.
    root: u32,
    /// Parent, frame and place of the nodes that are beyond the first [`NARROW`] of their parents.
    index: HashTable<(u32, u32, u32)>,
    hasher: RandomState,
    /// Nodes of the path that was walked last, outermost first.
    open: Vec<u32>,
}

impl Default for Paths {
    fn default() -> Self {
        let (index, hasher) = (HashTable::new(), RandomState::default());
        Self { nodes: Vec::new(), root: NOWHERE, index, hasher, open: Vec::new() }
    }
}

impl Paths {
    /// The number of a path.
    pub(super) fn walk(&mut self, frames: &[u32]) -> u32 {
        let same = self.open.iter().zip(frames).take_while(|(at, frame)| self.nodes[**at as usize].frame == **frame);
        let same = same.count();
        self.branch(same, frames.get(same..).unwrap_or_default().iter().copied())
    }

    /// The number of the path that begins as the last one does, for `same` frames, and goes on otherwise.
    pub(super) fn branch(&mut self, same: usize, frames: impl Iterator<Item = u32>) -> u32 {
        self.open.truncate(same);
        for frame in frames {
            let parent = self.open.last().copied().unwrap_or(NOWHERE);
            let at = self.step(parent, frame);
            self.open.push(at);
        }
        self.open.last().copied().unwrap_or(NOWHERE)
    }

    fn step(&mut self, parent: u32, frame: u32) -> u32 {
        let (mut before, mut at) = (NOWHERE, self.nodes.get(parent as usize).map_or(self.root, |node| node.first));
        let mut seen = 0;
        while seen < NARROW {
            let Some(node) = self.nodes.get(at as usize) else { break };
            if node.frame == frame {
                return at;
            }
            (before, at) = (at, node.next);
            seen += 1;
        }
        let new = u32::try_from(self.nodes.len()).expect("fewer than 2^32 frames fit into memory");
        if seen == NARROW {
            let hash = |parent: u32, frame: u32| self.hasher.hash_one(u64::from(parent) << 32 | u64::from(frame));
            let is_same = |known: &(u32, u32, u32)| (known.0, known.1) == (parent, frame);
            match self.index.entry(hash(parent, frame), is_same, |known| hash(known.0, known.1)) {
                Entry::Occupied(known) => return known.get().2,
                Entry::Vacant(free) => free.insert((parent, frame, new)),
            };
        } else if let Some(before) = self.nodes.get_mut(before as usize) {
            before.next = new;
        } else if let Some(parent) = self.nodes.get_mut(parent as usize) {
            parent.first = new;
        } else {
            self.root = new;
        }
        self.nodes.push(Node { parent, frame, first: NOWHERE, next: NOWHERE });
        new
    }

    /// The place of each node in a walk from the root, callers before those they call, those in the order of `places`
    /// of their frames. That is the order of paths as rows of frames.
    pub(super) fn order(&self, places: &[u32]) -> Vec<u32> {
        let mut by_place = vec![NOWHERE; places.len()];
        let mut next_alike = vec![NOWHERE; self.nodes.len()];
        for (at, node) in (0..).zip(&self.nodes) {
            let head = &mut by_place[places[node.frame as usize] as usize];
            next_alike[at as usize] = std::mem::replace(head, at);
        }
        // Lists of children are built from their ends, and so the last frames are taken first.
        let (mut first_root, mut first) = (NOWHERE, vec![NOWHERE; self.nodes.len()]);
        let mut next = vec![NOWHERE; self.nodes.len()];
        for head in by_place.into_iter().rev() {
            let mut at = head;
            while at != NOWHERE {
                let parent = self.nodes[at as usize].parent;
                let list = if parent == NOWHERE { &mut first_root } else { &mut first[parent as usize] };
                next[at as usize] = std::mem::replace(list, at);
                at = next_alike[at as usize];
            }
        }
        let mut order = vec![0; self.nodes.len()];
        let mut at = first_root;
        for place in 0..u32::try_from(self.nodes.len()).unwrap_or(NOWHERE) {
            order[at as usize] = place;
            let mut after = first[at as usize];
            while after == NOWHERE && at != NOWHERE {
                after = next[at as usize];
                at = self.nodes[at as usize].parent;
            }
            at = after;
        }
        order
    }

    /// The frames of a path, outermost first, each as `place` gives it.
    pub(super) fn frames(&self, path: u32, place: impl Fn(u32) -> u32) -> Box<[u32]> {
        let upwards =
            || std::iter::successors(self.nodes.get(path as usize), |node| self.nodes.get(node.parent as usize));
        let mut frames = vec![0; upwards().count()];
        frames.iter_mut().rev().zip(upwards()).for_each(|(to, node)| *to = place(node.frame));
        frames.into_boxed_slice()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn paths_keep_their_frames_and_their_order(rows in proptest::collection::vec(proptest::collection::vec(0_u32..9, 0..4), 0..40)) {
            let mut paths = Paths::default();
            // Frame 0 comes last.
            let places = [8, 0, 1, 2, 3, 4, 5, 6, 7];
            let numbers: Vec<u32> = rows.iter().map(|row| paths.walk(row)).collect();
            for (row, number) in rows.iter().zip(&numbers) {
                prop_assert_eq!(&*paths.frames(*number, |frame| frame), &**row);
                prop_assert_eq!(paths.walk(row), *number);
            }
            let order = paths.order(&places);
            let placed = |row: &Vec<u32>| row.iter().map(|frame| places[*frame as usize]).collect::<Vec<u32>>();
            let rank = |number: u32| order.get(number as usize).copied();
            for (a, x) in rows.iter().zip(&numbers) {
                for (b, y) in rows.iter().zip(&numbers) {
                    prop_assert_eq!(placed(a).cmp(&placed(b)), rank(*x).cmp(&rank(*y)), "{:?} {:?}", a, b);
                }
            }
        }
    }

    #[test]
    fn a_path_may_go_on_from_the_one_before_it() {
        let mut paths = Paths::default();
        paths.walk(&[1, 2, 3]);
        let other = paths.branch(2, [7, 8].into_iter());
        assert_eq!(&*paths.frames(other, |frame| frame), [1, 2, 7, 8]);
        assert_eq!(paths.walk(&[1, 2, 7, 8]), other);
        assert_eq!(paths.branch(0, [].into_iter()), NOWHERE);
    }
}
