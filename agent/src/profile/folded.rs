//! Folded stacks: a profile in, lines `comm;outermost;…;innermost COUNT` out, kernel frames marked `_[k]`, in the order
//! of names, so that the same profile is the same bytes. No stack is left out, whatever its names are.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::model::{Frame, Origin, Profile};
use super::tree::Pair;
use super::tree::Tree;

/// The lines as text. Only where losses could not be written as stacks of their own they stand in a comment.
pub fn folded_text(profile: &Profile) -> String {
    let mut text = String::new();
    if profile.kind != crate::units::ProfileKind::Cpu && profile.lost.samples() > 0 {
        let reasons = profile.lost.by_reason().into_iter().filter(|(_, count)| *count > 0);
        text.push_str("# lost");
        for (reason, count) in reasons {
            let written = write!(text, " {reason}={count}");
            debug_assert!(written.is_ok(), "a string takes everything");
        }
        // A line that ended in a number would be read as a stack.
        text.push_str(" samples\n");
    }
    let kind = profile.kind;
    let tree = Tree::of(profile, |stack| [stack.value(kind), 0]);
    let names = Names::of(profile, &tree);
    lines(&tree, &names, &mut text, |text, [value, _]| push_number(text, value));
    text
}

/// Texts of the names in a tree as they stand in a line.
pub(super) struct Names<'a> {
    /// Threads, by owner; empty where the tree has none.
    threads: Vec<Cow<'a, str>>,
    /// Frames, likewise.
    frames: Vec<Cow<'a, str>>,
}

impl<'a> Names<'a> {
    pub(super) fn of(profile: &'a Profile, tree: &Tree) -> Self {
        let mut threads = vec![Cow::Borrowed(""); profile.owners.len()];
        let mut frames = vec![Cow::Borrowed(""); profile.frames.len()];
        for node in &tree.nodes {
            let at = node.name as usize;
            if node.depth == 0 {
                threads[at] = readable(&profile.owners[at].comm);
            } else if frames[at].is_empty() {
                // No text is empty: this one has not been written yet.
                frames[at] = frame_text(&profile.frames[at]);
            }
        }
        Self { threads, frames }
    }

    /// The text of a node.
    pub(super) fn get(&self, depth: usize, name: u32) -> &str {
        let table = if depth == 0 { &self.threads } else { &self.frames };
        table.get(name as usize).map_or("", |text| text)
    }
}

/// A frame's name with its mark.
pub(super) fn frame_text(frame: &Frame) -> Cow<'_, str> {
    let name = readable(&frame.name);
    match frame.origin {
        Origin::Kernel => Cow::Owned(format!("{name}_[k]")),
        Origin::User | Origin::Note => name,
    }
}

/// A name that a reader of folded lines takes as it is. A number after the last space would be read as a count, an empty
/// name as nothing, and spaces at an end are cut off.
fn readable(name: &str) -> Cow<'_, str> {
    let trimmed = name.trim();
    if trimmed.is_empty() {
        return Cow::Borrowed("[empty]");
    }
    if trimmed == "#" || trimmed.starts_with("# ") {
        // At the start of a line that opens a comment.
        return Cow::Owned(format!("_{trimmed}"));
    }
    match trimmed.rsplit_once(char::is_whitespace) {
        Some((before, last)) if last.bytes().all(|b| b.is_ascii_digit() || b == b'.') => {
            Cow::Owned(format!("{before}_{last}"))
        }
        _ => Cow::Borrowed(trimmed),
    }
}

/// Writes a line for each node that has a value of its own.
pub(super) fn lines(tree: &Tree, names: &Names<'_>, text: &mut String, value: impl Fn(&mut String, Pair)) {
    let mut path = String::new();
    // Lengths of `path` at each depth.
    let mut ends: Vec<usize> = Vec::new();
    for node in &tree.nodes {
        ends.truncate(node.depth);
        path.truncate(ends.last().copied().unwrap_or_default());
        if node.depth > 0 {
            path.push(';');
        }
        path.push_str(names.get(node.depth, node.name));
        ends.push(path.len());
        if node.own != [0, 0] {
            text.push_str(&path);
            text.push(' ');
            value(text, node.own);
            text.push('\n');
        }
    }
}

/// Appends a number, faster than formatting does.
pub(super) fn push_number(text: &mut String, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b"0123456789"[(number % 10) as usize];
        number /= 10;
        if number == 0 {
            break;
        }
    }
    text.extend(digits[at..].iter().map(|digit| char::from(*digit)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_they_are() {
        for number in [0, 7, 10, 1_000_001, u64::MAX] {
            let mut text = String::from("x ");
            push_number(&mut text, number);
            assert_eq!(text, format!("x {number}"));
        }
    }

    #[test]
    fn no_name_is_taken_for_a_count() {
        for (name, says) in [
            ("f 7", "f_7"),
            (" f ", "f"),
            ("", "[empty]"),
            ("a b", "a b"),
            ("7", "7"),
            ("x 1.5", "x_1.5"),
            ("# c", "_# c"),
        ] {
            assert_eq!(readable(name), says);
        }
    }
}
