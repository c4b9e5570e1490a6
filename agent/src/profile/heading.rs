//! What stands above a profile: a profile in; title, unit, and what was lost out, in words. One place, so that every
//! format says the same.

use std::fmt::Write as _;

use super::model::Profile;
use crate::units::{Nanos, ProfileKind};

/// The title of a graph, and how its numbers are to be read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// Unit that is shown.
    pub unit: &'static str,
    /// One of the profile's own units in that unit.
    pub factor: f64,
}

/// The unit in which values up to `total` can be read: at least four digits of the whole are shown.
pub fn scale(kind: ProfileKind, total: u64) -> Scale {
    match kind.unit() {
        "nanoseconds" if total >= 10_000_000_000 => Scale { unit: "ms", factor: 1e-6 },
        "nanoseconds" => Scale { unit: "µs", factor: 1e-3 },
        "byte-microseconds" if total >= 10_000_000_000 => Scale { unit: "byte-seconds", factor: 1e-6 },
        unit => Scale { unit, factor: 1.0 },
    }
}

/// A value of a kind with a unit that fits it.
#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
pub fn amount(kind: ProfileKind, value: u64) -> String {
    let v = value as f64;
    match kind.unit() {
        "nanoseconds" => match value {
            0..10_000 => format!("{value} ns"),
            10_000..10_000_000 => format!("{:.1} µs", v / 1e3),
            10_000_000..10_000_000_000 => format!("{:.1} ms", v / 1e6),
            _ => format!("{:.1} s", v / 1e9),
        },
        "byte-microseconds" if value >= 10_000_000 => format!("{:.1} byte-seconds", v / 1e6),
        unit => format!("{value} {unit}"),
    }
}

/// What was lost, by reason; "nothing lost" when that is so.
pub fn losses(profile: &Profile) -> String {
    let reasons = profile.lost.by_reason().into_iter().filter(|(_, count)| *count > 0);
    let mut text = String::new();
    for (reason, count) in reasons {
        let comma = if text.is_empty() { "lost: " } else { ", " };
        let written = write!(text, "{comma}{reason} {count}");
        debug_assert!(written.is_ok(), "a string takes everything");
    }
    if text.is_empty() { "nothing lost".to_owned() } else { text }
}

/// One line that says what a profile holds. What it covers may be less than the time from its start to its end.
pub fn summary(profile: &Profile, covered: Option<Nanos>) -> String {
    let seconds = covered.unwrap_or(profile.end.since(profile.start)).as_secs_f64();
    let span = if seconds > 0.0 { format!(" over {seconds:.1} s") } else { String::new() };
    format!("{}{span}, {}", amount(profile.kind, profile.total()), losses(profile))
}
