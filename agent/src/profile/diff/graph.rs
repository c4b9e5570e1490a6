//! Differential flame graph, drawn by inferno: red grew, blue shrank, both as shares of the same total.

use super::Diff;
use crate::profile::flame::{FlameError, TOO_NARROW, draw, options};
use crate::profile::folded::{Names, lines, push_number};
use crate::profile::heading::scale;
use crate::profile::tree::{Pair, Tree};

/// Which profile the widths are of. What is gone afterwards can only be seen in the graph of before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Base {
    /// Widths of before.
    Before,
    /// Widths of after.
    #[default]
    After,
}

/// Narrowest frame, as a share of the whole.
const NARROWEST: f64 = 0.0005;

/// Most frames in a graph.
const MOST_FRAMES: usize = 10_000;

/// The graph. A frame's colour is the change of what ends in it; the change of its total is in `diff_text`.
pub fn diff_svg(diff: &Diff, base: Base, title: &str, subtitle: &str) -> Result<Vec<u8>, FlameError> {
    let profile = &diff.stacks;
    let [before, after] = diff.sides.map(|side| side.total);
    if before == 0 || after == 0 {
        return Err(FlameError::Empty);
    }
    let whole = if base == Base::After { after } else { before };
    let same = |value: u64, total: u64| scaled(value, whole, total);
    // Scaled before they are cut, so that a frame that matters to either is kept.
    let mut tree = Tree::of(profile, |stack| [same(stack.samples, before), same(stack.weight, after)]);
    let gone = gone(&tree, base);
    let cut = tree.cut(NARROWEST, MOST_FRAMES);
    let names = Names::of(profile, &tree);
    let mut text = String::new();
    let pair = |text: &mut String, [before, after]: Pair| {
        // inferno draws the second, and colours by second less first.
        let [first, second] = if base == Base::After { [before, after] } else { [after, before] };
        push_number(text, first);
        text.push(' ');
        push_number(text, second);
    };
    lines(&tree, &names, &mut text, pair);
    if cut.threads != [0, 0] {
        text.push_str(TOO_NARROW);
        text.push(' ');
        pair(&mut text, cut.threads);
    }
    let scale = scale(profile.kind, whole);
    let mut options = options(title, &format!("{subtitle}{}", said(base, whole, gone)));
    scale.unit.clone_into(&mut options.count_name);
    options.factor = scale.factor;
    options.negate_differentials = base == Base::Before;
    draw(options, &text)
}

/// `value × to / from`, rounded.
fn scaled(value: u64, to: u64, from: u64) -> u64 {
    let product = u128::from(value) * u128::from(to) + u128::from(from) / 2;
    u64::try_from(product / u128::from(from.max(1))).unwrap_or(u64::MAX)
}

/// What has no width in this graph: stacks that the other profile alone has.
fn gone(tree: &Tree, base: Base) -> u64 {
    let [drawn, other] = if base == Base::After { [1, 0] } else { [0, 1] };
    tree.nodes.iter().filter(|node| node.own[drawn] == 0).map(|node| node.own[other]).fold(0, u64::saturating_add)
}

#[expect(clippy::cast_precision_loss, reason = "shown as a percentage")]
fn said(base: Base, whole: u64, gone: u64) -> String {
    let percent = 100.0 * gone as f64 / whole.max(1) as f64;
    let (width, gone) = match base {
        Base::After => ("after", "are gone, and are seen in the graph of before"),
        Base::Before => ("before", "are new, and are seen in the graph of after"),
    };
    let says = format!(" — widths of {width}, red grew, blue shrank, normalised");
    if percent < 0.05 { says } else { format!("{says}; {percent:.1} % {gone}") }
}
