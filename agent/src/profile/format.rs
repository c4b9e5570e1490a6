//! Formats: a profile in, a file in the form that somebody's tool reads out. Every format has the totals of the folded
//! lines, and says what was lost.

use serde::{Deserialize, Serialize};

use super::folded::folded_text;
use super::heading::summary;
use super::model::Profile;
use super::{firefox, flame, json, otlp, pprof, speedscope};
use crate::units::Nanos;

/// The form of a profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A flame graph.
    #[default]
    Svg,
    /// Folded stacks: a line a stack, outermost frame first.
    Folded,
    /// Everything that is known, as JSON.
    Json,
    /// pprof, gzipped: `go tool pprof`, Pyroscope, Parca.
    Pprof,
    /// speedscope's own JSON.
    Speedscope,
    /// Firefox Profiler's processed profile, JSON.
    Firefox,
    /// OpenTelemetry profiles (v1development), protobuf.
    Otlp,
}

/// What a profile does not know of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct About {
    /// Whose profile it is: `whole host`, `process 4242`.
    pub whose: String,
    /// When it began, ns since 1970; absent when that is not known.
    pub began: Option<Nanos>,
    /// Time that it covers, where that is less than from its first to its last instant.
    pub covered: Option<Nanos>,
    /// Sampling period, ns, of samples in time.
    pub period: Option<Nanos>,
}

/// Why a profile was not written.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// There is nothing to draw, or drawing failed.
    #[error(transparent)]
    Flame(#[from] flame::FlameError),
    /// JSON failed.
    #[error("write the profile as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Compression failed.
    #[error("compress the profile: {0}")]
    Gzip(#[from] std::io::Error),
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 7] =
        [Self::Svg, Self::Folded, Self::Json, Self::Pprof, Self::Speedscope, Self::Firefox, Self::Otlp];

    /// Its name in options and queries.
    pub fn name(self) -> &'static str {
        match self {
            Self::Svg => "svg",
            Self::Folded => "folded",
            Self::Json => "json",
            Self::Pprof => "pprof",
            Self::Speedscope => "speedscope",
            Self::Firefox => "firefox",
            Self::Otlp => "otlp",
        }
    }

    /// What it is for, in a line.
    pub fn what(self) -> &'static str {
        match self {
            Self::Svg => "A flame graph",
            Self::Folded => "Folded stacks: a line a stack, outermost frame first",
            Self::Json => "Stacks with all that is known of them, JSON",
            Self::Pprof => "For `go tool pprof`, Pyroscope, Parca; gzipped",
            Self::Speedscope => "For speedscope.app",
            Self::Firefox => "For profiler.firefox.com",
            Self::Otlp => "OpenTelemetry profiles, protobuf",
        }
    }

    /// End of the names of such files, as their readers know them.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Svg => "svg",
            Self::Folded => "folded",
            Self::Json => "json",
            Self::Pprof => "pb.gz",
            Self::Speedscope => "speedscope.json",
            Self::Firefox => "firefox.json",
            Self::Otlp => "otlp.pb",
        }
    }

    /// For the header of a reply.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Svg => "image/svg+xml",
            Self::Folded => "text/plain; charset=utf-8",
            Self::Json | Self::Speedscope | Self::Firefox => "application/json",
            // pprof's compression is part of the format, as its readers expect it.
            Self::Pprof => "application/octet-stream",
            Self::Otlp => "application/x-protobuf",
        }
    }
}

/// The title of a profile.
pub fn heading(profile: &Profile, about: &About) -> String {
    match about.whose.as_str() {
        "" => profile.kind.title().to_owned(),
        whose => format!("{}, {whose}", profile.kind.title()),
    }
}

/// Writes a profile.
pub fn write(profile: &Profile, format: Format, about: &About) -> Result<Vec<u8>, FormatError> {
    Ok(match format {
        Format::Svg => flame::flame_svg(profile, &heading(profile, about), &summary(profile, about.covered))?,
        Format::Folded => folded_text(profile).into_bytes(),
        Format::Json => json::profile_json(profile, about)?,
        Format::Pprof => pprof::profile_pprof(profile, about)?,
        Format::Speedscope => speedscope::profile_speedscope(profile, about)?,
        Format::Firefox => firefox::profile_firefox(profile, about)?,
        Format::Otlp => otlp::profile_otlp(profile, about),
    })
}
