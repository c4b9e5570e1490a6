//! The windows of the last minutes, packed, and those before them in the archive: raw windows come in and are named at
//! once, a question goes out as one profile. A raw window is let go as soon as it has its names.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::aggregate::lost::Lost;
use crate::aggregate::stacks::{StackCounts, StackKey};
use crate::event::Mapping;
use crate::profile::model::{Builder, Owner, Profile};
use crate::profile::{Packed, name_stacks};
use crate::serve::archive::Archive;
use crate::serve::filter::{Filter, Viewer};
use crate::serve::labels::Labels;
use crate::serve::span::Span;
use crate::serve::view::NamesView;
use crate::symbolize::{Names, Resolver};
use crate::units::{Bytes, Nanos, ProfileKind};

/// Packed bytes kept in memory: minutes on a busy host, an hour on a quiet one.
const MOST_BYTES: usize = 12 << 20;
/// Windows kept in memory, of all kinds together.
const MOST_WINDOWS: usize = 1_024;

/// A window that has closed, or a slice of the open one, and what was recorded in it.
#[derive(Clone, Debug)]
pub struct Stretch {
    /// Its stacks.
    pub stacks: Arc<StackCounts>,
    /// Kinds that were recorded, whether anything was seen or not.
    pub kinds: Arc<[ProfileKind]>,
    /// What was lost in it.
    pub lost: Lost,
}

/// A question.
#[derive(Clone, Debug)]
pub struct Question {
    /// What shall be shown.
    pub kind: ProfileKind,
    /// When.
    pub span: Span,
    /// Whose.
    pub filter: Filter,
    /// Who asks.
    pub viewer: Viewer,
    /// Slices of the window that is open.
    pub open: Vec<Stretch>,
}

/// What there is to a question.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Found {
    /// The profile; empty when nothing was seen.
    pub profile: Profile,
    /// Windows and slices it is made of: with none, the kind was not recorded then.
    pub windows: usize,
    /// Time that those cover.
    pub covered: Nanos,
    /// What could not be read, in words.
    pub trouble: Option<String>,
}

/// Names windows and keeps them.
pub(super) struct Windows {
    resolver: Resolver,
    labels: RefCell<Labels>,
    kept: VecDeque<Packed>,
    bytes: usize,
    archive: Box<dyn Archive>,
}

impl Windows {
    /// With nothing yet, on top of an archive.
    pub(super) fn over(archive: Box<dyn Archive>, most_debug: Bytes) -> Self {
        Self {
            resolver: Resolver::new().thrifty(most_debug),
            labels: RefCell::new(Labels::here()),
            kept: VecDeque::new(),
            bytes: 0,
            archive,
        }
    }

    /// Looks up what a slice needs while its processes live.
    pub(super) fn note(&mut self, slice: &StackCounts) {
        self.resolver.resolve(slice);
        self.labels.get_mut().note(slice);
    }

    /// The names that are known.
    pub(super) fn names(&self) -> &Names {
        self.resolver.names()
    }

    /// Notes where code is mapped.
    pub(super) fn learn(&mut self, mapping: &Mapping) {
        self.resolver.learn(mapping);
    }

    /// How those do who look names up.
    pub(super) fn names_view(&self) -> NamesView {
        let stats = self.resolver.stats();
        NamesView {
            symbolizer: self.resolver.symbolizer(),
            started: stats.started,
            died: stats.died,
            refused: stats.refused.iter().sum(),
            without_inlined: self.resolver.files_without_inlined(),
            addresses: self.resolver.names().len() as u64,
            degraded: stats.degraded(),
        }
    }

    /// Names a window and keeps it, one profile for each kind that was recorded.
    pub(super) fn close(&mut self, window: &Stretch) {
        self.note(&window.stacks);
        for kind in window.kinds.iter() {
            let packed = Packed::of(&self.name(window, *kind));
            self.archive.keep(&packed);
            self.bytes += packed.bytes().len();
            self.kept.push_back(packed);
        }
        while self.bytes > MOST_BYTES || self.kept.len() > MOST_WINDOWS {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.bytes -= oldest.bytes().len();
        }
        self.labels.get_mut().refresh();
    }

    /// The profile that answers a question.
    pub(super) fn find(&mut self, question: &Question) -> Found {
        let Question { kind, span, filter, viewer, open } = question;
        let shows = |owner: &Owner| filter.shows(owner, *viewer);
        let mut sum = Sum::default();
        let oldest = self.kept.iter().find(|w| w.kind() == *kind).map(Packed::start);
        let oldest = oldest.or(open.first().map(|slice| slice.stacks.start)).unwrap_or(Nanos::MAX);
        let mut trouble = None;
        if span.from() < oldest || span.began > span.now {
            trouble = self.archive.find(*kind, span, oldest, &mut |window| sum.unpack(&window, shows));
        }
        for window in self.kept.iter().filter(|w| w.kind() == *kind && span.takes(w.start(), w.end())) {
            sum.unpack(window, shows);
        }
        // What has closed since the question was put together is among the windows already.
        let closed = self.kept.iter().rev().find(|w| w.kind() == *kind).map_or(Nanos(0), Packed::end);
        for slice in open.iter().filter(|slice| slice.kinds.contains(kind) && slice.stacks.start >= closed) {
            if span.takes(slice.stacks.start, slice.stacks.end) {
                self.note(&slice.stacks);
                sum.add(&self.name(slice, *kind), shows);
            }
        }
        sum.finish(*kind, span, trouble)
    }

    fn name(&self, stretch: &Stretch, kind: ProfileKind) -> Profile {
        let Stretch { stacks, kinds: _, lost } = stretch;
        let label = |key: &StackKey| self.labels.borrow_mut().of(key);
        name_stacks(stacks, kind, self.resolver.names(), lost, |_| true, label)
    }
}

/// Windows put together.
#[derive(Default)]
struct Sum {
    builder: Builder,
    windows: usize,
    covered: Nanos,
    edges: Option<(Nanos, Nanos)>,
    lost: Lost,
    damaged: usize,
}

impl Sum {
    fn unpack(&mut self, window: &Packed, shows: impl Fn(&Owner) -> bool) {
        match window.unpack() {
            Ok(profile) => self.add(&profile, shows),
            Err(_damaged) => self.damaged += 1,
        }
    }

    fn add(&mut self, profile: &Profile, shows: impl Fn(&Owner) -> bool) {
        self.builder.merge(profile, shows);
        self.windows += 1;
        self.covered = self.covered + profile.end.since(profile.start);
        self.lost = self.lost.plus(&profile.lost);
        let (start, end) = self.edges.unwrap_or((profile.start, profile.end));
        self.edges = Some((start.min(profile.start), end.max(profile.end)));
    }

    fn finish(self, kind: ProfileKind, span: &Span, trouble: Option<String>) -> Found {
        let Self { builder, windows, covered, edges, lost, damaged } = self;
        let (start, end) = edges.unwrap_or((span.from(), span.to()));
        let damaged = (damaged > 0).then(|| format!("{damaged} windows are damaged and were left out"));
        let trouble = [trouble, damaged].into_iter().flatten().reduce(|a, b| format!("{a}; {b}"));
        Found { profile: builder.finish(kind, start, end, lost), windows, covered, trouble }
    }
}
