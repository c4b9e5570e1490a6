//! The history behind the renderer: packed windows through, spans of a query into those of the database. Decides nothing.

use crate::config::Config;
use crate::history::{Found, History, Note, NoteKind, Placed, Record, Status, Wish};
use crate::profile::Packed;
use crate::run::core::TickOutcome;
use crate::serve::archive::Archive;
use crate::serve::span::Span;
use crate::serve::view::HistoryView;
use crate::source::clock::wall;
use crate::units::{Nanos, ProfileKind};

/// The history, if there is one.
#[derive(Debug)]
pub(super) struct HistoryArchive(pub(super) Option<History>);

impl Archive for HistoryArchive {
    fn keep(&mut self, window: &Packed) {
        if let Some(history) = &self.0 {
            history.keep(Record::Window(window.clone()));
        }
    }

    fn find(&mut self, kind: ProfileKind, span: &Span, before: Nanos, visit: &mut dyn FnMut(Packed)) -> Option<String> {
        let history = self.0.as_ref()?;
        let wish = wish(span, before);
        let takes = |window: &Packed, placed: Placed| match (placed, wish.wall) {
            (Placed::Now, _) => span.takes(window.start(), window.end()),
            (Placed::Earlier { wall }, Some((from, to))) => {
                let middle = wall + Nanos(window.end().since(window.start()).0 / 2);
                (from..to).contains(&middle)
            }
            (Placed::Earlier { .. }, None) => false,
        };
        let found = history.reader().windows(kind, &wish, |window, placed| {
            if takes(&window, placed) {
                visit(window);
            }
        });
        match found {
            Ok(Found { windows: _, damaged, more }) => {
                if damaged > 0 {
                    history.found_damage(damaged, None);
                }
                let damaged =
                    (damaged > 0).then(|| format!("{damaged} windows of the history are damaged and left out"));
                let more =
                    more.then(|| "the span is longer than a query takes: its oldest windows are left out".to_owned());
                [damaged, more].into_iter().flatten().reduce(|a, b| format!("{a}; {b}"))
            }
            Err(error) => {
                history.found_damage(0, Some(&error));
                Some(error.to_string())
            }
        }
    }
}

/// A span on both clocks. What lies before this boot is looked for by the wall clock.
pub(super) fn wish(span: &Span, before: Nanos) -> Wish {
    let wall_span = (span.began > span.now).then(|| {
        let wall = wall();
        (wall.since(span.began), wall.since(span.ended))
    });
    Wish { span: (span.from(), span.to()), wall: wall_span, before }
}

/// How the history does, as the routes show it.
pub(super) fn shown(history: Option<&History>) -> Option<HistoryView> {
    let Status { bytes, windows, taken, lost, problem: _, put_aside: _ } = history?.status();
    Some(HistoryView { bytes, windows, taken, lost: lost.by_cause() })
}

/// Starts the history, or says why there is none: the agent does without.
pub(super) fn begin_history(config: &Config) -> (Option<History>, Option<String>) {
    match config.history.clone().map(History::start) {
        None => (None, None),
        Some(Ok(history)) => (Some(history), None),
        Some(Err(error)) => {
            tracing::warn!("{error}");
            (None, Some(error.to_string()))
        }
    }
}

/// Keeps the decisions of a tick.
pub(super) fn keep_decisions(history: Option<&History>, outcome: &TickOutcome) {
    let Some(history) = history else { return };
    for decision in &outcome.decisions {
        if let Ok(json) = serde_json::to_string(decision) {
            let pipeline = decision.name.clone();
            history.keep(Record::Note(Note { kind: NoteKind::Decision, pipeline, at: outcome.now, json }));
        }
    }
}
