//! Asking the agent: a request over its socket in, the answer or a plain error out. One connection a request.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tidegate_client::abi::Problem;
use tokio::net::UnixStream;

use crate::config::DEFAULT_SOCKET;

/// Longer than any request takes: a watch of a minute, and room.
const LONGEST: Duration = Duration::from_secs(90);

/// Where the agent is.
#[derive(Clone, Debug, clap::Args)]
pub struct AgentAt {
    /// Control socket of the agent
    #[arg(long, value_name = "PATH", env = "TIDEGATE_SOCKET", default_value = DEFAULT_SOCKET, global = true)]
    pub socket: PathBuf,
}

/// What the agent answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Media type of the body.
    pub content_type: String,
    /// The body.
    pub body: Vec<u8>,
    /// What the agent could not put into it, in words.
    pub incomplete: Option<String>,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum AskError {
    /// Nobody listens.
    NoAgent {
        /// Where.
        socket: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The agent said no.
    Refused(Box<Problem>),
    /// The connection failed half-way, or the answer makes no sense.
    Broken {
        /// Where.
        socket: PathBuf,
        /// What happened.
        cause: String,
    },
}

impl std::error::Error for AskError {}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAgent { socket, error } => {
                let at = socket.display();
                if error.kind() == io::ErrorKind::PermissionDenied {
                    return write!(f, "socket {at}: {error} (ask as a user who may enter its directory)");
                }
                write!(f, "no agent at {at}: {error} (start `tidegate agent`, or give its socket with --socket)")
            }
            Self::Refused(problem) => {
                let Problem { status, code, detail, pointer, fix, .. } = &**problem;
                write!(f, "{detail}")?;
                if let Some(pointer) = pointer {
                    write!(f, " (at {pointer})")?;
                }
                write!(f, ": {fix} [{status} {code}]")
            }
            Self::Broken { socket, cause } => {
                write!(f, "agent at {}: {cause} (see the agent's log)", socket.display())
            }
        }
    }
}

/// Asks, and waits for the whole answer.
pub fn ask(socket: &Path, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Answer, AskError> {
    let broken = |cause: String| AskError::Broken { socket: socket.to_owned(), cause };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| broken(format!("start a runtime: {e}")))?;
    runtime.block_on(async {
        let asking = ask_over(socket, method, path, body.unwrap_or_default());
        match tokio::time::timeout(LONGEST, asking).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(broken(format!("no answer within {} s", LONGEST.as_secs()))),
        }
    })
}

/// Asks for a document of a known shape.
pub fn get<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T, AskError> {
    let answer = ask(socket, Method::GET, path, None)?;
    serde_json::from_slice(&answer.body).map_err(|e| AskError::Broken {
        socket: socket.to_owned(),
        cause: format!("{path}: an answer of another version: {e}"),
    })
}

async fn ask_over(socket: &Path, method: Method, path: &str, body: Vec<u8>) -> Result<Answer, AskError> {
    let broken = |cause: String| AskError::Broken { socket: socket.to_owned(), cause };
    let stream =
        UnixStream::connect(socket).await.map_err(|error| AskError::NoAgent { socket: socket.to_owned(), error })?;
    let shaken = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|e| broken(e.to_string()))?;
    let driver = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "tidegate")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|e| broken(e.to_string()))?;
    let response = sender.send_request(request).await.map_err(|e| broken(e.to_string()))?;
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(|e| broken(e.to_string()))?.to_bytes().to_vec();
    driver.abort();
    if head.status.is_success() {
        let content_type = head.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let incomplete = head.headers.get("x-tidegate-incomplete").and_then(|v| v.to_str().ok()).map(str::to_owned);
        return Ok(Answer { content_type: content_type.to_owned(), body, incomplete });
    }
    let problem = serde_json::from_slice(&body);
    Err(problem
        .map_or_else(|_no_problem| broken(format!("status {}", head.status)), |p| AskError::Refused(Box::new(p))))
}
