//! Two spans of one kind compared: questions in; a differential graph, a ranked text, or hot spots out. What is called
//! growth is more than chance explains; everything else is shown with its error and not called anything.

use serde::{Deserialize, Serialize};

use crate::profile::diff::Change;
use crate::profile::model::{Origin, Profile};
use crate::profile::{Base, diff, diff_svg, diff_text};
use crate::serve::render::{Question, RenderError, Rendered};
use crate::serve::span::Span;
use crate::serve::windows::{Found, Windows};

/// Lines of the ranked text each way.
const MOST_LINES: usize = 40;

/// The form of a comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiffFormat {
    /// A flame graph: red grew, blue shrank.
    #[default]
    Svg,
    /// What grew and what shrank, ranked.
    Text,
    /// The same, as JSON.
    Json,
}

/// What to compare with.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    /// The span of before.
    pub before: Span,
    /// The form.
    pub format: DiffFormat,
    /// Whose widths a graph has.
    pub base: Base,
}

/// The hot spots of a span.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HotspotsJson {
    /// Kind of profile.
    pub kind: String,
    /// Now.
    pub now: SideJson,
    /// What it is compared with; absent when nothing was recorded then.
    pub baseline: Option<SideJson>,
    /// Functions, those that take most first.
    pub hottest: Vec<HotspotJson>,
    /// Functions that grew by more than chance explains, those that grew most first.
    pub grown: Vec<HotspotJson>,
    /// The same in words.
    pub words: Vec<String>,
}

/// One side of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SideJson {
    /// Time that its windows cover, seconds.
    pub seconds: f64,
    /// Samples in them.
    pub samples: u64,
    /// Sum of its values, in the unit of the kind.
    pub total: u64,
    /// Samples lost.
    pub lost: u64,
}

/// A function.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HotspotJson {
    /// Its name.
    pub function: String,
    /// `user`, `kernel` or `note`.
    pub origin: String,
    /// Share of the whole that is spent in it, 0 to 1.
    pub own: f64,
    /// Share that is spent in it and in what it calls.
    pub total: f64,
    /// The own share before; absent without a baseline.
    pub own_before: Option<f64>,
    /// Standard error of the difference of the own shares.
    pub error: Option<f64>,
    /// Whether that difference is more than chance explains; absent where that cannot be told.
    pub believed: Option<bool>,
}

/// A comparison of the question's span with one before.
pub(super) fn compare(
    windows: &mut Windows,
    question: &Question,
    comparison: &Comparison,
) -> Result<Rendered, RenderError> {
    let (before, after, trouble) = both(windows, question, comparison.before)?;
    let before = before.filter(|found| !found.profile.is_empty()).ok_or(RenderError::NoBaseline)?;
    let differences = diff(&before.profile, &after.profile);
    let (content_type, bytes) = match comparison.format {
        DiffFormat::Svg => {
            let title = format!("{}, difference, {}", question.kind.title(), question.filter.whose());
            let seconds = |found: &Found| found.covered.as_secs_f64();
            let subtitle = format!("{:.0} s before, {:.0} s after", seconds(&before), seconds(&after));
            let svg = diff_svg(&differences, comparison.base, &title, &subtitle);
            ("image/svg+xml", svg.map_err(crate::profile::FormatError::from)?)
        }
        DiffFormat::Text => ("text/plain; charset=utf-8", diff_text(&differences, MOST_LINES).into_bytes()),
        DiffFormat::Json => {
            let spots = hotspots(&after, Some(&before), MOST_LINES);
            ("application/json", serde_json::to_vec_pretty(&spots).map_err(crate::profile::FormatError::from)?)
        }
    };
    Ok(Rendered { content_type, bytes, trouble })
}

/// What takes most in the question's span, and what grew since the one before.
pub(super) fn rank(
    windows: &mut Windows,
    question: &Question,
    before: Span,
    most: usize,
) -> Result<Rendered, RenderError> {
    let (before, after, trouble) = both(windows, question, before)?;
    let before = before.filter(|found| !found.profile.is_empty());
    let spots = hotspots(&after, before.as_ref(), most);
    let bytes = serde_json::to_vec_pretty(&spots).map_err(crate::profile::FormatError::from)?;
    Ok(Rendered { content_type: "application/json", bytes, trouble })
}

/// What was found of both spans; of before there may be nothing.
fn both(
    windows: &mut Windows,
    question: &Question,
    before: Span,
) -> Result<(Option<Found>, Found, Option<String>), RenderError> {
    let after = windows.find(question);
    if after.windows == 0 {
        return Err(RenderError::NotRecorded { trouble: after.trouble });
    }
    if after.profile.is_empty() {
        return Err(RenderError::NothingSeen);
    }
    let before = windows.find(&Question { span: before, ..question.clone() });
    let trouble = [&before.trouble, &after.trouble].into_iter().flatten().cloned().reduce(|a, b| format!("{a}; {b}"));
    Ok(((before.windows > 0).then_some(before), after, trouble))
}

fn hotspots(after: &Found, before: Option<&Found>, most: usize) -> HotspotsJson {
    let kind = after.profile.kind;
    let nothing = Profile::empty(kind, after.profile.start, after.profile.start);
    let differences = diff(before.map_or(&nothing, |found| &found.profile), &after.profile);
    let spot = |change: &Change| spot(change, before.is_some());
    let is_function = |change: &&Change| change.frame.origin != Origin::Note;
    let mut hottest: Vec<&Change> = differences.functions.iter().filter(|change| change.own.after > 0.0).collect();
    hottest.sort_by(|a, b| b.own.after.total_cmp(&a.own.after).then_with(|| a.frame.cmp(&b.frame)));
    let grown = differences
        .functions
        .iter()
        .filter(is_function)
        .filter(|change| before.is_some() && change.own.growth() > 0.0 && change.own.believed == Some(true));
    let grown: Vec<HotspotJson> = grown.take(most).map(spot).collect();
    HotspotsJson {
        kind: kind.name().to_owned(),
        now: side(after),
        baseline: before.map(side),
        hottest: hottest.into_iter().take(most).map(spot).collect(),
        words: grown.iter().map(in_words).collect(),
        grown,
    }
}

fn side(found: &Found) -> SideJson {
    let Found { profile, covered, .. } = found;
    let (samples, total, lost) = (profile.samples(), profile.total(), profile.lost.samples());
    SideJson { seconds: covered.as_secs_f64(), samples, total, lost }
}

fn spot(change: &Change, has_baseline: bool) -> HotspotJson {
    let Change { frame, own, all } = change;
    let origin = match frame.origin {
        Origin::User => "user",
        Origin::Kernel => "kernel",
        Origin::Note => "note",
    };
    HotspotJson {
        function: frame.name.to_string(),
        origin: origin.to_owned(),
        own: own.after,
        total: all.after,
        own_before: has_baseline.then_some(own.before),
        error: own.error.filter(|_| has_baseline),
        believed: own.believed.filter(|_| has_baseline),
    }
}

fn in_words(spot: &HotspotJson) -> String {
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let error = spot.error.map(|e| format!(" (± {:.1} points)", e * 100.0)).unwrap_or_default();
    let before = spot.own_before.unwrap_or_default();
    format!("{} grew from {} to {} of the time{error}", spot.function, percent(before), percent(spot.own))
}
