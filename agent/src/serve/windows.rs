//! The windows of the last minutes, packed, and those before them in the archive: raw windows come in and are named at
//! once, a question goes out as one profile. A raw window is let go as soon as it has its names.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::aggregate::lost::Lost;
use crate::aggregate::stacks::{StackCounts, StackKey};
use crate::event::Mapping;
use crate::profile::model::{Builder, Owner, Profile};
use crate::profile::packed::Merged;
use crate::profile::{Packed, Plain, name_stacks};
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
        let mut sum = Sum::of(question);
        let trouble = self.pieces(question, &mut |piece| sum.take(piece));
        sum.finish(trouble)
    }

    /// Hands over every window that belongs to a question by itself, oldest first. Returns what could not be read, in
    /// words.
    pub(super) fn find_each(&mut self, question: &Question, visit: &mut dyn FnMut(Found)) -> Option<String> {
        let mut damaged = None;
        let trouble = self.pieces(question, &mut |piece| {
            let mut sum = Sum::of(question);
            sum.take(piece);
            let found = sum.finish(None);
            damaged = damaged.take().or_else(|| found.trouble.clone());
            visit(found);
        });
        together(trouble, damaged)
    }

    fn pieces(&mut self, question: &Question, take: &mut dyn FnMut(Piece<'_>)) -> Option<String> {
        let Question { kind, span, filter: _, viewer: _, open } = question;
        let oldest = self.kept.iter().find(|w| w.kind() == *kind).map(Packed::start);
        let oldest = oldest.or(open.first().map(|slice| slice.stacks.start)).unwrap_or(Nanos::MAX);
        let mut trouble = None;
        if span.from() < oldest || span.began > span.now {
            trouble = self.archive.find(*kind, span, oldest, &mut |window| take(Piece::Packed(&window)));
        }
        for window in self.kept.iter().filter(|w| w.kind() == *kind && span.takes(w.start(), w.end())) {
            take(Piece::Packed(window));
        }
        // What has closed since the question was put together is among the windows already.
        let closed = self.kept.iter().rev().find(|w| w.kind() == *kind).map_or(Nanos(0), Packed::end);
        for slice in open.iter().filter(|slice| slice.kinds.contains(kind) && slice.stacks.start >= closed) {
            if span.takes(slice.stacks.start, slice.stacks.end) {
                self.note(&slice.stacks);
                take(Piece::Named(&self.name(slice, *kind)));
            }
        }
        trouble
    }

    fn name(&self, stretch: &Stretch, kind: ProfileKind) -> Profile {
        let Stretch { stacks, kinds: _, lost } = stretch;
        let label = |key: &StackKey| self.labels.borrow_mut().of(key);
        name_stacks(stacks, kind, self.resolver.names(), lost, |_| true, label)
    }
}

/// A window, or a slice of the open one.
#[derive(Clone, Copy)]
enum Piece<'a> {
    Packed(&'a Packed),
    Named(&'a Profile),
}

/// Unpacked bytes of windows that are merged at once: a busy minute, and no more than memory can spare.
const BATCH_BYTES: usize = 4 << 20;

/// Windows put together.
struct Sum<'a> {
    question: &'a Question,
    builder: Builder,
    /// Windows that wait to be merged.
    batch: Vec<Plain>,
    bytes: usize,
    windows: usize,
    covered: Nanos,
    edges: Option<(Nanos, Nanos)>,
    lost: Lost,
    damaged: usize,
}

impl<'a> Sum<'a> {
    fn of(question: &'a Question) -> Self {
        Self {
            question,
            builder: Builder::default(),
            batch: Vec::new(),
            bytes: 0,
            windows: 0,
            covered: Nanos(0),
            edges: None,
            lost: Lost::default(),
            damaged: 0,
        }
    }

    fn take(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Packed(window) => match window.plain() {
                Ok(plain) => {
                    self.bytes += plain.bytes();
                    self.batch.push(plain);
                    if self.bytes >= BATCH_BYTES {
                        self.merge();
                    }
                }
                Err(_damaged) => self.damaged += 1,
            },
            Piece::Named(profile) => {
                self.builder.merge(profile, |owner| shows(self.question, owner));
                self.count(profile.start, profile.end, &profile.lost);
            }
        }
    }

    fn merge(&mut self) {
        let merged = Plain::merge(&self.batch, &mut self.builder, |owner| shows(self.question, owner));
        self.batch.clear();
        self.bytes = 0;
        for window in merged {
            match window {
                Ok(Merged { start, end, lost }) => self.count(start, end, &lost),
                Err(_damaged) => self.damaged += 1,
            }
        }
    }

    fn count(&mut self, start: Nanos, end: Nanos, lost: &Lost) {
        self.windows += 1;
        self.covered = self.covered + end.since(start);
        self.lost = self.lost.plus(lost);
        let edges = self.edges.unwrap_or((start, end));
        self.edges = Some((edges.0.min(start), edges.1.max(end)));
    }

    fn finish(mut self, trouble: Option<String>) -> Found {
        self.merge();
        let Question { kind, span, .. } = self.question;
        let (start, end) = self.edges.unwrap_or((span.from(), span.to()));
        let damaged = (self.damaged > 0).then(|| format!("{} windows are damaged and were left out", self.damaged));
        let profile = self.builder.finish(*kind, start, end, self.lost);
        Found { profile, windows: self.windows, covered: self.covered, trouble: together(trouble, damaged) }
    }
}

fn shows(question: &Question, owner: &Owner) -> bool {
    question.filter.shows(owner, question.viewer)
}

/// Two troubles as one.
pub(super) fn together(a: Option<String>, b: Option<String>) -> Option<String> {
    [a, b].into_iter().flatten().reduce(|a, b| format!("{a}; {b}"))
}
