//! Errors of the control socket: a kind of failure in, a problem document (RFC 9457) out. Never shows internals.
//!
//! Every error has a stable code for programs, and for people the value, the place and what to do about it.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tidegate_client::abi::Problem;

/// Media type of a problem document.
pub const PROBLEM_JSON: &str = "application/problem+json";
/// What `Retry-After` says where a request was turned away for lack of room, seconds.
pub const RETRY_AFTER_S: u64 = 1;

/// An error on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    status: StatusCode,
    code: &'static str,
    detail: String,
    fix: String,
    pointer: Option<String>,
}

impl Refusal {
    /// An error with its stable code, what went wrong, and what to do.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), fix: fix.into(), pointer: None }
    }

    /// The same, at a place of the body (a JSON pointer).
    #[must_use]
    pub fn at(mut self, pointer: impl Into<String>) -> Self {
        self.pointer = Some(pointer.into());
        self
    }

    /// The request is not what the route takes.
    pub fn bad_request(code: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail, fix)
    }

    /// The caller may not do that.
    pub fn forbidden(code: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, detail, fix)
    }

    /// There is no such thing.
    pub fn not_found(code: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, detail, fix)
    }

    /// The agent cannot do it now.
    pub fn unavailable(code: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail, fix)
    }

    /// What a bare status means, for answers that the libraries below made.
    pub fn from_status(status: StatusCode) -> Self {
        let (code, detail, fix) = match status {
            StatusCode::NOT_FOUND => ("no-route", "no such path", "ask for a path that there is, such as /v1/health"),
            StatusCode::METHOD_NOT_ALLOWED => {
                ("method-not-allowed", "this path does not take that method", "use a method named in the Allow header")
            }
            StatusCode::URI_TOO_LONG => ("uri-too-long", "the path is too long", "shorten the path and its query"),
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                ("header-too-large", "the request's head is larger than 16 KiB", "send fewer or shorter header fields")
            }
            StatusCode::BAD_REQUEST => (
                "malformed-http",
                "the bytes are not an HTTP/1.1 request",
                "speak HTTP/1.1, as `curl --unix-socket` does",
            ),
            _ => ("refused", "the request was refused", "see the status"),
        };
        Self::new(status, code, detail, fix)
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Its stable code.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// Where in the body the fault lies.
    pub fn pointer(&self) -> Option<&str> {
        self.pointer.as_deref()
    }

    /// The document.
    pub fn document(&self) -> Problem {
        Problem {
            kind: "about:blank".to_owned(),
            title: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.status.as_u16(),
            code: self.code.to_owned(),
            detail: self.detail.clone(),
            pointer: self.pointer.clone(),
            fix: self.fix.clone(),
        }
    }

    /// Seconds after which trying again makes sense, for a refusal that is about room.
    pub fn retry_after(&self) -> Option<u64> {
        matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS).then_some(RETRY_AFTER_S)
    }

    /// The whole answer as bytes, for where there is no HTTP machinery to send it: the connection ends after it.
    pub fn to_wire(&self) -> Vec<u8> {
        let body = self.body();
        let retry = self.retry_after().map(|s| format!("retry-after: {s}\r\n")).unwrap_or_default();
        let mut out = format!(
            "HTTP/1.1 {} {}\r\ncontent-type: {PROBLEM_JSON}\r\ncontent-length: {}\r\n{retry}connection: close\r\n\r\n",
            self.status.as_u16(),
            self.status.canonical_reason().unwrap_or("Error"),
            body.len(),
        )
        .into_bytes();
        out.extend_from_slice(&body);
        out
    }

    fn body(&self) -> Vec<u8> {
        serde_json::to_vec(&self.document()).expect("a problem is plain text and numbers")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body()));
        *response.status_mut() = self.status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(seconds) = self.retry_after() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// Gives errors that came from below the routes (404, 405) the same body as all others.
pub async fn dress(response: Response) -> Response {
    let status = response.status();
    let bare = response.headers().get(header::CONTENT_TYPE).is_none_or(|t| t != PROBLEM_JSON);
    if !bare || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let allow = response.headers().get(header::ALLOW).cloned();
    let mut dressed = Refusal::from_status(status).into_response();
    if let Some(allow) = allow {
        dressed.headers_mut().insert(header::ALLOW, allow);
    }
    dressed
}
