//! JSON bodies: bytes of a stranger in, a value or a problem that points at the fault out. Bounded in size and time.

use std::time::Duration;

use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};

use crate::serve::problem::Refusal;

/// Largest body, bytes.
pub const BODY_BYTES: usize = 64 * 1024;
/// Time for a body to arrive.
pub const BODY_TIME: Duration = Duration::from_secs(5);

/// A body that was JSON of the right shape.
#[derive(Clone, Copy, Debug)]
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Refusal> {
        let bytes = read(request).await?;
        parse(&bytes).map(Self)
    }
}

async fn read(request: Request) -> Result<Vec<u8>, Refusal> {
    let too_large = || {
        let detail = format!("the body is larger than {BODY_BYTES} bytes");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", detail, "send a smaller body")
    };
    let whole = Limited::new(request.into_body(), BODY_BYTES).collect();
    match tokio::time::timeout(BODY_TIME, whole).await {
        Ok(Ok(body)) => Ok(body.to_bytes().to_vec()),
        Ok(Err(e)) if e.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(e)) => {
            let detail = format!("the body broke off: {e}");
            Err(Refusal::bad_request("body-broken", detail, "send the whole body, as Content-Length says"))
        }
        Err(_elapsed) => {
            let detail = format!("the body did not arrive within {} s", BODY_TIME.as_secs());
            Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "body-timeout", detail, "send the body at once"))
        }
    }
}

/// A value from JSON text.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let refuse = |pointer: String, error: &serde_json::Error| {
        let fix = "see the field named by the pointer, or the whole body where there is none";
        let refusal = Refusal::bad_request("bad-json", error.to_string(), fix);
        if pointer.is_empty() { refusal } else { refusal.at(pointer) }
    };
    let value = serde_path_to_error::deserialize(&mut json).map_err(|e| refuse(pointer(e.path()), e.inner()))?;
    json.end().map_err(|e| refuse(String::new(), &e))?;
    Ok(value)
}

/// A JSON pointer (RFC 6901).
fn pointer(path: &Path) -> String {
    path.iter()
        .map(|segment| match segment {
            Segment::Seq { index } => format!("/{index}"),
            Segment::Map { key } => format!("/{}", key.replace('~', "~0").replace('/', "~1")),
            Segment::Enum { variant } => format!("/{variant}"),
            Segment::Unknown => String::new(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_client::abi::Registration;

    fn check(body: &str, pointer: Option<&str>, says: &str) {
        let refusal = parse::<Registration>(body.as_bytes()).expect_err("the body is faulty");
        assert_eq!(refusal.pointer(), pointer, "{body}");
        let detail = refusal.document().detail;
        assert!(detail.contains(says), "{detail} does not say {says}");
    }

    #[test]
    fn a_fault_in_a_body_is_pointed_at() {
        check("", None, "EOF");
        check("{\"knobs\":", Some("/knobs"), "EOF");
        check(r#"{"knobs":{"batch_bytes":{"min":-1}}}"#, Some("/knobs/batch_bytes/min"), "-1");
        check(
            r#"{"knobs":{"batch_bytes":{"min":1,"max":2,"default":1,"step":3}}}"#,
            Some("/knobs/batch_bytes/step"),
            "step",
        );
        check(r#"{"lease":{"ttl_ms":"ten"}}"#, Some("/lease/ttl_ms"), "ten");
        check("[]", None, "");
    }

    #[test]
    fn text_after_the_body_is_refused() {
        let refusal = parse::<u32>(b"1 2").expect_err("two values");
        assert_eq!(refusal.code(), "bad-json");
    }
}
