//! The load generator: a schedule in, records to a pipeline or statements to a database, latencies out. Open loop: a
//! latency runs from the time a record was due to its acknowledgement, so a sender that is held up counts in full.

pub(crate) mod args;
mod arrivals;
mod interval_log;
pub(crate) mod latency;
mod law;
mod live;
mod payload;
mod plot;
mod random;
mod records;
mod report;
pub(crate) mod schedule;
mod sizes;
mod spec;
mod statements;
mod trace;

use anyhow::{Context, Result, bail};
use tidegate_client::{Nanos, clock};

use crate::net::Stream;
use crate::out::json_file;
use crate::parent::take_name;
use crate::servers::contact::PostgresAt;
use crate::stop::Stop;
use crate::time::as_ms;
use args::LoadArgs;
use interval_log::IntervalLog;
use latency::{Keep, Latencies, Weighting};
use law::{Law, Segment};
use live::Live;
use plot::Picture;
pub(crate) use report::{LoadReport, PhaseReport};
use schedule::{Phase, Schedule};
use statements::Ready;

/// From the last preparation to the first record.
const SETTLE: Nanos = Nanos::from_millis(50);

/// What is to be done, and when.
pub(crate) struct Plan<'a> {
    schedule: &'a Schedule,
    seed: u64,
    /// Records due within this span go out in one write.
    coalesce: Nanos,
    /// Of the schedule, on the monotonic clock.
    begin: Nanos,
    /// Nothing is waited for beyond this.
    deadline: Nanos,
}

/// What has been measured so far.
struct Outcome {
    latencies: Latencies,
    sent: u64,
    sent_bytes: u64,
    acknowledged: u64,
    worst_send_delay: Nanos,
}

enum Target {
    Pipeline(Stream),
    Postgres(Vec<Ready>),
}

/// Sends, measures, prints.
pub(crate) fn run(args: &LoadArgs) -> Result<()> {
    take_name("lab-load");
    Stop::let_be()?;
    let (schedule, measured_from) = schedule(args)?;
    let target = match (&args.connect, &args.postgres) {
        (Some(address), _) => Target::Pipeline(records::connect(address)?),
        (None, Some(at)) => {
            let sql = args.statement.as_deref().context("--postgres wants a --statement")?;
            Target::Postgres(statements::connect(&PostgresAt::parse(at), sql, args.connections)?)
        }
        (None, None) => bail!("name a pipeline with --connect, or a server with --postgres"),
    };
    let what = args.traffic.as_ref().map_or_else(|| args.phases.to_string(), ToString::to_string);
    let log = args.hlog.as_deref().map(|path| IntervalLog::create(path, &what, measured_from)).transpose()?;
    let begin = args.start_at.map_or_else(|| clock::monotonic() + SETTLE, Nanos);
    let deadline = begin + schedule.end() + args.drain;
    let plan = Plan { schedule: &schedule, seed: args.seed, coalesce: args.coalesce, begin, deadline };
    let keep = if args.slices { Keep::Slices } else { Keep::Phases };
    let latencies = Latencies::new(&schedule, keep).logged(log);
    let nothing = Outcome { latencies, sent: 0, sent_bytes: 0, acknowledged: 0, worst_send_delay: Nanos(0) };
    let live = Live::new(&plan);
    let mut outcome = match target {
        Target::Pipeline(stream) => records::run(&plan, &args.record_bytes, stream, live, nothing)?,
        Target::Postgres(ready) => statements::run(&plan, ready, live, nothing)?,
    };
    outcome.latencies.finish(&schedule)?;
    let report = report_of(args, &plan, &outcome, measured_from);
    if let Some(path) = &args.hdr {
        report::write_distribution(path, &outcome.latencies.merged(|phase| phase >= measured_from))?;
    }
    if let Some(path) = &args.plot {
        let (seconds, all) = (outcome.latencies.seconds(), &outcome.latencies.merged(|phase| phase >= measured_from));
        let picture = Picture { title: &what, schedule: &schedule, measured_from, seconds, all, report: &report };
        picture.write(path)?;
    }
    match &args.json {
        Some(path) => json_file(path, &report)?,
        None => report::print(&report)?,
    }
    if report.missing > 0 {
        bail!(
            "{} of {} records not acknowledged within {} ms after the last was due (is the other side overloaded? see \
             --drain)",
            report.missing,
            report.scheduled,
            args.drain.0 / 1_000_000
        );
    }
    Ok(())
}

/// All that is due, and which phase is the first that is measured.
fn schedule(args: &LoadArgs) -> Result<(Schedule, usize)> {
    let mut segments = match &args.traffic {
        Some(traffic) => traffic.0.clone(),
        None => Schedule::new(args.phases.0.clone()).segments().to_vec(),
    };
    let mut measured_from = 0;
    if args.warmup > Nanos(0) {
        // Laws may begin with a silence, or with what is to be measured; a warm-up goes at the rate that comes out of them.
        let first = segments.first().context("a schedule of at least one phase")?.clone();
        let rate = Schedule::of(vec![first], args.seed).phases()[0].rate.max(1);
        let warmup = Schedule::new(vec![Phase { rate, span: args.warmup }]).segments()[0].clone();
        segments.insert(0, warmup);
        measured_from = 1;
    }
    let schedule = Schedule::of(segments, args.seed);
    if schedule.records() == 0 {
        bail!("nothing is due in this load (a higher rate, or a longer span)");
    }
    Ok((schedule, measured_from))
}

fn report_of(args: &LoadArgs, plan: &Plan<'_>, outcome: &Outcome, measured_from: usize) -> LoadReport {
    let (schedule, latencies) = (plan.schedule, &outcome.latencies);
    let law = |segment: &Segment| match segment.law {
        Law::Even { .. } => None,
        _ => Some(segment.text.clone()),
    };
    let phase = |i: usize| PhaseReport {
        traffic: law(&schedule.segments()[i]),
        rate: schedule.phases()[i].rate,
        seconds: as_ms(schedule.phases()[i].span) / 1e3,
        scheduled: schedule.records_of(i),
        latency: latencies.summary(Weighting::ByEvent, |phase| phase == i),
    };
    LoadReport {
        begin_ns: (plan.begin + args.warmup).0,
        record_bytes: usize::try_from(outcome.sent_bytes / outcome.sent.max(1)).unwrap_or(usize::MAX),
        phases: (measured_from..schedule.phases().len()).map(phase).collect(),
        by_event: latencies.summary(Weighting::ByEvent, |phase| phase >= measured_from),
        by_time: latencies.summary(Weighting::ByTime, |phase| phase >= measured_from),
        slices: latencies.slices(measured_from),
        scheduled: schedule.records(),
        sent: outcome.sent,
        acknowledged: outcome.acknowledged,
        missing: schedule.records() - outcome.acknowledged,
        worst_send_delay_ms: as_ms(outcome.worst_send_delay),
    }
}
