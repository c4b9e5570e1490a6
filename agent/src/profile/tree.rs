//! Call tree: a profile in, its stacks merged by thread name and path out, with up to two values to a node (two, where
//! two profiles are compared). Cutting it drops what is too small to be seen, never silently: a cut says what it left out.
//!
//! Nodes stand in the order of a walk from the root, children by name: text that is written from them is sorted.

use super::model::{Profile, Stack};

/// Values of a node: one profile's and, in a comparison, the other's.
pub type Pair = [u64; 2];

/// A node: a thread name at depth 0, a frame below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Index of the name: of an owner at depth 0, of a frame below.
    pub name: u32,
    /// Steps from the thread name.
    pub depth: usize,
    /// What ends here.
    pub own: Pair,
    /// What ends here and above.
    pub all: Pair,
}

/// The nodes in walking order.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// Parents before children.
    pub nodes: Vec<Node>,
    /// Sum of all values.
    pub total: Pair,
}

/// What a cut left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Nodes that are no more.
    pub nodes: usize,
    /// What they stood for; their parents hold it now.
    pub value: Pair,
    /// The part of it that has no parent left: whole threads.
    pub threads: Pair,
}

impl Tree {
    /// Merges the stacks of a profile, each with the values that `value` gives it.
    pub fn of(profile: &Profile, value: impl Fn(&Stack) -> Pair) -> Self {
        let (same_name, stacks) = by_name(profile);
        let mut tree = Self::default();
        // Places in `nodes` from the thread name to where the walk stands.
        let mut open: Vec<usize> = Vec::new();
        for stack in stacks {
            let value = value(stack);
            if value == [0, 0] {
                continue;
            }
            add(&mut tree.total, value);
            let names = std::iter::once(same_name[stack.owner as usize]).chain(stack.frames.iter().copied());
            let mut depth = 0;
            for name in names {
                if open.get(depth).is_none_or(|at| tree.nodes[*at].name != name) {
                    open.truncate(depth);
                    open.push(tree.nodes.len());
                    tree.nodes.push(Node { name, depth, own: [0, 0], all: [0, 0] });
                }
                add(&mut tree.nodes[open[depth]].all, value);
                depth += 1;
            }
            open.truncate(depth);
            if let Some(last) = open.last() {
                add(&mut tree.nodes[*last].own, value);
            }
        }
        tree
    }

    /// Leaves out nodes that are less than `share` of the whole, and the smallest of the rest when more than `most`
    /// would remain. What they stood for is their parents' own from then on. A node counts by the greater of its values.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share")]
    pub fn cut(&mut self, share: f64, most: usize) -> Cut {
        let weight = |node: &Node| node.all[0].max(node.all[1]);
        let mut least = ((self.total[0].max(self.total[1])) as f64 * share).ceil() as u64;
        let mut weights: Vec<u64> = self.nodes.iter().map(weight).filter(|w| *w >= least).collect();
        if weights.len() > most {
            let (_, nth, _) = weights.select_nth_unstable_by(most, |a, b| b.cmp(a));
            least = nth.saturating_add(1);
        }
        let mut cut = Cut::default();
        let mut kept: Vec<Node> = Vec::with_capacity(most.min(self.nodes.len()));
        let mut open: Vec<usize> = Vec::new();
        for node in &self.nodes {
            open.truncate(node.depth);
            // Depth says whether the parent was kept: a child is never greater than its parent.
            if weight(node) >= least && open.len() == node.depth {
                open.push(kept.len());
                kept.push(*node);
                continue;
            }
            cut.nodes += 1;
            add(&mut cut.value, node.own);
            match open.last() {
                Some(parent) => add(&mut kept[*parent].own, node.own),
                None => add(&mut cut.threads, node.own),
            }
        }
        self.nodes = kept;
        cut
    }
}

fn add(sum: &mut Pair, value: Pair) {
    *sum = [sum[0].saturating_add(value[0]), sum[1].saturating_add(value[1])];
}

/// For each owner the first owner of its name; and the stacks in the order of thread name and path.
fn by_name(profile: &Profile) -> (Vec<u32>, Vec<&Stack>) {
    let mut order: Vec<u32> = (0..).take(profile.owners.len()).collect();
    let comm = |at: &u32| &*profile.owners[*at as usize].comm;
    order.sort_by(|a, b| comm(a).cmp(comm(b)));
    let (mut first, mut rank) = (vec![0; order.len()], vec![0_u32; order.len()]);
    let (mut now, mut head) = (0, order.first().copied().unwrap_or_default());
    for at in order {
        if comm(&at) != comm(&head) {
            (now, head) = (now + 1, at);
        }
        first[at as usize] = head;
        rank[at as usize] = now;
    }
    let mut stacks: Vec<&Stack> = profile.stacks.iter().filter(|s| (s.owner as usize) < rank.len()).collect();
    let key = |stack: &Stack| rank[stack.owner as usize];
    // Stable, because that one makes use of the runs that one owner's stacks are.
    stacks.sort_by(|a, b| key(a).cmp(&key(b)).then_with(|| a.frames.cmp(&b.frames)));
    (first, stacks)
}
