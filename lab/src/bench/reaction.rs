//! How fast the loop is, end to end, with as many pipelines registered as asked for: from a queue that fills to the agent
//! that sees it, from a sink that is free to the flush of a full queue, from a decision to the page and to a watcher.
//!
//! Times are those of one clock, `CLOCK_MONOTONIC`, which agent and pipelines share; a decision carries its own. Run as
//! root against an agent of one's own: an ordinary user may have 64 pipelines and pin none.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tidegate_client::abi::{Knobs, LeaseTerms, Mode, Registration, RegistrationReply, ReportWord};
use tidegate_client::page::PageReader;
use tidegate_client::rule::{Cause, L0};
use tidegate_client::{Batcher, Bytes, Nanos, Options, ReportPage, Settings, Source, clock, contact};

use super::Report as PageReport;
use super::asked::{Event, Events, ask};
use crate::cli::BenchReactionArgs;
use crate::out::{json_file, text};
use crate::time::sleep;

/// Pipelines that are watched and turned; the others only report.
const WATCHED: usize = 8;
/// Registrations under way at once.
const AT_ONCE: usize = 16;
const CAPACITY: u64 = 64 << 20;
const TICK: Nanos = Nanos::from_millis(100);
/// Nothing that is measured takes so long.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Serialize)]
struct Report {
    pipelines: usize,
    rounds: usize,
    results: Vec<Line>,
    /// Costs in nanoseconds.
    costs: PageReport,
}

/// Milliseconds.
#[derive(Serialize)]
struct Line {
    what: &'static str,
    samples: usize,
    p50_ms: f64,
    p99_ms: f64,
    worst_ms: f64,
    at_most_ms: f64,
}

impl Line {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds with three digits")]
    fn of(what: &'static str, at_most_ms: f64, mut spans: Vec<Nanos>) -> Result<Self> {
        spans.sort_unstable();
        let ms = |share: f64| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index of a list")]
            let at = (share * spans.len() as f64).ceil() as usize;
            spans.get(at.clamp(1, spans.len().max(1)) - 1).map(|span| span.0 as f64 / 1e6).context("no samples")
        };
        Ok(Self { what, samples: spans.len(), p50_ms: ms(0.5)?, p99_ms: ms(0.99)?, worst_ms: ms(1.0)?, at_most_ms })
    }
}

/// Measures and prints.
pub(crate) fn run(args: &BenchReactionArgs) -> Result<()> {
    let directory = std::env::temp_dir().join(format!("tidegate-lab-reaction-{}", std::process::id()));
    std::fs::create_dir(&directory).with_context(|| format!("make {}", directory.display()))?;
    let result = measure(args, &directory);
    // Whether the bench went well or not, its pages go; what is gone already needs no removing.
    std::fs::remove_dir_all(&directory).ok();
    let report = result?;
    if let Some(file) = &args.json {
        json_file(file, &report)?;
    }
    report.show()
}

impl Report {
    fn show(&self) -> Result<()> {
        let title = format!("{} pipelines, {} rounds, ms", self.pipelines, self.rounds);
        text(&format!("{title:<52} {:>9} {:>9} {:>9} {:>8}\n", "p50", "p99", "worst", "at most"))?;
        for Line { what, samples: _, p50_ms, p99_ms, worst_ms, at_most_ms } in &self.results {
            text(&format!("{what:<52} {p50_ms:>9.3} {p99_ms:>9.3} {worst_ms:>9.3} {at_most_ms:>8.0}\n"))?;
        }
        text("\n")?;
        self.costs.print()
    }
}

fn measure(args: &BenchReactionArgs, directory: &Path) -> Result<Report> {
    let fleet = Fleet::register(args, directory)?;
    let over = AtomicBool::new(false);
    let (seen, turned) = thread::scope(|scope| {
        let reporting = scope.spawn(|| fleet.report_until(&over));
        let measured = fleet.rounds(args.rounds);
        over.store(true, Ordering::Relaxed);
        reporting.join().map_err(|_panic| anyhow::anyhow!("the reporting thread panicked"))?;
        measured
    })?;
    let results = vec![
        Line::of("a queue of 85 % is seen by the agent", 150.0, seen)?,
        Line::of("its flush begins once the sink is free", 1.0, panic_flushes(args.rounds)?)?,
        Line::of("from a decision to the page", 5.0, turned.iter().map(|turn| turn.page).collect())?,
        Line::of("from a decision to a watcher", 50.0, turned.iter().map(|turn| turn.watcher).collect())?,
    ];
    Ok(Report { pipelines: args.pipelines, rounds: args.rounds, results, costs: super::measure(directory)? })
}

/// The registered pipelines.
struct Fleet {
    socket: PathBuf,
    members: Vec<Member>,
}

struct Member {
    name: String,
    report: ReportPage,
    page: PageReader,
}

/// How long a change took from its decision on.
struct Turn {
    page: Nanos,
    watcher: Nanos,
}

impl Fleet {
    /// A registration is answered when the run loop has taken it up, which is at its next tick: many at once.
    fn register(args: &BenchReactionArgs, directory: &Path) -> Result<Self> {
        let names: Vec<String> =
            (0..args.pipelines.max(WATCHED)).map(|number| format!("reaction-{number:03}")).collect();
        let mut members = Vec::new();
        for some in names.chunks(AT_ONCE) {
            members.extend(thread::scope(|scope| {
                let started: Vec<_> =
                    some.iter().map(|name| scope.spawn(|| Member::register(&args.socket, directory, name))).collect();
                let joined = started.into_iter().map(thread::ScopedJoinHandle::join);
                joined
                    .map(|member| member.unwrap_or_else(|_panic| bail!("a registering thread panicked")))
                    .collect::<Result<Vec<_>>>()
            })?);
        }
        Ok(Self { socket: args.socket.clone(), members })
    }

    /// Every pipeline reports ten times a second, as it would.
    fn report_until(&self, over: &AtomicBool) {
        while !over.load(Ordering::Relaxed) {
            for Member { report, .. } in &self.members {
                report.add(ReportWord::EventsIn, 500);
                report.add(ReportWord::BytesIn, 500 * 512);
                report.add(ReportWord::EventsOut, 500);
                report.add(ReportWord::BytesOut, 500 * 512);
                report.add(ReportWord::Flushes, 1);
                report.add(ReportWord::FlushesByAge, 1);
                report.add(ReportWord::FlushNs, 3_000_000);
                report.latency(Nanos::from_millis(20), 500);
                report.touch();
            }
            sleep(TICK);
        }
    }

    fn rounds(&self, rounds: usize) -> Result<(Vec<Nanos>, Vec<Turn>)> {
        // From all over the fleet: the agent takes its pipelines up in the order of their names.
        let watched: Vec<&Member> = self.members.iter().step_by(self.members.len() / WATCHED).take(WATCHED).collect();
        let streams = |what: &str| -> Result<Vec<Receiver<Result<Event>>>> {
            watched
                .iter()
                .map(|member| follow(&self.socket, &format!("/v1/pipelines/{}/{what}", member.name)))
                .collect()
        };
        let (signals, settings) = (streams("signals")?, streams("settings")?);
        let (mut seen, mut turned) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let i = round % watched.len();
            // Not in step with the agent's ticks.
            sleep(Nanos::from_millis(20 + (37 * round as u64) % 100));
            seen.push(see(watched[i], &signals[i])?);
            turned.push(self.turn(watched[i], &settings[i], round)?);
        }
        Ok((seen, turned))
    }

    /// A human pins other settings: the decision that follows is timed on its way.
    fn turn(&self, member: &Member, events: &Receiver<Result<Event>>, round: usize) -> Result<Turn> {
        drain(events);
        let before = member.page.read().context("read a page")?.generation;
        let path = format!("/v1/pipelines/{}", member.name);
        let body = format!(r#"{{"batch_bytes": {}, "ttl_s": 600}}"#, 8_192 + 64 * (round as u64 % 1_000));
        thread::scope(|scope| {
            let pin = scope.spawn(|| ask(&self.socket, "PUT", &format!("{path}/override"), &body));
            let deadline = clock::monotonic() + PATIENCE.into();
            let (generation, on_page) = loop {
                let now = member.page.read().context("read a page")?.generation;
                if now != before {
                    break (now, clock::monotonic());
                }
                if clock::monotonic() > deadline {
                    bail!("the page of {} did not change", member.name);
                }
                sleep(Nanos::from_micros(20));
            };
            let heard = loop {
                let event = hear(events)?;
                if event.data["generation"].as_u64() >= Some(generation) {
                    break event.at;
                }
            };
            pin.join().map_err(|_panic| anyhow::anyhow!("the pinning thread panicked"))??;
            let decisions = ask(&self.socket, "GET", &format!("{path}/decisions"), "")?;
            let decided = decisions.as_array().into_iter().flatten().find(|d| d["generation"] == generation);
            let decided = Nanos(decided.and_then(|d| d["time_ns"].as_u64()).context("the decision is not told")?);
            Ok(Turn { page: on_page - decided, watcher: heard - decided })
        })
    }
}

impl Member {
    fn register(socket: &Path, directory: &Path, name: &str) -> Result<Self> {
        let report = ReportPage::create(directory, name).context("make a report page")?;
        report.set(ReportWord::QueueCapacity, CAPACITY);
        let registration = Registration {
            mode: Mode::Observe,
            report: Some(report.path().to_owned()),
            lease: LeaseTerms { ttl_ms: 3_000, ..LeaseTerms::default() },
            ..Registration::new(Knobs::default())
        };
        let deadline = clock::monotonic() + PATIENCE.into();
        let reply: RegistrationReply = loop {
            match contact::register(socket, name, &registration) {
                Ok(reply) => break reply,
                // An agent that has just started loads its probes first.
                Err(contact::ContactError::Io { .. }) if clock::monotonic() < deadline => sleep(TICK),
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("register {name} (run as root, against an agent of its own)"));
                }
            }
        };
        let page = PageReader::open(&reply.settings_page).context("open a settings page")?;
        Ok(Self { name: name.to_owned(), report, page })
    }
}

/// A queue fills at a stroke; the agent has seen it when a watcher of its signals has.
fn see(member: &Member, signals: &Receiver<Result<Event>>) -> Result<Nanos> {
    let full = CAPACITY / 100 * 85;
    drain(signals);
    member.report.set(ReportWord::QueueBytes, full);
    let filled = clock::monotonic();
    let seen = loop {
        let event = hear(signals)?;
        if event.data["queue_bytes"].as_u64() == Some(full) {
            break event.at;
        }
    };
    member.report.set(ReportWord::QueueBytes, 0);
    Ok(seen - filled)
}

/// The flusher takes a queue that is four fifths full as soon as the flush before is acknowledged, on another thread.
fn panic_flushes(rounds: usize) -> Result<Vec<Nanos>> {
    let settings = Settings { batch: Bytes(1 << 30), interval: Nanos::from_millis(3_600_000) };
    let options = Options {
        source: Source::Own(settings),
        rule: Box::new(L0::by_settings(Bytes(1 << 30))),
        capacity: Bytes(1_000_000),
        report: None,
    };
    let batcher: Batcher<u32> = Batcher::new(options)?;
    let (out, flushes) = sync_channel(1);
    let of_flusher = batcher.clone();
    let taker = thread::spawn(move || {
        while let Some(batch) = of_flusher.next_batch() {
            if out.send((clock::monotonic(), batch)).is_err() {
                break;
            }
        }
    });
    let fill =
        || (0..850).try_for_each(|n| batcher.push(n, Bytes(1_000)).map_err(|_panic| anyhow::anyhow!("it is closed")));
    fill()?;
    let mut in_flight = flushes.recv_timeout(PATIENCE).context("the first flush")?.1;
    let mut spans = Vec::new();
    for _ in 0..rounds {
        fill()?;
        // The sink takes its time: the flusher sleeps by now.
        sleep(Nanos::from_millis(5));
        let free = clock::monotonic();
        in_flight.acknowledge();
        let (began, next) = flushes.recv_timeout(PATIENCE).context("a flush")?;
        if next.cause() != Cause::Panic {
            bail!("a full queue was flushed because of {:?}", next.cause());
        }
        spans.push(began - free);
        in_flight = next;
    }
    in_flight.acknowledge();
    batcher.close();
    drop(flushes);
    taker.join().map_err(|_panic| anyhow::anyhow!("the flusher panicked"))?;
    Ok(spans)
}

/// Events of a stream, as they come, stamped by a thread that does nothing else. It ends with the stream, or with its
/// listener at the next event.
fn follow(socket: &Path, path: &str) -> Result<Receiver<Result<Event>>> {
    let mut events = Events::open(socket, path)?;
    let (tell, told) = sync_channel(1_024);
    thread::spawn(move || {
        // A stream that breaks off says why as its last word.
        loop {
            let event = events.next();
            let ended = event.is_err();
            if tell.send(event).is_err() || ended {
                return;
            }
        }
    });
    Ok(told)
}

fn hear(events: &Receiver<Result<Event>>) -> Result<Event> {
    match events.recv_timeout(PATIENCE) {
        Ok(event) => event,
        Err(RecvTimeoutError::Timeout) => bail!("no event came within {} s", PATIENCE.as_secs()),
        Err(RecvTimeoutError::Disconnected) => bail!("the stream has ended"),
    }
}

fn drain(events: &Receiver<Result<Event>>) {
    while events.try_recv().is_ok() {}
}
