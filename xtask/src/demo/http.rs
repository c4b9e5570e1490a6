//! One question to the agent: a path in, a JSON document out, over its Unix socket. Knows as much HTTP as that takes.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(5);

/// Asks and reads the whole answer.
pub(crate) fn get(socket: &Path, path: &str) -> Result<Value> {
    let mut stream = UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
    stream.set_read_timeout(Some(PATIENCE)).context("limit the wait")?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .with_context(|| format!("ask for {path}"))?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).with_context(|| format!("read the answer to {path}"))?;
    let body = body(&answer).with_context(|| format!("GET {path}"))?;
    serde_json::from_slice(&body).with_context(|| format!("GET {path}: the answer is no JSON"))
}

/// The body of an answer that says 200, with its chunks joined.
fn body(answer: &[u8]) -> Result<Vec<u8>> {
    let end =
        answer.windows(4).position(|window| window == b"\r\n\r\n").context("the answer has no end of its header")?;
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let body = &answer[end + 4..];
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    if status != "200" {
        bail!("status {status}: {}", String::from_utf8_lossy(body).trim());
    }
    let is_chunked = head.lines().any(|line| line.starts_with("transfer-encoding:") && line.contains("chunked"));
    if is_chunked { join_chunks(body) } else { Ok(body.to_vec()) }
}

fn join_chunks(mut rest: &[u8]) -> Result<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let line = rest.windows(2).position(|window| window == b"\r\n").context("a chunk has no length")?;
        let digits = String::from_utf8_lossy(&rest[..line]);
        let digits = digits.split(';').next().unwrap_or_default().trim();
        let length = usize::from_str_radix(digits, 16).with_context(|| format!("chunk length {digits:?}"))?;
        let chunk = rest.get(line + 2..line + 2 + length).context("a chunk is cut short")?;
        if chunk.is_empty() {
            return Ok(whole);
        }
        whole.extend_from_slice(chunk);
        rest = rest.get(line + 2 + length + 2..).context("a chunk is cut short")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_and_chunked_bodies_read_the_same() {
        let plain = body(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n[1,2]").expect("it is whole");
        let chunked =
            body(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1,\r\n2;x=y\r\n2]\r\n0\r\n\r\n");
        assert_eq!(plain, chunked.expect("it is whole"));
    }

    #[test]
    fn a_refusal_keeps_its_words_and_a_cut_body_is_refused() {
        let refused = body(b"HTTP/1.1 403 Forbidden\r\n\r\n{\"fix\":\"be root\"}").expect_err("it is a refusal");
        assert!(refused.to_string().contains("be root"), "{refused}");
        assert!(body(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nshort").is_err());
    }
}
