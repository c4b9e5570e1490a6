//! Records to a pipeline: one thread sends what is due, another takes acknowledgements. Both walk the same schedule. A
//! record's latency runs from when it was due, so a sender that is held up counts in full (no coordinated omission).

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tidegate_client::{Nanos, clock};

use super::live::Live;
use super::payload::Payloads;
use super::sizes::Sizes;
use super::{Outcome, Plan};
use crate::net::{Address, Stream, is_timeout};
use crate::time::sleep_until;
use crate::wire::{RECORD_HEADER, RecordView};

const CONNECT_PATIENCE: Nanos = Nanos::from_millis(5_000);
/// A write no larger than this, so that one that is held up is noticed.
const WRITE_MAX: usize = 256 << 10;
/// How often a stream that is held up looks at the deadline.
const LOOK: Duration = Duration::from_millis(100);

/// A connection to a pipeline, made before the load begins.
pub(super) fn connect(address: &Address) -> Result<Stream> {
    let stream = Stream::connect_patiently(address, CONNECT_PATIENCE)?;
    stream.set_timeouts(LOOK).context("set a timeout")?;
    Ok(stream)
}

/// Sends and measures.
pub(super) fn run(plan: &Plan<'_>, sizes: &Sizes, stream: Stream, live: Live<'_>, outcome: Outcome) -> Result<Outcome> {
    let sending = stream.try_clone().context("second handle on the connection")?;
    let sender = Sender { plan, sent: AtomicU64::new(0), bytes: AtomicU64::new(0) };
    let (worst_delay, mut outcome) = thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("lab-send".into())
            .spawn_scoped(scope, || sender.run(sending, sizes))
            .context("start the sending thread")?;
        let outcome = receive(plan, stream, live, outcome)?;
        let worst_delay = thread.join().map_err(|_panic| anyhow::anyhow!("the sending thread panicked"))??;
        anyhow::Ok((worst_delay, outcome))
    })?;
    outcome.worst_send_delay = worst_delay;
    outcome.sent = sender.sent.load(Ordering::Relaxed);
    outcome.sent_bytes = sender.bytes.load(Ordering::Relaxed);
    Ok(outcome)
}

struct Sender<'a> {
    plan: &'a Plan<'a>,
    sent: AtomicU64,
    bytes: AtomicU64,
}

impl Sender<'_> {
    /// Sends what is due, as it falls due; returns the worst delay of a record.
    fn run(&self, mut stream: Stream, sizes: &Sizes) -> Result<Nanos> {
        let begin = self.plan.begin;
        let payloads = Payloads::new(sizes.most() - RECORD_HEADER);
        let mut draw = sizes.draw(self.plan.seed);
        let mut walk = self.plan.schedule.walk().zip(0_u64..).peekable();
        let (mut buffer, mut worst) = (Vec::with_capacity(WRITE_MAX), Nanos(0));
        while let Some((first, _)) = walk.peek() {
            let due = begin + first.at;
            sleep_until(due);
            let now = clock::monotonic();
            worst = worst.max(now - due);
            buffer.clear();
            let mut records = 0;
            while buffer.len() < WRITE_MAX
                && let Some((due, sequence)) = walk.next_if(|(due, _)| begin + due.at <= now)
            {
                let payload = payloads.of(sequence, draw.next() - RECORD_HEADER);
                RecordView { scheduled: begin + due.at, sequence, payload }.write(&mut buffer);
                records += 1;
            }
            if !self.write(&mut stream, &buffer)? {
                break;
            }
            self.sent.fetch_add(records, Ordering::Relaxed);
            self.bytes.fetch_add(buffer.len() as u64, Ordering::Relaxed);
            sleep_until(now + self.plan.coalesce);
        }
        // The pipeline may have gone; then the receiving side has noticed and says so.
        stream.shutdown(Shutdown::Write).ok();
        Ok(worst)
    }

    /// Writes all of `bytes`; `false` when the deadline passed first.
    fn write(&self, stream: &mut Stream, mut bytes: &[u8]) -> Result<bool> {
        while !bytes.is_empty() {
            match stream.write(bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(e) if is_timeout(&e) && clock::monotonic() < self.plan.deadline => {}
                Err(e) if is_timeout(&e) => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
                Err(e) => return Err(e).context("send records"),
            }
        }
        Ok(true)
    }
}

/// Takes acknowledgements until all have come or the deadline passes.
fn receive(plan: &Plan<'_>, mut stream: Stream, mut live: Live<'_>, mut outcome: Outcome) -> Result<Outcome> {
    let mut walk = plan.schedule.walk();
    let total = plan.schedule.records();
    let (mut buffer, mut filled) = ([0; 4096], 0);
    while outcome.acknowledged < total {
        live.look(clock::monotonic(), outcome.acknowledged);
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if is_timeout(&e) && clock::monotonic() < plan.deadline => continue,
            Err(e) if is_timeout(&e) => break,
            Err(e) => return Err(e).context("read acknowledgements"),
        }
        let now = clock::monotonic();
        let whole = filled / 8 * 8;
        for word in buffer[..whole].chunks_exact(8) {
            let count = u64::from_le_bytes(word.try_into().context("a chunk of 8 bytes")?);
            if count < outcome.acknowledged || count > total {
                let known = outcome.acknowledged;
                bail!("acknowledgement {count} after {known} of {total} (is the other side a pipeline?)");
            }
            let news = usize::try_from(count - outcome.acknowledged).unwrap_or(usize::MAX);
            for due in walk.by_ref().take(news) {
                let latency = now - (plan.begin + due.at);
                outcome.latencies.record(plan.schedule, due.slice, latency)?;
                live.acknowledged(latency);
            }
            outcome.acknowledged = count;
        }
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
    }
    live.end();
    Ok(outcome)
}
