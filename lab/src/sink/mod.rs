//! A slow downstream: flushes come in, each is acknowledged after the cost that was planted for it. What it planted it
//! says at its end, so that what others learn of it can be held against the truth. Keeps no record.

pub(crate) mod delay;

use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tidegate_client::{Nanos, clock};

use delay::FlushCost;

use crate::cli::SinkArgs;
use crate::net::{Listener, Stream};
use crate::out::{json_line, note};
use crate::parent::take_name;
use crate::stop::Stop;
use crate::time::sleep_until;
use crate::wire::{FLUSH_HEADER, FlushHeader, RecordView, unpack};

/// First line of a process that listens.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Listening {
    /// Address to connect to.
    pub(crate) listening: String,
    /// Its process.
    pub(crate) pid: u32,
}

#[derive(Default)]
struct Counts {
    flushes: AtomicU64,
    records: AtomicU64,
    bytes: AtomicU64,
    planted: AtomicU64,
    gaps: AtomicU64,
    repeats: AtomicU64,
    /// Sequence after the newest record; kept beyond a connection, because a pipeline may connect anew.
    next: AtomicU64,
}

/// Last line of a sink: what it received.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Received {
    /// Flushes acknowledged.
    pub(crate) flushes: u64,
    /// Records in them.
    pub(crate) records: u64,
    /// Bytes of their bodies.
    pub(crate) bytes: u64,
    /// Records that the sequence says are missing, when it was checked.
    pub(crate) sequence_gaps: Option<u64>,
    /// Records that came again, or late.
    pub(crate) sequence_repeats: Option<u64>,
    /// Sum of the planted costs.
    #[serde(default)]
    pub(crate) planted_ns: u64,
    /// When the first flush was whole, on the monotonic clock: the steps of the delay count from here.
    #[serde(default)]
    pub(crate) first_flush_ns: Option<u64>,
}

/// What all connections share.
struct Shared {
    counts: Counts,
    cost: FlushCost,
    check: Check,
    /// Where the time of the steps begins.
    begin: OnceLock<Nanos>,
    first: OnceLock<Nanos>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Check {
    Nothing,
    Sequence,
}

/// Serves until it is told to stop.
pub(crate) fn run(args: &SinkArgs) -> Result<()> {
    take_name("lab-sink");
    let stop = Stop::listen()?;
    let listener = Listener::bind(&args.listen)?;
    let address = listener.address()?;
    json_line(&Listening { listening: address.to_string(), pid: std::process::id() })?;
    let shared = Arc::new(Shared {
        counts: Counts::default(),
        cost: FlushCost {
            fixed: args.delay,
            per_record: args.per_record,
            steps: args.delay_steps.clone().unwrap_or_default(),
        },
        check: if args.verify { Check::Sequence } else { Check::Nothing },
        begin: args.steps_from.map(|ns| OnceLock::from(Nanos(ns))).unwrap_or_default(),
        first: OnceLock::new(),
    });
    let of_thread = Arc::clone(&shared);
    thread::Builder::new().name("lab-sink-accept".into()).spawn(move || accept(&listener, &of_thread))?;
    stop.wait_or(None, None)?;
    if let crate::net::Address::Unix(path) = &address {
        // The accepting thread still owns the listener; the file goes now, the rest with the process.
        std::fs::remove_file(path).ok();
    }
    let (get, counts) = (|c: &AtomicU64| c.load(Ordering::Relaxed), &shared.counts);
    json_line(&Received {
        flushes: get(&counts.flushes),
        records: get(&counts.records),
        bytes: get(&counts.bytes),
        sequence_gaps: args.verify.then(|| get(&counts.gaps)),
        sequence_repeats: args.verify.then(|| get(&counts.repeats)),
        planted_ns: get(&counts.planted),
        first_flush_ns: shared.first.get().map(|at| at.0),
    })
}

fn accept(listener: &Listener, shared: &Arc<Shared>) {
    loop {
        let stream = match listener.accept() {
            Ok(stream) => stream,
            Err(error) => {
                note(&format!("tidegate-lab sink: accept: {error}"));
                return;
            }
        };
        let shared = Arc::clone(shared);
        let serve = move || {
            if let Err(error) = serve(stream, &shared) {
                note(&format!("tidegate-lab sink: {error:#}"));
            }
        };
        if let Err(error) = thread::Builder::new().name("lab-sink-conn".into()).spawn(serve) {
            note(&format!("tidegate-lab sink: start a thread: {error} (raise the limit on processes)"));
        }
    }
}

fn serve(mut stream: Stream, shared: &Shared) -> Result<()> {
    let counts = &shared.counts;
    let mut header = [0; FLUSH_HEADER];
    let mut body = Vec::new();
    while read_or_end(&mut stream, &mut header)? {
        let flush = FlushHeader::parse(&header)?;
        body.resize(flush.length, 0);
        stream.read_exact(&mut body).context("read a flush")?;
        let now = clock::monotonic();
        shared.first.get_or_init(|| now);
        let cost = shared.cost.of(now - *shared.begin.get_or_init(|| now), flush.records);
        counts.flushes.fetch_add(1, Ordering::Relaxed);
        counts.records.fetch_add(flush.records, Ordering::Relaxed);
        counts.bytes.fetch_add(flush.length as u64, Ordering::Relaxed);
        counts.planted.fetch_add(cost.0, Ordering::Relaxed);
        if shared.check == Check::Sequence {
            check_sequence(&unpack(&body)?, counts)?;
        }
        sleep_until(now + cost);
        stream.write_all(&flush.id.to_le_bytes()).context("acknowledge a flush")?;
    }
    Ok(())
}

/// Fills `buffer`; `false` when the stream ended before its first byte.
fn read_or_end(stream: &mut Stream, buffer: &mut [u8]) -> Result<bool> {
    let n = stream.read(buffer).context("read a flush")?;
    if n > 0 {
        stream.read_exact(&mut buffer[n..]).context("read a flush")?;
    }
    Ok(n > 0)
}

fn check_sequence(mut raw: &[u8], counts: &Counts) -> Result<()> {
    while let Some((record, length)) = RecordView::parse(raw)? {
        let expected = counts.next.fetch_max(record.sequence + 1, Ordering::Relaxed);
        counts.gaps.fetch_add(record.sequence.saturating_sub(expected), Ordering::Relaxed);
        counts.repeats.fetch_add(u64::from(record.sequence < expected), Ordering::Relaxed);
        raw = &raw[length..];
    }
    Ok(())
}
