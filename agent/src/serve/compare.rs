//! Two spans of one kind compared: questions in; a differential graph, a ranked text, or hot spots out. Judges nothing
//! itself: what is called growth is what `profile` says is more than chance explains.

use serde::{Deserialize, Serialize};

use crate::profile::hotspots::FEWEST_WINDOWS;
use crate::profile::model::Origin;
use crate::profile::{Base, Baseline, Hotspot, diff, diff_svg, diff_text};
use crate::serve::render::{Question, RenderError, Rendered};
use crate::serve::span::Span;
use crate::serve::windows::{Found, Windows, together};

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
    let Comparison { before, format, base } = *comparison;
    let after = found(windows, question)?;
    if format == DiffFormat::Json {
        let (spots, trouble) = hotspots(windows, question, before, &after, MOST_LINES);
        return if spots.baseline.is_some() { json(&spots, trouble) } else { Err(RenderError::NoBaseline) };
    }
    let before = windows.find(&Question { span: before, ..question.clone() });
    if before.profile.is_empty() {
        return Err(RenderError::NoBaseline);
    }
    let differences = diff(&before.profile, &after.profile);
    let (content_type, bytes) = if format == DiffFormat::Svg {
        let title = format!("{}, difference, {}", question.kind.title(), question.filter.whose());
        let seconds = |found: &Found| found.covered.as_secs_f64();
        let subtitle = format!("{:.0} s before, {:.0} s after", seconds(&before), seconds(&after));
        let svg = diff_svg(&differences, base, &title, &subtitle);
        ("image/svg+xml", svg.map_err(crate::profile::FormatError::from)?)
    } else {
        ("text/plain; charset=utf-8", diff_text(&differences, MOST_LINES).into_bytes())
    };
    Ok(Rendered { content_type, bytes, trouble: together(before.trouble, after.trouble) })
}

/// What takes most in the question's span, and what grew since the one before.
pub(super) fn rank(
    windows: &mut Windows,
    question: &Question,
    before: Span,
    most: usize,
) -> Result<Rendered, RenderError> {
    let after = found(windows, question)?;
    let (spots, trouble) = hotspots(windows, question, before, &after, most);
    json(&spots, trouble)
}

fn json(spots: &HotspotsJson, trouble: Option<String>) -> Result<Rendered, RenderError> {
    let bytes = serde_json::to_vec_pretty(spots).map_err(crate::profile::FormatError::from)?;
    Ok(Rendered { content_type: "application/json", bytes, trouble })
}

/// What the question asks for, which has to be something.
fn found(windows: &mut Windows, question: &Question) -> Result<Found, RenderError> {
    let found = windows.find(question);
    match (found.windows, found.profile.is_empty()) {
        (0, _) => Err(RenderError::NotRecorded { trouble: found.trouble }),
        (_, true) => Err(RenderError::NothingSeen),
        (_, false) => Ok(found),
    }
}

fn hotspots(
    windows: &mut Windows,
    question: &Question,
    before: Span,
    after: &Found,
    most: usize,
) -> (HotspotsJson, Option<String>) {
    let mut baseline = Baseline::of(&after.profile);
    let mut earlier = SideJson { seconds: 0.0, samples: 0, total: 0, lost: 0 };
    let question = Question { span: before, ..question.clone() };
    let trouble = windows.find_each(&question, &mut |window| {
        baseline.add(&window.profile);
        let SideJson { seconds, samples, total, lost } = side(&window);
        earlier.seconds += seconds;
        earlier.samples = earlier.samples.saturating_add(samples);
        earlier.total = earlier.total.saturating_add(total);
        earlier.lost = earlier.lost.saturating_add(lost);
    });
    let spots = baseline.judge();
    let grown = spots.grown();
    let words = match &grown {
        Some(grown) => grown.iter().take(most).filter_map(|spot| spot.words()).collect(),
        None if spots.windows == 0 => Vec::new(),
        None => {
            let windows = spots.windows;
            vec![format!("too early to say what grew: before has {windows} windows, it takes {FEWEST_WINDOWS}")]
        }
    };
    let json = HotspotsJson {
        kind: after.profile.kind.name().to_owned(),
        now: side(after),
        baseline: (spots.windows > 0).then_some(earlier),
        hottest: spots.functions.iter().take(most).map(spot).collect(),
        grown: grown.iter().flatten().take(most).map(|grown| spot(grown)).collect(),
        words,
    };
    (json, together(trouble, after.trouble.clone()))
}

fn side(found: &Found) -> SideJson {
    let Found { profile, covered, .. } = found;
    let (samples, total, lost) = (profile.samples(), profile.total(), profile.lost.samples());
    SideJson { seconds: covered.as_secs_f64(), samples, total, lost }
}

fn spot(spot: &Hotspot) -> HotspotJson {
    let Hotspot { frame, own, all, before, verdict } = spot;
    let origin = match frame.origin {
        Origin::User => "user",
        Origin::Kernel => "kernel",
        Origin::Note => "note",
    };
    HotspotJson {
        function: frame.name.to_string(),
        origin: origin.to_owned(),
        own: *own,
        total: *all,
        own_before: *before,
        error: verdict.map(|verdict| verdict.error),
        believed: verdict.map(|verdict| verdict.believed),
    }
}
