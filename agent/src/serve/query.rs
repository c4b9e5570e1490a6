//! Query strings: text of a stranger in, typed arguments or a problem out. Unknown arguments are refused by name.

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
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
