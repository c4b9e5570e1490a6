//! Messages that wait in a socket for a known time, and the reader's own account of it. The sender is a process of its
//! own, so that a watch on the reader sees the reader's sockets only.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use rustix::event::{PollFd, PollFlags, poll};
use serde::Serialize;
use tidegate_client::{Nanos, clock};

use super::syscalls::await_word;
use crate::cli::{Pattern, SocketKind, SocketLoadArgs};
use crate::net::{Address, Listener, Stream};
use crate::out::json_line;
use crate::parent::take_name;
use crate::time::{as_ms, sleep_until};

/// Bytes of a message; its send time stands at its head.
const MESSAGE: usize = 256;
/// From readable to read, where the reader sleeps in between.
const NAP: Nanos = Nanos::from_millis(20);
/// The slow reader takes a message each two milliseconds of a burst sent at one each millisecond.
const SLOW_STEP: Nanos = Nanos::from_millis(2);

#[derive(Serialize)]
struct Ready {
    pid: u32,
}

#[derive(Serialize)]
struct Done {
    pid: u32,
    messages: usize,
    reads: usize,
    message_bytes: usize,
    /// Waits of messages as the reader saw them.
    wait: Waits,
    /// Waits of the oldest message of each read.
    oldest: Waits,
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the unit belongs to the name of a JSON field")]
struct Waits {
    p50_ms: f64,
    p99_ms: f64,
    mean_ms: f64,
}

impl Pattern {
    /// Send times of one round, and its length. The slow reader's bursts end before its queue could overflow, because
    /// time spent in the sender's queue is no residency of the reader's.
    fn round(self) -> (Vec<Nanos>, Nanos) {
        let ms = Nanos::from_millis;
        match self {
            Self::Poll20 => (vec![ms(0)], ms(50)),
            Self::Burst4 => ([0, 4, 8, 12].map(ms).to_vec(), ms(60)),
            Self::SlowReader => ((0..80).map(ms).collect(), ms(200)),
        }
    }
}

/// Runs one pattern, as the reader; the sender is started from here.
pub(crate) fn run(args: &SocketLoadArgs) -> Result<()> {
    if let Some(address) = &args.send_to {
        return send(address, args);
    }
    take_name("lab-reader");
    let address = match args.kind {
        SocketKind::Tcp => Address::Tcp("127.0.0.1:0".into()),
        SocketKind::Unix => {
            Address::Unix(std::env::temp_dir().join(format!("tidegate-lab-{}.sock", std::process::id())))
        }
    };
    let listener = Listener::bind(&address)?;
    let mut sender = Sender(start_sender(&listener.address()?, args)?);
    let mut stream = listener.accept().context("accept the sender")?;
    // A Unix socket's file goes now: a reader that is interrupted leaves nothing behind.
    drop(listener);
    json_line(&Ready { pid: std::process::id() })?;
    if args.wait {
        await_word()?;
    }
    stream.write_all(b"!").context("tell the sender to begin")?;
    let reads = read_all(&mut stream, args.pattern)?;
    sender.0.wait().context("wait for the sender")?;

    let all: Vec<Nanos> = reads.iter().flatten().copied().collect();
    let oldest = reads.iter().filter_map(|r| r.iter().max().copied()).collect();
    json_line(&Done {
        pid: std::process::id(),
        messages: all.len(),
        reads: reads.len(),
        message_bytes: MESSAGE,
        wait: waits(all)?,
        oldest: waits(oldest)?,
    })
}

/// Ends the sender with the reader, also when that fails.
struct Sender(Child);

impl Drop for Sender {
    fn drop(&mut self) {
        // One that has ended already needs no killing.
        self.0.kill().and_then(|()| self.0.wait()).ok();
    }
}

fn start_sender(address: &Address, args: &SocketLoadArgs) -> Result<Child> {
    Command::new("/proc/self/exe")
        .args(["--parent", &std::process::id().to_string(), "socket-load"])
        .args(["--kind", &typed(&args.kind)])
        .args(["--pattern", &typed(&args.pattern)])
        .args(["--seconds", &args.seconds.to_string(), "--send-to", &address.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .context("start the sender")
}

/// A value as the command line takes it.
fn typed(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default()
}

fn send(address: &Address, args: &SocketLoadArgs) -> Result<()> {
    take_name("lab-sender");
    let mut stream = Stream::connect_patiently(address, Nanos::from_millis(5_000))?;
    stream.read_exact(&mut [0]).context("wait for the word to begin")?;
    let (times, length) = args.pattern.round();
    let begin = clock::monotonic();
    let end = begin + Nanos::from_millis(args.seconds.saturating_mul(1_000));
    let mut round = begin;
    while round + length <= end {
        for time in &times {
            sleep_until(round + *time);
            let mut message = [0; MESSAGE];
            message[..8].copy_from_slice(&clock::monotonic().0.to_le_bytes());
            stream.write_all(&message).context("send a message")?;
        }
        round = round + length;
        sleep_until(round);
    }
    Ok(())
}

/// Waits of the messages of each read, until the sender ends.
fn read_all(stream: &mut Stream, pattern: Pattern) -> Result<Vec<Vec<Nanos>>> {
    let mut reads = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        wait_readable(stream)?;
        let readable = clock::monotonic();
        let n = match pattern {
            Pattern::Poll20 | Pattern::Burst4 => {
                sleep_until(readable + NAP);
                stream.read(&mut buffer)
            }
            Pattern::SlowReader => stream.read(&mut buffer[..MESSAGE]),
        }
        .context("read messages")?;
        let now = clock::monotonic();
        if n == 0 {
            return Ok(reads);
        }
        if !n.is_multiple_of(MESSAGE) {
            bail!("read {n} bytes, no whole number of messages of {MESSAGE}");
        }
        reads.push(
            buffer[..n]
                .chunks_exact(MESSAGE)
                .map(|m| m.first_chunk().map_or(Nanos(0), |t| now - Nanos(u64::from_le_bytes(*t))))
                .collect(),
        );
        if pattern == Pattern::SlowReader {
            sleep_until(now + SLOW_STEP);
        }
    }
}

fn wait_readable(stream: &Stream) -> Result<()> {
    let fd = match stream {
        Stream::Tcp(s) => s.as_fd(),
        Stream::Unix(s) => s.as_fd(),
    };
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    match poll(&mut fds, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(e) => Err(e).context("poll the socket"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a mean of nanoseconds")]
fn waits(mut all: Vec<Nanos>) -> Result<Waits> {
    all.sort_unstable();
    let Some(last) = all.len().checked_sub(1) else {
        bail!("no message came (--seconds must cover at least one round of the pattern)");
    };
    let mean = all.iter().map(|n| as_ms(*n)).sum::<f64>() / all.len() as f64;
    Ok(Waits { p50_ms: as_ms(all[last / 2]), p99_ms: as_ms(all[last * 99 / 100]), mean_ms: mean })
}
