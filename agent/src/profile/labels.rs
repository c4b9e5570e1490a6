//! Labels of a stack: its owner and its notes in, pairs of a name and a value out; the same ones in every format that has
//! labels.

use std::borrow::Cow;

use super::model::{Origin, Profile, Stack};

/// A label's value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Value<'a> {
    /// Text.
    Text(Cow<'a, str>),
    /// A number.
    Number(u32),
}

/// Opens the note that says why a thread was blocked.
const BLOCKED: &str = "[blocked: ";

/// The labels of a stack that are known.
pub(super) fn labels<'a>(profile: &'a Profile, stack: &'a Stack) -> Vec<(&'static str, Value<'a>)> {
    let mut labels = Vec::with_capacity(6);
    if let Some(owner) = profile.owner_of(stack) {
        labels.push(("comm", Value::Text(Cow::Borrowed(&owner.comm))));
        labels.extend(owner.pid.map(|pid| ("pid", Value::Number(pid.0))));
        labels.extend(owner.uid.map(|uid| ("uid", Value::Number(uid))));
        labels.extend(owner.cgroup.as_deref().map(|path| ("cgroup", Value::Text(Cow::Borrowed(path)))));
        labels.extend(owner.container.as_deref().map(|id| ("container", Value::Text(Cow::Borrowed(id)))));
    }
    let notes = profile.names_of(stack).filter(|frame| frame.origin == Origin::Note);
    let reason = notes.filter_map(|note| note.name.strip_prefix(BLOCKED)?.strip_suffix(']')).last();
    labels.extend(reason.map(|reason| ("reason", Value::Text(Cow::Borrowed(reason)))));
    labels
}
