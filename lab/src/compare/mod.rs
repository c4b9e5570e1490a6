//! Flush policies side by side: a sink, a pipeline and a load for each, all at once, one table at the end. Leaves no
//! process and no file behind, however it ends.

mod children;
mod report;
mod table;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tidegate_client::{Nanos, clock, contact};

use crate::cli::CompareArgs;
use crate::load::LoadReport;
use crate::load::schedule::Schedule;
use crate::out::{json_file, text};
use crate::pipeline::policy::Policy;
use crate::pipeline::{Started, Stats};
use crate::sink::{Listening, Received};
use crate::stop::Stop;
use crate::time::as_ms;
use children::Part;
use report::{Measured, Report, pipeline_report, tuned_against_fixed};

/// From the start of the last process to the first record.
const SETTLE: Nanos = Nanos::from_millis(500);
/// The agent must have taken up the tuned pipeline by then.
const REGISTER_PATIENCE: Nanos = Nanos::from_millis(10_000);
/// The loads give up by themselves before this.
const DRAIN: Nanos = Nanos::from_millis(30_000);
const LOOK: Nanos = Nanos::from_millis(200);

/// One policy and its three processes. Fields end in this order: the load first, the sink last.
struct Lane {
    policy: Policy,
    name: String,
    load: Option<Part>,
    pipeline: Part,
    sink: Part,
    connect: String,
    edges: Vec<Stats>,
}

/// Runs the comparison and prints its table.
pub(crate) fn run(args: &CompareArgs) -> Result<()> {
    let stop = Stop::listen()?;
    let policies = distinct(&args.policies);
    let socket = args.socket.clone().unwrap_or_else(contact::default_socket);
    if policies.iter().any(|p| p.of_agent().is_some()) {
        contact::health(&socket).context(
            "policies regime and model: no agent answers (start `tidegate agent`, name its socket with --socket, or leave it out \
             with --policies fixed,greedy,l0)",
        )?;
    }
    let directory = Scratch::create(&args.dir)?;
    let mut lanes = Vec::new();
    for policy in policies {
        lanes.push(Lane::start(policy, args, &directory.0, &socket)?);
    }
    wait_for_agent(&mut lanes, &stop)?;

    let schedule = Schedule::new(args.phases.0.clone());
    let start = clock::monotonic() + SETTLE;
    for lane in &mut lanes {
        lane.start_load(args, start)?;
    }
    let begin = start + args.warmup;
    let cpu = watch(&mut lanes, &schedule, begin, &stop)?;
    let wall = schedule.end();
    let pipelines = lanes.into_iter().map(|lane| lane.finish(&stop)).collect::<Result<Vec<_>>>()?;
    let report = Report {
        phases: args.phases.to_string(),
        record_bytes: args.record_bytes,
        sink_delay_ms: as_ms(args.sink_delay),
        warmup_s: as_ms(args.warmup) / 1e3,
        cores_used: as_ms(cpu) / as_ms(wall),
        tuned_against_fixed: tuned_against_fixed(&pipelines),
        pipelines,
    };
    if let Some(path) = &args.json {
        json_file(path, &report)?;
    }
    text(&table::render(&report))?;
    let missing: u64 = report.pipelines.iter().map(|p| p.load.missing + p.received.sequence_gaps.unwrap_or(0)).sum();
    if missing > 0 {
        bail!("{missing} records were not acknowledged, or never reached the sink");
    }
    Ok(())
}

fn distinct(policies: &[Policy]) -> Vec<Policy> {
    let mut seen = Vec::new();
    for policy in policies {
        if !seen.contains(policy) {
            seen.push(*policy);
        }
    }
    seen
}

/// A directory of this run's own, gone with it.
struct Scratch(PathBuf);

impl Scratch {
    fn create(parent: &std::path::Path) -> Result<Self> {
        let path = parent.join(format!("lab-compare-{}", std::process::id()));
        fs::create_dir_all(parent)
            .and_then(|()| fs::create_dir(&path))
            .with_context(|| format!("create {} (name a directory of yours with --dir)", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed was made unremovable by somebody else.
        fs::remove_dir_all(&self.0).ok();
    }
}

impl Lane {
    fn start(
        policy: Policy,
        args: &CompareArgs,
        directory: &std::path::Path,
        socket: &std::path::Path,
    ) -> Result<Self> {
        let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let us = |n: Nanos| format!("{}us", n.as_micros());
        let sink_args = words(&["sink", "--listen", "127.0.0.1:0", "--verify", "--delay", &us(args.sink_delay)]);
        let mut sink = Part::start(format!("the sink of {policy}"), &sink_args)?;
        let flush_to: Listening = sink.line()?;
        let (name, policy_word) = (format!("lab-{policy}"), policy.to_string());
        let mut pipeline_args = words(&["pipeline", "--listen", "127.0.0.1:0", "--sink", &flush_to.listening]);
        pipeline_args.extend(words(&["--policy", &policy_word, "--name", &name, "--stats-on-stdin"]));
        pipeline_args.extend(words(&["--report-dir", &directory.to_string_lossy()]));
        if policy.of_agent().is_some() {
            let (ttl, hold) = (args.lease_ttl_ms.to_string(), args.lease_hold_ms.to_string());
            pipeline_args.extend(words(&["--lease-ttl-ms", &ttl, "--lease-hold-ms", &hold]));
            pipeline_args.extend(words(&["--socket", &socket.to_string_lossy()]));
        }
        let mut pipeline = Part::start(format!("pipeline {name}"), &pipeline_args)?;
        let started: Started = pipeline.line()?;
        Ok(Self { policy, name, load: None, pipeline, sink, connect: started.listening, edges: Vec::new() })
    }

    fn start_load(&mut self, args: &CompareArgs, start: Nanos) -> Result<()> {
        let words = [
            ("--connect", self.connect.clone()),
            ("--phases", args.phases.to_string()),
            ("--warmup", format!("{}us", args.warmup.as_micros())),
            ("--record-bytes", args.record_bytes.to_string()),
            ("--drain", format!("{}us", DRAIN.as_micros())),
            ("--start-at", start.0.to_string()),
            ("--json", "-".to_owned()),
        ];
        let mut load_args = vec!["load".to_owned()];
        load_args.extend(words.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]));
        self.load = Some(Part::start(format!("the load of {}", self.policy), &load_args)?);
        Ok(())
    }

    /// Takes the load's report, drains the pipeline, ends the sink.
    fn finish(mut self, stop: &Stop) -> Result<report::PipelineReport> {
        let mut load = self.load.take().context("a lane has a load")?;
        let load_report: LoadReport = load.line_unless(stop)?;
        while !load.has_ended()? {
            pause(stop, clock::monotonic() + Nanos::from_millis(5))?;
        }
        self.pipeline.terminate()?;
        let last: Stats = self.pipeline.line()?;
        self.pipeline.wait()?;
        self.sink.terminate()?;
        let received: Received = self.sink.line()?;
        self.sink.wait()?;
        let measured = Measured { load: load_report, edges: self.edges, last, received };
        Ok(pipeline_report(self.policy, self.name, self.pipeline.pid(), measured))
    }
}

/// Waits, and gives up when a stop is wanted: what unwinds from here ends every process and removes every file.
fn pause(stop: &Stop, until: Nanos) -> Result<()> {
    if stop.wait_until(until)? {
        bail!("interrupted");
    }
    Ok(())
}

/// A tuned pipeline that the agent does not tune would be measured under a false name.
fn wait_for_agent(lanes: &mut [Lane], stop: &Stop) -> Result<()> {
    for lane in lanes.iter_mut().filter(|l| l.policy.of_agent().is_some()) {
        let end = clock::monotonic() + REGISTER_PATIENCE;
        loop {
            let tuning =
                lane.pipeline.ask::<Stats>()?.tuning.context("a tuned pipeline tells where its tuning stands")?;
            if tuning.state == "connected" {
                break;
            }
            if clock::monotonic() >= end {
                bail!("the agent does not take up {}: {} ({})", lane.name, tuning.state, tuning.cause);
            }
            pause(stop, clock::monotonic() + LOOK)?;
        }
    }
    Ok(())
}

/// Takes the counters of every pipeline at every edge between phases; returns the CPU time of all processes meanwhile.
fn watch(lanes: &mut [Lane], schedule: &Schedule, begin: Nanos, stop: &Stop) -> Result<Nanos> {
    let mut edges: Vec<Nanos> = schedule.begins().iter().map(|b| begin + *b).collect();
    edges.push(begin + schedule.end());
    let bar = progress(schedule);
    let mut cpu_at_begin = Nanos(0);
    for (i, edge) in edges.iter().enumerate() {
        while clock::monotonic() < *edge {
            pause(stop, (clock::monotonic() + LOOK).min(*edge))?;
            bar.set_position((clock::monotonic() - begin).0 / 1_000_000);
            for lane in &mut *lanes {
                if let Some(load) = &mut lane.load
                    && load.has_ended()?
                {
                    // One that has all its acknowledgements may end a little before its last phase does.
                    load.wait()?;
                }
            }
        }
        if let Some(phase) = schedule.phases().get(i) {
            bar.set_message(format!("{} records/s", phase.rate));
        }
        for lane in &mut *lanes {
            let stats: Stats = lane.pipeline.ask()?;
            if let Some(tuning) = stats.tuning.as_ref().filter(|t| t.state != "connected") {
                bar.suspend(|| {
                    crate::out::note(&format!("{}: the agent is lost: {} ({})", lane.name, tuning.state, tuning.cause));
                });
            }
            lane.edges.push(stats);
        }
        if i == 0 {
            cpu_at_begin = cpu_of(lanes);
        }
    }
    bar.set_message("waiting for the last acknowledgements");
    let cpu = cpu_of(lanes) - cpu_at_begin;
    bar.finish_and_clear();
    Ok(cpu)
}

/// CPU time so far of all processes of all lanes, from the kernel's own account in hundredths of a second.
fn cpu_of(lanes: &[Lane]) -> Nanos {
    let ticks = |pid: u32| -> Option<u64> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in brackets may hold anything, so fields are counted from its end.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
        Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
    };
    let pids = lanes.iter().flat_map(|l| {
        [Some(l.sink.pid()), Some(l.pipeline.pid()), l.load.as_ref().map(Part::pid)].into_iter().flatten()
    });
    Nanos(pids.filter_map(ticks).sum::<u64>() * 10_000_000)
}

/// Progress, on a terminal only.
fn progress(schedule: &Schedule) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(schedule.end().0 / 1_000_000), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {percent:>3} % {msg}, {eta} left") {
        bar.set_style(style);
    }
    bar
}
