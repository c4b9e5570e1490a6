//! Query strings: text of a stranger in, typed arguments or a problem out. Unknown arguments are refused by name.

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::serve::problem::Refusal;
use crate::units::Nanos;

/// Arguments of a query string.
#[derive(Clone, Copy, Debug)]
pub struct Args<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Args<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Refusal> {
        Query::try_from_uri(&parts.uri).map(|Query(args)| Self(args)).map_err(|e| {
            let detail = format!("query {:?}: {}", parts.uri.query().unwrap_or_default(), e.body_text());
            Refusal::bad_request("bad-query", detail, "correct or leave out the argument named")
        })
    }
}

/// An instant: `now`, a span before it (`-60s`, `-500ms`, `-5m`, `-1h`), or nanoseconds of the monotonic clock.
pub fn instant(text: &str, now: Nanos) -> Result<Nanos, Refusal> {
    let bad = || {
        let fix = "give `now`, a span before it such as `-60s`, `-500ms`, `-5m` or `-1h`, or nanoseconds";
        Refusal::bad_request("bad-time", format!("{text:?} is not a time"), fix)
    };
    if text == "now" {
        return Ok(now);
    }
    let Some(span) = text.strip_prefix('-') else {
        return text.parse().map(Nanos).map_err(|_not_a_number| bad());
    };
    let split = span.find(|c: char| !c.is_ascii_digit()).unwrap_or(span.len());
    let (number, unit) = span.split_at(split);
    let number: u64 = number.parse().map_err(|_not_a_number| bad())?;
    let span = match unit {
        "ms" => Nanos::from_millis(number),
        "s" => Nanos::from_secs(number),
        "m" => Nanos::from_secs(number.saturating_mul(60)),
        "h" => Nanos::from_secs(number.saturating_mul(3_600)),
        _ => return Err(bad()),
    };
    Ok(now.since(span))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_relative_to_now_or_absolute() {
        let now = Nanos::from_secs(1_000);
        let at = |text| instant(text, now).map_err(|r| r.code());
        assert_eq!(at("now"), Ok(now));
        assert_eq!(at("-60s"), Ok(Nanos::from_secs(940)));
        assert_eq!(at("-500ms"), Ok(Nanos::from_millis(999_500)));
        assert_eq!(at("-5m"), Ok(Nanos::from_secs(700)));
        assert_eq!(at("-9h"), Ok(Nanos(0)), "a time before the start is the start");
        assert_eq!(at("7"), Ok(Nanos(7)));
        for bad in ["", "-", "-60", "-s", "60s", "-60d", "-6é", "tomorrow", "-99999999999999999999s"] {
            assert_eq!(at(bad), Err("bad-time"), "{bad:?} was taken");
        }
    }
}
