//! Watching with the probes: loads them, pulls until the time is up, and drops them.

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Extra, Span, Subject, Watching};
use crate::event::{Decoder, Event, RawBatch};
use crate::source::clock::monotonic;
use crate::source::ebpf::{EbpfSource, LoadOptions};
use crate::source::{EventSource as _, Pulled};
use crate::units::Nanos;

/// How long the first look waits for the unwind tables of what runs: whole stacks from the first sample on.
const SETTLE: Nanos = Nanos::from_secs(2);

/// Watches, and hands each event to `see`, each raw batch to `keep`. Says `attached` on standard error when the probes
/// are in place: what happens from then on is seen. Ends early when interrupted, with what was seen so far.
pub fn watch_subject(
    watching: &Watching,
    subject: &mut impl Subject,
    mut keep: impl FnMut(&RawBatch) -> anyhow::Result<()>,
    mut see: impl FnMut(&Event<'_>),
) -> anyhow::Result<Span> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(async {
        let (_sender, inbox) = crate::source::inbox::inbox();
        let usual = LoadOptions {
            hertz: watching.hertz,
            latency_slots: watching.latency_slots,
            settle: SETTLE,
            ..LoadOptions::default()
        };
        let options = match watching.extra {
            Extra::FullLatency => LoadOptions { latency_every: 1, ..usual },
            Extra::Nothing | Extra::Floor => usual,
        };
        let mut source = EbpfSource::new(options, inbox)?;
        if watching.extra == Extra::Floor {
            source.attach_floor()?;
        }
        let degraded = source.apply(&watching.wanted);
        if !degraded.is_empty() {
            bail!("{}", degraded.join("; "));
        }
        let start = monotonic();
        say(&source.remarks());
        say_attached();
        subject.attached()?;
        let progress = progress(watching.length);
        let end = start + watching.length.into();
        let mut interrupted = std::pin::pin!(interrupt());
        let mut stopping = false;
        let mut batch = RawBatch::new();
        loop {
            batch.clear();
            let pulled = tokio::select! {
                pulled = source.pull(end, &mut batch) => pulled?,
                () = &mut interrupted, if !stopping => { stopping = true; source.flush(&mut batch); Pulled::End }
            };
            let now = monotonic();
            let over = stopping || pulled == Pulled::End || now >= end || subject.is_over()?;
            if over && !stopping {
                source.flush(&mut batch);
            }
            if over {
                subject.ended()?;
            }
            keep(&batch)?;
            for event in Decoder::new(batch.bytes()) {
                match event {
                    Ok(event) => see(&event),
                    Err(error) => tracing::warn!(%error, "a record of the probes could not be read"),
                }
            }
            progress.set_position(u64::try_from(Duration::from(now.since(start)).as_millis()).unwrap_or(u64::MAX));
            if over {
                progress.finish_and_clear();
                return Ok(Span { start, end: now });
            }
        }
    })
}

#[expect(clippy::print_stderr, reason = "it stands beside the ledger, whatever the log level")]
fn say(remarks: &[String]) {
    for remark in remarks {
        eprintln!("{remark}");
    }
}

#[expect(clippy::print_stderr, reason = "a program that waits for this line needs it whatever the log level")]
fn say_attached() {
    eprintln!("attached");
}

async fn interrupt() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
        return std::future::pending().await;
    };
    tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
}

fn progress(length: Duration) -> ProgressBar {
    let target =
        if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(u64::try_from(length.as_millis()).ok(), target);
    let style = ProgressStyle::with_template("{spinner} watching {elapsed:>4} {wide_bar} {percent:>3} %");
    bar.with_style(style.unwrap_or_else(|_bad| ProgressStyle::default_bar()))
}
