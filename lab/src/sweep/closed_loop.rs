//! A closed loop: so many records are under way at once, and each acknowledgement lets another one go. Throughput and
//! latency out; it cannot overload what it measures, which is why no figure of an open loop is compared with it.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use tidegate_client::{Nanos, clock};

use super::result::Run;
use crate::net::{Address, Stream};
use crate::wire::{RECORD_HEADER, RecordView};

const CONNECT_PATIENCE: Nanos = Nanos::from_millis(5_000);
/// A pipeline that acknowledges nothing for so long is stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// A closed loop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loop {
    /// Bytes of a record on the wire.
    pub(crate) record_bytes: usize,
    /// How long.
    pub(crate) span: Nanos,
    /// Records under way at once.
    pub(crate) concurrency: u64,
}

/// Keeps so many records under way for the time of a run; its first fifth is left out.
#[expect(clippy::cast_precision_loss, reason = "counts of a run of seconds")]
pub(crate) fn run(address: &str, of: Loop) -> Result<Run> {
    let Loop { record_bytes, span, concurrency } = of;
    let address: Address = address.parse().map_err(|e: String| anyhow::anyhow!(e))?;
    let mut stream = Stream::connect_patiently(&address, CONNECT_PATIENCE)?;
    stream.set_timeouts(PATIENCE).context("set a timeout")?;
    let payload = payload(record_bytes.checked_sub(RECORD_HEADER).context("--record-bytes: too few")?);
    let begin = clock::monotonic();
    let (from, until) = (begin + Nanos(span.0 / 5), begin + span);
    let (mut sent, mut acknowledged, mut measured) = (0_u64, 0_u64, 0_u64);
    let mut under_way: VecDeque<Nanos> = VecDeque::new();
    let mut micros: Histogram<u64> = Histogram::new(3).context("a histogram of three figures")?;
    let (mut out, mut buffer, mut filled) = (Vec::new(), [0; 4096], 0);
    let mut now = begin;
    while now < until {
        out.clear();
        while sent - acknowledged < concurrency {
            RecordView { scheduled: now, sequence: sent, payload: &payload }.write(&mut out);
            under_way.push_back(now);
            sent += 1;
        }
        write_all(&mut stream, &out)?;
        let n = stream.read(&mut buffer[filled..]).context("read acknowledgements (is the pipeline stuck?)")?;
        if n == 0 {
            bail!("the pipeline closed the connection");
        }
        filled += n;
        now = clock::monotonic();
        let whole = filled / 8 * 8;
        let last = buffer[..whole].chunks_exact(8).next_back();
        if let Some(word) = last {
            let count = u64::from_le_bytes(word.try_into().context("a chunk of 8 bytes")?);
            for sent_at in under_way.drain(..usize::try_from(count.saturating_sub(acknowledged))?.min(under_way.len()))
            {
                if now >= from {
                    micros.record((now - sent_at).as_micros()).ok();
                    measured += 1;
                }
            }
            acknowledged = count;
        }
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
    }
    drain(&mut stream)?;
    let seconds = (now - from).0 as f64 / 1e9;
    Ok(Run {
        per_second: measured as f64 / seconds,
        p50_ms: micros.value_at_quantile(0.5) as f64 / 1e3,
        p99_ms: micros.value_at_quantile(0.99) as f64 / 1e3,
    })
}

/// Lets what is under way come back, so that the pipeline ends in peace.
fn drain(stream: &mut Stream) -> Result<()> {
    stream.shutdown(Shutdown::Write).context("end the records")?;
    let mut rest = [0; 4096];
    while stream.read(&mut rest).context("read the last acknowledgements")? > 0 {}
    Ok(())
}

fn write_all(stream: &mut Stream, bytes: &[u8]) -> Result<()> {
    stream.write_all(bytes).context("send records")
}

/// Bytes that compress about as text does: words of a small alphabet in an order of their own.
fn payload(bytes: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(9);
    (0..bytes).map(|_| b"etaoin shrdlu=1029"[random.usize(0..18)]).collect()
}
