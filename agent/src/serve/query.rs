//! Query strings: text of a stranger in, typed arguments or a problem out. Unknown arguments are refused by name.

use std::time::Duration;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::serve::problem::Refusal;

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

/// How long a caller is ready to wait: `30s`, `500ms`, or a bare number of seconds; a minute at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Patience(pub Duration);

/// Longest wait of one request.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

impl TryFrom<String> for Patience {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parsed = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
            (Some(ms), _) => ms.parse().map(Duration::from_millis),
            (None, Some(s)) => s.parse().map(Duration::from_secs),
            (None, None) => text.parse().map(Duration::from_secs),
        };
        parsed.ok().filter(|wait| *wait <= LONGEST_WAIT).map(Self).ok_or_else(|| {
            format!("wait {text:?}: want a time like 30s or 500ms, {} s at most", LONGEST_WAIT.as_secs())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_has_a_unit_and_an_end() {
        let wait = |text: &str| Patience::try_from(text.to_owned()).map(|wait| wait.0.as_millis()).ok();
        assert_eq!((wait("30s"), wait("250ms"), wait("2")), (Some(30_000), Some(250), Some(2_000)));
        for bad in ["", "s", "-1s", "61s", "1h", "99999999999999999999s"] {
            assert_eq!(wait(bad), None, "{bad}");
        }
    }
}
