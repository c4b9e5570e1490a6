//! One request to the agent over its Unix socket: a path and a body go in, a checked reply comes out. Bounded in time and
//! size whatever the other side sends; never retries.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::abi::{Problem, Registration, RegistrationReply};
use crate::clock;
use crate::units::Nanos;

/// Where the agent listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/tidegate/api.sock";
/// Names the agent's socket.
pub const SOCKET_VARIABLE: &str = "TIDEGATE_SOCKET";

/// A whole exchange takes no longer.
const EXCHANGE: Nanos = Nanos::from_millis(3_000);
const BODY_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 32;
const HEADER_BYTES_MAX: usize = 16 << 10;

/// Why the agent gave no good reply.
#[derive(Debug, thiserror::Error)]
pub enum ContactError {
    /// Nobody to talk to, or the talk broke off.
    #[error("{action} {socket}: {cause} (is `tidegate agent` running, and may this user open its socket?)")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which socket.
        socket: PathBuf,
        /// Why it failed.
        cause: io::Error,
    },
    /// Not HTTP, or more of it than is reasonable.
    #[error("reply on {socket}: {what} (is it tidegate's socket?)")]
    Reply {
        /// Which socket.
        socket: PathBuf,
        /// What is wrong with the reply.
        what: String,
    },
    /// The agent said no.
    #[error("agent at {socket} answered {status}: {detail} ({fix})")]
    Refused {
        /// Which socket.
        socket: PathBuf,
        /// HTTP status.
        status: u16,
        /// The agent's own words.
        detail: String,
        /// The agent's advice.
        fix: String,
    },
}

/// The agent's socket: `TIDEGATE_SOCKET`, or the usual place.
pub fn default_socket() -> PathBuf {
    std::env::var_os(SOCKET_VARIABLE).map_or_else(|| PathBuf::from(DEFAULT_SOCKET), PathBuf::from)
}

/// Asks the agent at `socket` whether it is alive.
pub fn health(socket: &Path) -> Result<(), ContactError> {
    Exchange::begin(socket)?.request("GET", "/v1/health", &[]).map(drop)
}

/// Registers a pipeline; registering again is harmless.
pub fn register(socket: &Path, name: &str, registration: &Registration) -> Result<RegistrationReply, ContactError> {
    let exchange = Exchange::begin(socket)?;
    let body = serde_json::to_vec(registration).map_err(|e| exchange.bad(format!("registration: {e}")))?;
    let reply = exchange.request("PUT", &format!("/v1/pipelines/{name}"), &body)?;
    serde_json::from_slice(&reply)
        .map_err(|e| ContactError::Reply { socket: socket.into(), what: format!("not a registration reply: {e}") })
}

struct Exchange {
    stream: UnixStream,
    socket: PathBuf,
    deadline: Nanos,
}

impl Exchange {
    /// Connects; a listener whose backlog is full is waited for no longer than an exchange may take.
    fn begin(socket: &Path) -> Result<Self, ContactError> {
        let io = |cause: rustix::io::Errno| ContactError::Io {
            action: "connect to",
            socket: socket.into(),
            cause: cause.into(),
        };
        let address = SocketAddrUnix::new(socket).map_err(io)?;
        let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).map_err(io)?;
        set_socket_timeout(&fd, Timeout::Send, Some(EXCHANGE.into())).map_err(io)?;
        connect(&fd, &address).map_err(io)?;
        Ok(Self { stream: UnixStream::from(fd), socket: socket.into(), deadline: clock::monotonic() + EXCHANGE })
    }

    fn request(mut self, method: &str, path: &str, body: &[u8]) -> Result<Vec<u8>, ContactError> {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nHost: tidegate\r\nAccept: application/json\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.stream.write_all(&request).map_err(|e| self.io("send to", e))?;
        let (status, body) = self.receive()?;
        if (200..300).contains(&status) {
            return Ok(body);
        }
        let (detail, fix) = serde_json::from_slice::<Problem>(&body).map_or_else(
            |_not_a_problem| (String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned(), "see its log".into()),
            |p| (p.detail, p.fix),
        );
        Err(ContactError::Refused { socket: self.socket, status, detail, fix })
    }

    fn receive(&mut self) -> Result<(u16, Vec<u8>), ContactError> {
        let mut bytes = Vec::new();
        let head = loop {
            if let Some(head) = parse_head(&bytes).map_err(|what| self.bad(what))? {
                break head;
            }
            if bytes.len() > HEADER_BYTES_MAX {
                return Err(self.bad(format!("header larger than {HEADER_BYTES_MAX} bytes")));
            }
            if self.read_some(&mut bytes)? == 0 {
                return Err(self.bad("ended within its header".into()));
            }
        };
        let mut body = bytes.split_off(head.length);
        if head.body > BODY_MAX {
            return Err(self.bad(format!("body of {} bytes, at most {BODY_MAX} are taken", head.body)));
        }
        while body.len() < head.body {
            if self.read_some(&mut body)? == 0 {
                return Err(self.bad(format!("ended after {} of {} body bytes", body.len(), head.body)));
            }
        }
        body.truncate(head.body);
        Ok((head.status, body))
    }

    fn read_some(&mut self, into: &mut Vec<u8>) -> Result<usize, ContactError> {
        let left = self.deadline - clock::monotonic();
        if left == Nanos(0) {
            return Err(self.io("read from", io::ErrorKind::TimedOut.into()));
        }
        let mut chunk = [0; 4096];
        let read = self
            .stream
            .set_read_timeout(Some(Duration::from(left).max(Duration::from_millis(1))))
            .and_then(|()| self.stream.read(&mut chunk));
        match read {
            Ok(n) => {
                into.extend_from_slice(&chunk[..n]);
                Ok(n)
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => self.read_some(into),
            Err(e) => Err(self.io("read from", e)),
        }
    }

    fn io(&self, action: &'static str, cause: io::Error) -> ContactError {
        ContactError::Io { action, socket: self.socket.clone(), cause }
    }

    fn bad(&self, what: String) -> ContactError {
        ContactError::Reply { socket: self.socket.clone(), what }
    }
}

struct Head {
    length: usize,
    status: u16,
    body: usize,
}

/// The head of a reply, `None` while it is incomplete.
fn parse_head(bytes: &[u8]) -> Result<Option<Head>, String> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes).map_err(|e| format!("no HTTP: {e}"))? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return Ok(None),
    };
    let header = |name: &str| response.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value);
    if header("transfer-encoding").is_some() {
        return Err("body in chunks, a length was wanted".into());
    }
    let body = match header("content-length") {
        None => 0,
        Some(text) => std::str::from_utf8(text)
            .ok()
            .and_then(|t| t.trim().parse().ok())
            .ok_or_else(|| format!("content-length {:?}", String::from_utf8_lossy(text)))?,
    };
    Ok(Some(Head { length, status: response.code.unwrap_or(0), body }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use proptest::prelude::*;

    use super::*;
    use crate::abi::Knobs;

    /// What `register` makes of an agent that sends `reply` and hangs up.
    fn check(reply: &[u8]) -> Result<RegistrationReply, ContactError> {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 4096];
                let n = stream.read(&mut request).unwrap();
                assert!(request[..n].starts_with(b"PUT /v1/pipelines/ingest HTTP/1.1\r\n"));
                // A client that has seen enough hangs up first.
                stream.write_all(reply).ok();
            });
            register(&socket, "ingest", &Registration::new(Knobs::default()))
        })
    }

    fn with_length(status: &str, body: &str) -> Vec<u8> {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    #[test]
    fn a_good_reply_is_taken() {
        let body =
            r#"{"name":"ingest","settings_page":"/p","values":["batch_bytes"],"generation":4,"mode":"on","later":1}"#;
        assert_eq!(check(&with_length("200 OK", body)).unwrap().generation, 4);
    }

    #[test]
    fn a_refusal_carries_the_agents_words_and_advice() {
        let body = r#"{"type":"about:blank","title":"t","status":422,"code":"bounds","detail":"min above max","fix":"swap them"}"#;
        let error = check(&with_length("422 Unprocessable Content", body)).unwrap_err().to_string();
        assert!(error.contains("422") && error.contains("min above max") && error.contains("swap them"), "{error}");
        let error = check(&with_length("500 Oops", "<html>")).unwrap_err().to_string();
        assert!(error.contains("500") && error.contains("<html>"), "{error}");
    }

    #[test]
    fn a_reply_that_is_none_is_an_error_that_says_why() {
        let cases: [(&[u8], &str); 7] = [
            (b"", "within its header"),
            (b"HTTP/1.1 200", "within its header"),
            (b"220 mail.example.org ESMTP\r\n\r\n", "no HTTP"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n", "70000 bytes"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "content-length"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "chunks"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "2 of 9"),
        ];
        for (reply, word) in cases {
            let error = check(reply).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        let mut endless = b"HTTP/1.1 200 OK\r\nA: ".to_vec();
        endless.resize(64 << 10, b'a');
        assert!(check(&endless).unwrap_err().to_string().contains("header larger"));
    }

    #[test]
    fn no_agent_is_an_error_with_a_remedy() {
        let error = health(Path::new("/nonexistent/api.sock")).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/api.sock") && error.contains("tidegate agent"), "{error}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut reply = b"HTTP/1.1 200 OK\r\n".to_vec();
            reply.extend_from_slice(&bytes);
            for input in [&bytes[..], &reply[..]] {
                prop_assert!(parse_head(input).map_or(true, |h| h.is_none_or(|h| h.length <= input.len())));
            }
        }
    }
}
