//! Paths as a tree: paths of frames in, one number for each out. What two paths share stands once; only what a path does
//! not share with the one before it is looked up, so that sorted paths cost as much as they differ.

use std::hash::BuildHasher as _;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// The path without a frame; also what stands for "none".
pub(super) const NOWHERE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Node {
    parent: u32,
    frame: u32,
}

/// Every path that was walked, and all that they begin with.
#[derive(Debug, Default)]
pub(super) struct Paths {
    nodes: Vec<Node>,
    /// Nodes and their places: what is compared lies in the table, because a step to elsewhere costs more.
    index: HashTable<(Node, u32)>,
    hasher: RandomState,
    /// Nodes of the path that was walked last, outermost first.
    open: Vec<u32>,
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
            let at = self.step(Node { parent, frame });
            self.open.push(at);
        }
        self.open.last().copied().unwrap_or(NOWHERE)
    }

    fn step(&mut self, node: Node) -> u32 {
        let (nodes, hasher) = (&mut self.nodes, &self.hasher);
        let hash = |node: Node| hasher.hash_one(u64::from(node.parent) << 32 | u64::from(node.frame));
        let entry = self.index.entry(hash(node), |(known, _)| *known == node, |(known, _)| hash(*known));
        match entry {
            hashbrown::hash_table::Entry::Occupied(known) => known.get().1,
            hashbrown::hash_table::Entry::Vacant(free) => {
                let at = u32::try_from(nodes.len()).expect("fewer than 2^32 frames fit into memory");
                free.insert((node, at));
                nodes.push(node);
                at
            }
        }
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
        fn paths_keep_their_frames_and_their_order(rows in proptest::collection::vec(proptest::collection::vec(0_u32..6, 0..5), 0..30)) {
            let mut paths = Paths::default();
            // Frame 0 comes last.
            let places = [5, 0, 1, 2, 3, 4];
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
