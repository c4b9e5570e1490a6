//! The reference pipeline: records come in over a socket, pass a bounded queue, and go out compressed to a sink, one
//! flush in flight; what the sink has is acknowledged to the sender. Loses nothing that it has taken in.

mod counters;
mod flush;
mod intake;
mod outlet;
pub(crate) mod policy;
pub(crate) mod rules;

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tidegate_client::abi::{Caps, Goal, KnobRange, Knobs, LeaseTerms, Mode, Objective, OnExpiry, Registration};
use tidegate_client::rule::{L0, Rule};
use tidegate_client::{Batcher, Bytes, Nanos, Options, ReportPage, Settings, Source, Tuner, contact};

use counters::Counters;
pub(crate) use counters::{Stats, Tuning};
use flush::Flusher;
use intake::{Connections, Record, accept_connections};
use outlet::SinkTarget;
use policy::{DEFAULT_INTERVAL, DEFAULT_RECORDS, FIXED, Policy};
use rules::{Greedy, Plain, Scheduled, Switch, Switches};

use crate::cli::PipelineArgs;
use crate::net::{Address, Listener};
use crate::out::{json_line, note};
use crate::parent::take_name;
use crate::stop::{Stop, Woken};

/// First line of a pipeline.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Started {
    /// Address to connect to.
    pub(crate) listening: String,
    /// Its process.
    pub(crate) pid: u32,
    /// Its name.
    pub(crate) name: String,
    /// Its policy.
    pub(crate) policy: Policy,
}

/// Runs until it is told to stop, then drains.
pub(crate) fn run(args: &PipelineArgs) -> Result<()> {
    take_name(&format!("lab-{}", args.policy));
    let stop = Stop::listen()?;
    let target = SinkTarget::parse(&args.sink)?;
    let Made { batcher, tuner, report, switches } = make_batcher(args)?;
    let flusher = Flusher::open(target, &args.name)?;
    let listener = Listener::bind(&args.listen)?;
    let address = listener.address()?;
    let (counters, connections) = (Arc::<Counters>::default(), Arc::<Connections>::default());

    // One message at most: the end of the flusher.
    let (flusher_ended, ended) = sync_channel(1);
    let (of_flusher, of_acks, of_counters) = (batcher.clone(), Arc::clone(&connections), Arc::clone(&counters));
    thread::Builder::new().name("lab-flush".into()).spawn(move || {
        let result = flusher.run(&of_flusher, &of_acks, &of_counters);
        // Nobody listens any more only when the process is on its way out.
        flusher_ended.send(result).ok();
    })?;
    let (of_accept, of_counters, of_batcher) = (Arc::clone(&connections), Arc::clone(&counters), batcher.clone());
    thread::Builder::new()
        .name("lab-accept".into())
        .spawn(move || accept_connections(&listener, &of_accept, &of_batcher, &of_counters))?;
    let (listening, pid, name) = (address.to_string(), std::process::id(), args.name.clone());
    json_line(&Started { listening, pid, name, policy: args.policy })?;

    let stats = || {
        let reading = batcher.reading();
        Stats {
            batch_bytes: reading.settings.batch.0,
            flush_interval_us: reading.settings.interval.as_micros(),
            generation: reading.generation,
            tuning: tuner.as_ref().map(Tuning::of),
            ..counters.stats()
        }
    };
    serve_stats(args, &stop, &ended, &switches, &stats)?;
    connections.end_reading();
    batcher.close();
    let drained = ended.recv_timeout(args.drain.into());
    if let Address::Unix(path) = &address {
        // The accepting thread still owns the listener; the file goes now, the rest with the process.
        std::fs::remove_file(path).ok();
    }
    json_line(&stats())?;
    if let Some(path) = report {
        // The accepting thread holds on to the batcher and its page; a page that is gone already needs no removing.
        std::fs::remove_file(path).ok();
    }
    match drained {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => {
            let left = counters.stats();
            bail!(
                "drain: {} records not acknowledged by the sink after {} ms (is the sink alive? see --drain)",
                left.events_in - left.events_out,
                args.drain.0 / 1_000_000
            )
        }
        Err(RecvTimeoutError::Disconnected) => bail!("the flushing thread panicked"),
    }
}

/// Answers requests for counters until a stop is wanted. A line may carry new switches for the policy `schedule`.
fn serve_stats(
    args: &PipelineArgs,
    stop: &Stop,
    ended: &Receiver<Result<()>>,
    switches: &Switches,
    stats: &dyn Fn() -> Stats,
) -> Result<()> {
    let stdin = std::io::stdin();
    let mut asked = args.stats_on_stdin;
    let mut pending = Vec::new();
    loop {
        let other = asked.then(|| stdin.as_fd());
        match stop.wait_or(other, None)? {
            Woken::Stop => return Ok(()),
            Woken::Time => {}
            Woken::Other => {
                let mut chunk = [0; 4096];
                // Past the buffer of the library: what lies there would not make the descriptor readable.
                let n = rustix::io::read(stdin.as_fd(), &mut chunk).context("read standard input")?;
                asked = n > 0;
                pending.extend_from_slice(&chunk[..n]);
                while let Some(end) = pending.iter().position(|b| *b == b'\n') {
                    let line: Vec<u8> = pending.drain(..=end).collect();
                    if line.trim_ascii() != b"" {
                        let new: Vec<Switch> = serde_json::from_slice(&line).context("read the switches")?;
                        switches.set(new);
                    }
                    json_line(&stats())?;
                }
            }
        }
        if let Ok(result) = ended.try_recv() {
            result?;
            bail!("the flushing thread ended early");
        }
    }
}

struct Made {
    batcher: Batcher<Record>,
    tuner: Option<Tuner>,
    report: Option<PathBuf>,
    switches: Switches,
}

fn make_batcher(args: &PipelineArgs) -> Result<Made> {
    let (batch, batch_max) = (Bytes(args.batch), Bytes(args.batch_max));
    let report = match &args.report_dir {
        None => None,
        Some(directory) => {
            let directory = directory.canonicalize().with_context(|| format!("report dir {}", directory.display()))?;
            Some(ReportPage::create(&directory, &args.name).context("report page")?)
        }
    };
    let own = Source::Own(Settings { batch, interval: args.interval });
    let options = |rule: Box<dyn Rule>| Options { source: own, rule, ..Options::default() };
    let switches = Switches::default();
    let (options, tuner) = match args.policy {
        Policy::Default => {
            let settings = Settings { batch: Bytes(DEFAULT_RECORDS * args.event_bytes), interval: DEFAULT_INTERVAL };
            (options(Box::new(Plain(settings))), None)
        }
        Policy::Fixed => (options(Box::new(Plain(FIXED))), None),
        Policy::Static(constant) => {
            let source = Source::Own(constant.settings());
            (Options { source, ..options(Box::new(L0::by_settings(batch_max))) }, None)
        }
        Policy::Schedule => {
            let rule = Scheduled { rule: L0::by_settings(batch_max), switches: switches.clone() };
            (options(Box::new(rule)), None)
        }
        Policy::Greedy => (options(Box::new(Greedy { batch_max })), None),
        Policy::Batcher => (options(Box::new(L0::by_settings(batch_max))), None),
        Policy::L0 => (options(Box::new(L0::by_waiting(batch_max))), None),
        Policy::Regime | Policy::Model => {
            let mut registration = registration(args);
            registration.report = report.as_ref().map(|r| r.path().to_owned());
            let socket = args.socket.clone().unwrap_or_else(contact::default_socket);
            let tuner = Tuner::register_at(socket, &args.name, registration).context("register")?;
            if report.is_none() {
                note("tidegate-lab pipeline: no report page: the agent sees less of it (see --report-dir)");
            }
            (Options::tuned(tuner.clone()), Some(tuner))
        }
    };
    let path = report.as_ref().map(|r| r.path().to_owned());
    let batcher = Batcher::new(Options { report, capacity: Bytes(args.queue), ..options })?;
    Ok(Made { batcher, tuner, report: path, switches })
}

fn registration(args: &PipelineArgs) -> Registration {
    let us = |n: Nanos| n.as_micros();
    let knobs = Knobs {
        batch_bytes: KnobRange { min: args.batch_min, max: args.batch_max, default: args.batch },
        flush_interval_us: KnobRange {
            min: us(args.interval_min),
            max: us(args.interval_max),
            default: us(args.interval),
        },
    };
    let lease = LeaseTerms { ttl_ms: args.lease_ttl_ms, hold_ms: args.lease_hold_ms, on_expiry: OnExpiry::Default };
    let caps = Caps { flusher_busy: args.busy_cap, ..Caps::default() };
    let objective = Objective { goal: Goal::Latency, caps, ..Objective::default() };
    let policy = args.policy.of_agent().unwrap_or_default();
    let mode = if args.observe { Mode::Observe } else { Mode::On };
    Registration { mode, policy, objective, lease, ..Registration::new(knobs) }
}
