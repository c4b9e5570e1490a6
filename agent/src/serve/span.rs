//! Times of a query: text in, a span of the past out. A span is told from now backwards, so that it means the same on the
//! clock of this boot and, for what an earlier one left, on the wall clock.

use crate::serve::problem::Refusal;
use crate::units::Nanos;

/// A span of the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Now, monotonic clock.
    pub now: Nanos,
    /// How long ago it began.
    pub began: Nanos,
    /// How long ago it ended.
    pub ended: Nanos,
    /// How windows at its edges are taken.
    pub edges: Edges,
}

/// How windows at the edges of a span are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Edges {
    /// A window whose middle lies in the span: two spans that follow each other share none, and none is as much too long
    /// as it is too short.
    #[default]
    Middle,
    /// Every window that the span touches: for what was recorded for its sake alone.
    Touch,
}

impl Span {
    /// From the two texts of a query.
    pub fn parse(from: &str, to: &str, now: Nanos, wall: Nanos) -> Result<Self, Refusal> {
        let (began, ended) = (ago(from, now, wall)?, ago(to, now, wall)?);
        if began <= ended {
            let detail = format!("from {from} is not before to {to}");
            return Err(Refusal::bad_request("bad-span", detail, "exchange from and to"));
        }
        Ok(Self { now, began, ended, edges: Edges::default() })
    }

    /// Its first instant, on the clock of this boot; that boot's beginning when it lies before.
    pub fn from(&self) -> Nanos {
        self.now.since(self.began)
    }

    /// Its last instant, likewise.
    pub fn to(&self) -> Nanos {
        self.now.since(self.ended)
    }

    /// Its length.
    pub fn length(&self) -> Nanos {
        self.began.since(self.ended)
    }

    /// Whether a window of this boot belongs to it. A span shorter than a window takes the one that it lies in.
    pub fn takes(&self, start: Nanos, end: Nanos) -> bool {
        let (from, to) = (self.from(), self.to());
        match self.edges {
            Edges::Touch => end > from && start < to,
            Edges::Middle => {
                let middle = |a: Nanos, b: Nanos| Nanos(a.0 + b.since(a).0 / 2);
                let inside = |at: Nanos, a: Nanos, b: Nanos| at >= a && at < b;
                inside(middle(start, end), from, to) || inside(middle(from, to), start, end)
            }
        }
    }
}

/// How long ago: `now`, a span before it (`-60s`, `-500ms`, `-5m`, `-1h`, `-2d`), nanoseconds of the monotonic clock,
/// `@` and seconds since 1970, or a date and time (`2026-05-04T12:00:00Z`).
fn ago(text: &str, now: Nanos, wall: Nanos) -> Result<Nanos, Refusal> {
    let bad = || {
        let fix = "give `now`, a span before it such as `-60s`, `-500ms`, `-5m`, `-1h` or `-2d`, a time such as \
                   `2026-05-04T12:00:00Z` or `@1777896000`, or nanoseconds of the monotonic clock";
        Refusal::bad_request("bad-time", format!("{text:?} is not a time"), fix)
    };
    if text == "now" {
        return Ok(Nanos(0));
    }
    if let Some(span) = text.strip_prefix('-') {
        return before(span).ok_or_else(bad);
    }
    if let Some(seconds) = text.strip_prefix('@') {
        return seconds.parse().map(|s| wall.since(Nanos::from_secs(s))).map_err(|_not_a_number| bad());
    }
    if let Ok(instant) = text.parse() {
        return Ok(now.since(Nanos(instant)));
    }
    date(text).map(|at| wall.since(at)).ok_or_else(bad)
}

fn before(span: &str) -> Option<Nanos> {
    let split = span.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = span.split_at(split);
    let number: u64 = number.parse().ok()?;
    let seconds = |each: u64| Nanos::from_secs(number.saturating_mul(each));
    match unit {
        "ms" => Some(Nanos::from_millis(number)),
        "s" => Some(seconds(1)),
        "m" => Some(seconds(60)),
        "h" => Some(seconds(3_600)),
        "d" => Some(seconds(86_400)),
        _ => None,
    }
}

/// RFC 3339, to the second: `YYYY-MM-DDThh:mm:ssZ`, or with an offset such as `+02:00`.
fn date(text: &str) -> Option<Nanos> {
    let digits = |at: usize, length: usize| -> Option<u64> {
        let part = text.get(at..at + length).filter(|part| part.bytes().all(|b| b.is_ascii_digit()))?;
        part.parse().ok()
    };
    let is = |at: usize, allowed: &str| text.get(at..at + 1).is_some_and(|c| allowed.contains(c));
    let separated = is(4, "-") && is(7, "-") && is(10, "Tt ") && is(13, ":") && is(16, ":");
    let (year, month, day) = (digits(0, 4)?, digits(5, 2)?, digits(8, 2)?);
    let (hour, minute, second) = (digits(11, 2)?, digits(14, 2)?, digits(17, 2)?);
    let right = (1970..10_000).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !separated || !right || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let local = days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    let utc = match text.get(19..)? {
        "Z" | "z" => local,
        // A query string turns a plus into a space.
        zone if zone.len() == 6 && is(22, ":") && is(19, "+- ") => {
            let offset = digits(20, 2)? * 3_600 + digits(23, 2)? * 60;
            if is(19, "-") { local + offset } else { local.checked_sub(offset)? }
        }
        _ => return None,
    };
    Some(Nanos::from_secs(utc))
}

/// Days from 1 January 1970. Years are taken to begin in March, so that the leap day is the last of its year.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    const DAYS_TO_1970: u64 = 719_468;
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year / 4 - year / 100 + year / 400;
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - DAYS_TO_1970
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Nanos = Nanos::from_secs(1_000);
    const WALL: Nanos = Nanos::from_secs(1_777_896_100);

    fn at(text: &str) -> Result<u64, &'static str> {
        ago(text, NOW, WALL).map(|n| n.0 / Nanos::SECOND.0).map_err(|r| r.code())
    }

    #[test]
    fn times_are_relative_to_now_or_absolute_on_either_clock() {
        assert_eq!(at("now"), Ok(0));
        assert_eq!((at("-60s"), at("-5m"), at("-9h"), at("-2d")), (Ok(60), Ok(300), Ok(32_400), Ok(172_800)));
        assert_eq!(ago("-500ms", NOW, WALL), Ok(Nanos::from_millis(500)));
        assert_eq!(at("990000000000"), Ok(10));
        assert_eq!(at("@1777896000"), Ok(100));
        for text in [
            "2026-05-04T12:00:00Z",
            "2026-05-04 12:00:00z",
            "2026-05-04T14:00:00+02:00",
            "2026-05-04T14:00:00 02:00",
            "2026-05-04T07:30:00-04:30",
        ] {
            assert_eq!(at(text), Ok(100), "{text}");
        }
        assert_eq!(date("2024-02-29T00:00:00Z"), Some(Nanos::from_secs(1_709_164_800)));
        assert_eq!(date("1970-01-01T00:00:00Z"), Some(Nanos(0)));
        for bad in [
            "",
            "-",
            "-60",
            "-s",
            "60s",
            "-60y",
            "-6é",
            "tomorrow",
            "-99999999999999999999s",
            "@",
            "@x",
            "2026-05-04",
            "2026-13-04T12:00:00Z",
            "2026-05-04T12:00:00",
            "2026-05-04T24:00:00Z",
            "2026-05-04T12:00:00+2:00",
            "é026-05-04T12:00:00Z",
        ] {
            assert_eq!(at(bad), Err("bad-time"), "{bad:?} was taken");
        }
    }

    #[test]
    fn spans_that_follow_each_other_share_no_window_and_miss_none() {
        let span = |began: u64, ended: u64| Span {
            now: NOW,
            began: Nanos::from_secs(began),
            ended: Nanos::from_secs(ended),
            edges: Edges::Middle,
        };
        let windows: Vec<(Nanos, Nanos)> =
            (0..100).map(|n| (Nanos::from_secs(n * 10), Nanos::from_secs(n * 10 + 10))).collect();
        let (old, new) = (span(67, 33), span(33, 0));
        let taken = |span: &Span| windows.iter().filter(|(start, end)| span.takes(*start, *end)).count();
        assert_eq!((taken(&old), taken(&new)), (4, 3));
        assert!(windows.iter().all(|(start, end)| !(old.takes(*start, *end) && new.takes(*start, *end))));
        assert_eq!(taken(&span(4, 2)), 1, "a moment is shown by the window it lies in");
        assert_eq!(taken(&Span { edges: Edges::Touch, ..span(67, 33) }), 4);
    }
}
