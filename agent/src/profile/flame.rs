//! Flame graphs, drawn by inferno: a profile in, an interactive SVG out. What is too narrow to be seen is not drawn, and
//! the graph says how much that is; nothing is left out of the totals.

use inferno::flamegraph::color::{BackgroundColor, Color};
use inferno::flamegraph::{Options, TextTruncateDirection, from_lines};

use super::folded::{Names, lines, push_number};
use super::heading::{amount, scale};
use super::model::{Origin, Profile};
use super::palette::{Shade, palette};
use super::tree::{Cut, Tree};

/// Why a graph could not be drawn.
#[derive(Debug, thiserror::Error)]
pub enum FlameError {
    /// There is nothing to draw.
    #[error("no samples: nothing ran on a CPU in that time, or nothing of that process (is the pid right?)")]
    Empty,
    /// The drawing failed.
    #[error("draw the flame graph: {0}")]
    Draw(String),
}

/// Narrowest frame, as a share of the whole. Zoomed in to a hundredth, it is 12 pixels wide.
const NARROWEST: f64 = 0.0001;

/// Most frames in a graph; browsers become slow beyond.
const MOST_FRAMES: usize = 10_000;

/// What holds the place of threads that are too narrow.
pub(super) const TOO_NARROW: &str = "[threads too narrow to draw]";

/// An interactive SVG: width is the value of the profile's kind, kernel frames and notes stand apart by colour.
pub fn flame_svg(profile: &Profile, title: &str, subtitle: &str) -> Result<Vec<u8>, FlameError> {
    let kind = profile.kind;
    let mut tree = Tree::of(profile, |stack| [stack.value(kind), 0]);
    let cut = tree.cut(NARROWEST, MOST_FRAMES);
    if tree.total[0] == 0 {
        return Err(FlameError::Empty);
    }
    let names = Names::of(profile, &tree);
    let mut text = String::new();
    lines(&tree, &names, &mut text, |text, [value, _]| push_number(text, value));
    if cut.threads[0] > 0 {
        text.push_str(TOO_NARROW);
        text.push(' ');
        push_number(&mut text, cut.threads[0]);
    }
    let scale = scale(kind, tree.total[0]);
    let mut palette = palette(shades(&tree, profile, &names));
    let mut options = options(title, &format!("{subtitle}{}", left_out(profile, &cut)));
    scale.unit.clone_into(&mut options.count_name);
    options.factor = scale.factor;
    options.palette_map = Some(&mut palette);
    draw(options, &text)
}

/// How every graph looks.
pub(super) fn options<'a>(title: &str, subtitle: &str) -> Options<'a> {
    let mut options = Options::default();
    title.clone_into(&mut options.title);
    options.subtitle = Some(subtitle.to_owned());
    options.bgcolors = Some(BackgroundColor::Flat(Color { r: 252, g: 252, b: 250 }));
    options.font_size = 12;
    // The start of a path says more than its end: which crate, which module.
    options.text_truncate_direction = TextTruncateDirection::Right;
    // What is too narrow has been left out already; this leaves out what has no width at all.
    options.min_width = 0.001;
    options.deterministic = true;
    options
}

pub(super) fn draw(mut options: Options<'_>, text: &str) -> Result<Vec<u8>, FlameError> {
    let mut svg = Vec::new();
    from_lines(&mut options, text.lines(), &mut svg).map_err(|cause| FlameError::Draw(cause.to_string()))?;
    Ok(svg)
}

fn shades<'a>(tree: &'a Tree, profile: &'a Profile, names: &'a Names<'_>) -> impl Iterator<Item = (&'a str, Shade)> {
    let nodes = tree.nodes.iter().map(|node| {
        let origin = || profile.frames.get(node.name as usize).map_or(Origin::Note, |frame| frame.origin);
        let shade = if node.depth == 0 { Shade::Thread } else { Shade::Frame(origin()) };
        (names.get(node.depth, node.name), shade)
    });
    [("", Shade::Thread), (TOO_NARROW, Shade::Frame(Origin::Note))].into_iter().chain(nodes)
}

fn left_out(profile: &Profile, cut: &Cut) -> String {
    if cut.nodes == 0 {
        return String::new();
    }
    let ends = amount(profile.kind, cut.value[0]);
    format!(" — {} narrower frames are not drawn, {ends} end in them", cut.nodes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::lost::Lost;
    use crate::aggregate::stacks::{StackCounts, StackKey, Tally};
    use crate::event::Comm;
    use crate::profile::naming::{name_stacks, plain_owner};
    use crate::symbolize::{Names, Space};
    use crate::units::{CgroupId, Nanos, Pid, ProfileKind, Uid};
    use agent_common::{SampleKind, UnwindEnd, WaitReason};
    use quick_xml::events::Event;

    #[test]
    fn a_graph_of_hostile_names_is_well_formed_and_holds_no_element_of_theirs() {
        let mut counts = StackCounts::starting(Nanos(0));
        let mut names = Names::default();
        let hostile =
            ["<script>x()</script>", "a&b&bogus;", "\"'><g", "nul\0bell\x07esc\x1b\u{fffe}", "]]>", "a;b 7\n"];
        for (pid, name) in (1..).zip(hostile) {
            let mut comm = [0; 16];
            comm.iter_mut().zip(name.bytes().take(15)).for_each(|(to, from)| *to = from);
            let key = StackKey {
                kind: SampleKind::Cpu,
                pid: Pid(pid),
                comm: Comm(comm),
                cgroup: CgroupId(0),
                uid: Uid(0),
                reason: WaitReason::Other,
                user_end: UnwindEnd::Entry,
                kernel: Box::new([]),
                user: Box::new([0xa001]),
                thread: None,
                waker: None,
            };
            counts.counts.insert(key, Tally { samples: 10, weight: 10 });
            names.insert(Space::User(Pid(pid)), 0xa001, [name.to_owned()]);
        }
        let svg = {
            let profile = name_stacks(&counts, ProfileKind::Cpu, &names, &Lost::default(), |_| true, plain_owner);
            flame_svg(&profile, "t", "s").unwrap()
        };
        let text = String::from_utf8(svg).unwrap();
        let shown: Vec<&str> = text.split("<title>").skip(1).filter_map(|t| t.split("</title>").next()).collect();
        let shown = shown.join("\n");
        for name in ["&lt;script&gt;x()&lt;/script&gt;", "nulbellesc", "a:b_7 (10 samples"] {
            assert!(shown.contains(name), "{name} is not in {shown}");
        }
        let forbidden =
            |c: char| c.is_control() && !matches!(c, '\n' | '\t' | '\r') || matches!(c, '\u{fffe}' | '\u{ffff}');
        assert_eq!(text.chars().find(|c| forbidden(*c)), None, "XML has no such character");
        let mut reader = quick_xml::Reader::from_str(&text);
        reader.config_mut().check_end_names = true;
        let mut scripts = 0;
        loop {
            match reader.read_event().unwrap() {
                Event::Start(e) | Event::Empty(e) => {
                    scripts += usize::from(e.name().as_ref() == b"script");
                    for attribute in e.attributes() {
                        attribute.unwrap().unescape_value().unwrap();
                    }
                }
                Event::GeneralRef(e) => {
                    let known = ["lt", "gt", "amp", "quot", "apos"].contains(&&*e.decode().unwrap());
                    assert!(known || e.is_char_ref(), "{e:?}");
                }
                Event::Eof => break,
                _ => {}
            }
        }
        assert_eq!(scripts, 1, "the graph has one script, its own");
    }
}
