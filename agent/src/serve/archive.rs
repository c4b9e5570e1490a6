//! Where windows go that memory does not hold: the serving layer asks and hands over, the layer above does it. Windows
//! are handed over without waiting; what did not get there is counted by whoever keeps them.

use crate::profile::Packed;
use crate::serve::span::Span;
use crate::units::{Nanos, ProfileKind};

/// Keeps windows for longer than memory does.
pub trait Archive: Send {
    /// Takes a window. Never waits.
    fn keep(&mut self, window: &Packed);

    /// Hands every window of `kind` in `span` to `visit`, oldest first, that began before `before` on the clock of this
    /// boot, or in an earlier one. Returns what could not be read, in words.
    fn find(&mut self, kind: ProfileKind, span: &Span, before: Nanos, visit: &mut dyn FnMut(Packed)) -> Option<String>;
}

/// Keeps nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoArchive;

impl Archive for NoArchive {
    fn keep(&mut self, _window: &Packed) {}

    fn find(&mut self, _: ProfileKind, _: &Span, _: Nanos, _: &mut dyn FnMut(Packed)) -> Option<String> {
        None
    }
}
