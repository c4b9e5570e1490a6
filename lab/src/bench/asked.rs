//! What a measurement asks the agent: one request over its socket, or a stream of events. Plain HTTP/1.1, nothing kept.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tidegate_client::{Nanos, clock};

/// The agent answers or is silent for so long.
const PATIENCE: Duration = Duration::from_secs(20);

fn connect(socket: &Path) -> Result<UnixStream> {
    let stream = UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
    stream.set_read_timeout(Some(PATIENCE)).context("set a timeout")?;
    Ok(stream)
}

/// One request; its answer as JSON, an error where the agent refused.
pub(super) fn ask(socket: &Path, method: &str, path: &str, body: &str) -> Result<Value> {
    let mut stream = connect(socket)?;
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(format!("{head}{body}").as_bytes()).context("ask the agent")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("hear the agent about {path}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer has a head")?;
    let status: u16 =
        head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("an answer has a status")?;
    if !(200..300).contains(&status) {
        bail!("{method} {path}: {status}: {body}");
    }
    if body.is_empty() { Ok(Value::Null) } else { serde_json::from_str(body).with_context(|| format!("read {path}")) }
}

/// A stream of events.
pub(super) struct Events(BufReader<UnixStream>);

/// One event, and when it came.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) at: Nanos,
    pub(super) data: Value,
}

impl Events {
    /// Opens the stream at `path`.
    pub(super) fn open(socket: &Path, path: &str) -> Result<Self> {
        let mut stream = connect(socket)?;
        let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n\r\n");
        stream.write_all(head.as_bytes()).context("ask for events")?;
        let mut lines = BufReader::new(stream);
        let mut status = String::new();
        lines.read_line(&mut status).context("hear of a stream")?;
        if !status.contains(" 200 ") {
            bail!("stream of {path}: {}", status.trim());
        }
        Ok(Self(lines))
    }

    /// The next event that has data. Whatever else there is on the line, such as the framing of the transfer, is no event.
    pub(super) fn next(&mut self) -> Result<Event> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.0.read_line(&mut line).context("hear of an event")? == 0 {
                bail!("the stream has ended");
            }
            if let Some(data) = line.strip_prefix("data: ") {
                let at = clock::monotonic();
                return Ok(Event {
                    at,
                    data: serde_json::from_str(data.trim_end()).with_context(|| format!("read an event: {data}"))?,
                });
            }
        }
    }
}
