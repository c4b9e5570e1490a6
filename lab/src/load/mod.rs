//! The load generator: a schedule in, records to a pipeline, latencies out. Open loop: a record's latency runs from the
//! time it was due to its acknowledgement, so a sender that is held up counts in full (no coordinated omission).

pub(crate) mod latency;
pub(crate) mod schedule;

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tidegate_client::{Nanos, clock};

use crate::cli::LoadArgs;
use crate::net::{Stream, is_timeout};
use crate::out::{json_file, text};
use crate::parent::take_name;
use crate::stop::Stop;
use crate::time::{as_ms, sleep_until};
use crate::wire::{RECORD_HEADER, RECORD_MAX, RecordView};
use latency::{Latencies, SliceReport, Summary, Weighting};
use schedule::{Phase, Schedule};

const CONNECT_PATIENCE: Nanos = Nanos::from_millis(5_000);
/// Records due within this span go out in one write.
const COALESCE: Nanos = Nanos::from_millis(1);
/// A write no larger than this, so that one that is held up is noticed.
const WRITE_MAX: usize = 256 << 10;
/// How often a stream that is held up looks at the deadline.
const LOOK: Duration = Duration::from_millis(100);
/// Different payloads; each record carries one of them.
const PAYLOADS: usize = 64;

/// Results of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct LoadReport {
    /// Begin of the first phase on the monotonic clock, the warm-up excluded.
    pub(crate) begin_ns: u64,
    /// Bytes of a record on the wire.
    pub(crate) record_bytes: usize,
    /// The phases in their order.
    pub(crate) phases: Vec<PhaseReport>,
    /// All phases, every record counting alike.
    pub(crate) by_event: Summary,
    /// All phases, every second counting alike.
    pub(crate) by_time: Summary,
    /// Every second, when it was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) slices: Vec<SliceReport>,
    /// Records due, the warm-up included.
    pub(crate) scheduled: u64,
    /// Records sent.
    pub(crate) sent: u64,
    /// Records acknowledged.
    pub(crate) acknowledged: u64,
    /// Records due and never acknowledged.
    pub(crate) missing: u64,
    /// How late the sender was at worst: held up by the pipeline, or short of CPU.
    pub(crate) worst_send_delay_ms: f64,
}

/// One phase.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct PhaseReport {
    /// Records due a second.
    pub(crate) rate: u64,
    /// Its length.
    pub(crate) seconds: f64,
    /// Records due in it.
    pub(crate) scheduled: u64,
    /// Latencies.
    #[serde(flatten)]
    pub(crate) latency: Summary,
}

/// Sends, measures, prints.
pub(crate) fn run(args: &LoadArgs) -> Result<()> {
    take_name("lab-load");
    Stop::let_be()?;
    if !(RECORD_HEADER..=RECORD_MAX).contains(&args.record_bytes) {
        bail!("--record-bytes {}: want {RECORD_HEADER} to {RECORD_MAX}", args.record_bytes);
    }
    let warmup = args.phases.0.first().filter(|_| args.warmup > Nanos(0));
    let mut phases: Vec<Phase> = warmup.map(|p| Phase { span: args.warmup, ..*p }).into_iter().collect();
    let measured_from = phases.len();
    phases.extend(&args.phases.0);
    let schedule = Schedule::new(phases);

    let stream = Stream::connect_patiently(&args.connect, CONNECT_PATIENCE)?;
    stream.set_timeouts(LOOK).context("set a timeout")?;
    let begin = args.start_at.map_or_else(|| clock::monotonic() + Nanos::from_millis(50), Nanos);
    let run =
        Run { schedule: &schedule, begin, deadline: begin + schedule.end() + args.drain, sent: AtomicU64::new(0) };
    let payloads = payloads(args.record_bytes - RECORD_HEADER);
    let sending = stream.try_clone().context("second handle on the connection")?;
    let (worst_delay, (latencies, acknowledged)) = thread::scope(|scope| {
        let sender = thread::Builder::new()
            .name("lab-send".into())
            .spawn_scoped(scope, || run.send(sending, &payloads))
            .context("start the sending thread")?;
        let received = run.receive(stream)?;
        let worst_delay = sender.join().map_err(|_panic| anyhow::anyhow!("the sending thread panicked"))??;
        anyhow::Ok((worst_delay, received))
    })?;

    let measured = |phase: usize| phase >= measured_from;
    let report = LoadReport {
        begin_ns: (begin + args.warmup).0,
        record_bytes: args.record_bytes,
        phases: (measured_from..schedule.phases().len())
            .map(|i| PhaseReport {
                rate: schedule.phases()[i].rate,
                seconds: as_ms(schedule.phases()[i].span) / 1e3,
                scheduled: schedule.phases()[i].records(),
                latency: latencies.summary(&schedule, Weighting::ByEvent, |s| s.phase == i),
            })
            .collect(),
        by_event: latencies.summary(&schedule, Weighting::ByEvent, |s| measured(s.phase)),
        by_time: latencies.summary(&schedule, Weighting::ByTime, |s| measured(s.phase)),
        slices: if args.slices { latencies.slices(&schedule, measured_from) } else { Vec::new() },
        scheduled: schedule.records(),
        sent: run.sent.load(Ordering::Relaxed),
        acknowledged,
        missing: schedule.records() - acknowledged,
        worst_send_delay_ms: as_ms(worst_delay),
    };
    if let Some(path) = &args.hdr {
        write_distribution(path, &latencies.merged(&schedule, |s| measured(s.phase)))?;
    }
    match &args.json {
        Some(path) => json_file(path, &report)?,
        None => print(&report)?,
    }
    if report.missing > 0 {
        bail!(
            "{} of {} records not acknowledged within {} ms after the last was due (is the pipeline overloaded? see \
             --drain)",
            report.missing,
            report.scheduled,
            args.drain.0 / 1_000_000
        );
    }
    Ok(())
}

struct Run<'a> {
    schedule: &'a Schedule,
    begin: Nanos,
    deadline: Nanos,
    sent: AtomicU64,
}

impl Run<'_> {
    /// Sends what is due, as it falls due; returns the worst delay of a record.
    fn send(&self, mut stream: Stream, payloads: &[Vec<u8>]) -> Result<Nanos> {
        let mut walk = self.schedule.walk().enumerate().peekable();
        let (mut buffer, mut worst) = (Vec::with_capacity(WRITE_MAX), Nanos(0));
        while let Some((_, first)) = walk.peek() {
            let due = self.begin + first.at;
            sleep_until(due);
            let now = clock::monotonic();
            worst = worst.max(now - due);
            buffer.clear();
            let mut records = 0;
            while buffer.len() < WRITE_MAX
                && let Some((sequence, due)) = walk.next_if(|(_, d)| self.begin + d.at <= now)
            {
                let payload = &payloads[sequence % payloads.len()];
                RecordView { scheduled: self.begin + due.at, sequence: sequence as u64, payload }.write(&mut buffer);
                records += 1;
            }
            if !self.write(&mut stream, &buffer)? {
                break;
            }
            self.sent.fetch_add(records, Ordering::Relaxed);
            sleep_until(now + COALESCE);
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
                Err(e) if is_timeout(&e) && clock::monotonic() < self.deadline => {}
                Err(e) if is_timeout(&e) => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
                Err(e) => return Err(e).context("send records"),
            }
        }
        Ok(true)
    }

    /// Takes acknowledgements until all have come or the deadline passes.
    fn receive(&self, mut stream: Stream) -> Result<(Latencies, u64)> {
        let mut latencies = Latencies::new(self.schedule);
        let mut walk = self.schedule.walk();
        let (total, mut acknowledged) = (self.schedule.records(), 0);
        let (mut buffer, mut filled) = ([0; 4096], 0);
        while acknowledged < total {
            match stream.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if is_timeout(&e) && clock::monotonic() < self.deadline => continue,
                Err(e) if is_timeout(&e) => break,
                Err(e) => return Err(e).context("read acknowledgements"),
            }
            let now = clock::monotonic();
            let whole = filled / 8 * 8;
            for word in buffer[..whole].chunks_exact(8) {
                let count = u64::from_le_bytes(word.try_into().context("a chunk of 8 bytes")?);
                if count < acknowledged || count > total {
                    bail!("acknowledgement {count} after {acknowledged} of {total} (is the other side a pipeline?)");
                }
                for due in walk.by_ref().take(usize::try_from(count - acknowledged).unwrap_or(usize::MAX)) {
                    latencies.record(due.slice, now - (self.begin + due.at));
                }
                acknowledged = count;
            }
            buffer.copy_within(whole..filled, 0);
            filled -= whole;
        }
        Ok((latencies, acknowledged))
    }
}

/// Lines like those of a log: words that repeat, numbers that do not.
fn payloads(bytes: usize) -> Vec<Vec<u8>> {
    const WORDS: [&str; 8] = [
        "level=info ",
        "request served ",
        "path=/api/v1/items ",
        "status=200 ",
        "user=",
        "took_us=",
        "bytes=",
        "trace=",
    ];
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut payload = || {
        let mut line = Vec::with_capacity(bytes + 32);
        while line.len() < bytes {
            let n = random();
            line.extend_from_slice(WORDS[usize::from(n.to_le_bytes()[0] & 7)].as_bytes());
            line.extend_from_slice(format!("{:x} ", n >> 40).as_bytes());
        }
        line.truncate(bytes);
        line
    };
    (0..PAYLOADS).map(|_| payload()).collect()
}

fn print(report: &LoadReport) -> Result<()> {
    for phase in &report.phases {
        let Summary { p50_ms, p99_ms, p999_ms, mean_ms, .. } = phase.latency;
        text(&format!(
            "{:>7}/s {:>5.1} s  p50 {p50_ms:.2}  p99 {p99_ms:.2}  p99.9 {p999_ms:.2}  mean {mean_ms:.2} ms\n",
            phase.rate, phase.seconds
        ))?;
    }
    for (name, all) in [("by events", &report.by_event), ("by seconds", &report.by_time)] {
        let Summary { p50_ms, p99_ms, p999_ms, mean_ms, .. } = all;
        text(&format!(
            "all, {name:<11}  p50 {p50_ms:.2}  p99 {p99_ms:.2}  p99.9 {p999_ms:.2}  mean {mean_ms:.2} ms\n"
        ))?;
    }
    text(&format!("{} sent, {} acknowledged, {} missing\n", report.sent, report.acknowledged, report.missing))
}

/// The text form that plotters of such histograms read, in milliseconds.
#[expect(clippy::cast_precision_loss, reason = "a plot needs no more than 52 bits")]
fn write_distribution(path: &Path, histogram: &Histogram<u64>) -> Result<()> {
    let mut out = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
    let mut below = 0;
    for step in histogram.iter_quantiles(5) {
        below += step.count_since_last_iteration();
        let (value, share) = (step.value_iterated_to() as f64 / 1e3, step.quantile_iterated_to());
        let inverse = if share < 1.0 { format!("{:.2}", 1.0 / (1.0 - share)) } else { "inf".into() };
        writeln!(out, "{value:12.3} {share:14.12} {below:10} {inverse:>16}").context("write a line")?;
    }
    fs::write(path, out).with_context(|| format!("write {} (does its directory exist?)", path.display()))
}
