//! A lane while it runs: a job in, its processes started, watched and ended, what they measured out. Leaves no process
//! behind, however it ends.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tidegate_client::{Nanos, clock};

use super::children::Part;
use super::cpu::Cpus;
use super::job::{Downstream, Job};
use crate::load::LoadReport;
use crate::pipeline::policy::Policy;
use crate::pipeline::{Started, Stats};
use crate::sink::{Listening, Received};
use crate::stop::Stop;

/// The agent must have taken up a pipeline by then.
const REGISTER_PATIENCE: Nanos = Nanos::from_millis(10_000);
const LOOK: Nanos = Nanos::from_millis(100);

/// What a lane measured.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    /// What the report calls it.
    pub(crate) label: String,
    /// How it flushed.
    pub(crate) policy: Policy,
    /// Name of the pipeline.
    pub(crate) name: String,
    /// Its process.
    pub(crate) pid: u32,
    /// What the load saw.
    #[serde(skip)]
    pub(crate) load: LoadReport,
    /// Records due and never acknowledged.
    pub(crate) missing: u64,
    /// Counters at each mark of the job.
    #[serde(skip)]
    pub(crate) marks: Vec<Stats>,
    /// Counters after the drain.
    pub(crate) last: Stats,
    /// What arrived at the sink, if it counts.
    pub(crate) received: Option<Received>,
}

/// One job and its processes. Fields end in this order: the load first, the sink last.
pub(crate) struct Lane {
    pub(crate) job: Job,
    name: String,
    load: Option<Part>,
    pipeline: Part,
    sink: Option<Part>,
    connect: String,
    marks: Vec<Stats>,
}

/// What it means when a pipeline could not drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failing {
    /// It was asked for more than it can do: counts as records missing.
    Counts,
    /// Something is wrong.
    Tells,
}

/// Where lanes live.
pub(crate) struct Place<'a> {
    /// Directory for report pages and files.
    pub(crate) directory: &'a Path,
    /// The agent's socket.
    pub(crate) socket: &'a Path,
    /// Processors, where there is more than one.
    pub(crate) cpus: Option<&'a Cpus>,
    /// Flushes go there for a downstream that is a server.
    pub(crate) server: Option<&'a str>,
}

fn on(cpus: Option<&str>, words: Vec<String>) -> Vec<String> {
    let pin = cpus.map(|list| ["--cpus".to_owned(), list.to_owned()]).into_iter().flatten();
    pin.chain(words).collect()
}

impl Lane {
    /// Starts sink and pipeline; the first phase will begin at `begin`.
    pub(crate) fn start(job: Job, name: String, begin: Nanos, place: &Place<'_>) -> Result<Self> {
        let label = &job.label;
        let (pipelines, loads) = (place.cpus.map(|c| c.pipelines.as_str()), place.cpus.map(|c| c.loads.as_str()));
        let mut sink = match job.sink_words(begin) {
            Some(words) => Some(Part::start(format!("the sink of {label}"), &on(loads, words))?),
            None => None,
        };
        let target = match (&mut sink, &job.downstream) {
            (Some(sink), _) => sink.line::<Listening>()?.listening,
            (None, Downstream::Server(kind)) => {
                place.server.with_context(|| format!("{kind} was not started"))?.to_owned()
            }
            (None, _) => format!("file:{}", place.directory.join(format!("{name}.out")).display()),
        };
        let words = job.pipeline_words(&name, &target, place.directory, place.socket);
        let mut pipeline = Part::start(format!("pipeline {name}"), &on(pipelines, words))?;
        let started: Started = pipeline.line()?;
        if !job.switches.is_empty() {
            pipeline.tell::<Stats>(&job.switches_from(begin))?;
        }
        Ok(Self { job, name, load: None, pipeline, sink, connect: started.listening, marks: Vec::new() })
    }

    /// Waits until the agent sets its knobs: a pipeline that it does not tune would be measured under a false name.
    pub(crate) fn wait_for_agent(&mut self, stop: &Stop) -> Result<()> {
        if self.job.policy.of_agent().is_none() {
            return Ok(());
        }
        let end = clock::monotonic() + REGISTER_PATIENCE;
        loop {
            let stats: Stats = self.pipeline.ask()?;
            let tuning = stats.tuning.context("a pipeline of the agent tells where its tuning stands")?;
            if tuning.state == "connected" {
                return Ok(());
            }
            if clock::monotonic() >= end {
                bail!("the agent does not take up {}: {} ({})", self.name, tuning.state, tuning.cause);
            }
            pause(stop, clock::monotonic() + LOOK)?;
        }
    }

    pub(crate) fn start_load(&mut self, start: Nanos, cpus: Option<&Cpus>) -> Result<()> {
        let words = on(cpus.map(|c| c.loads.as_str()), self.job.load_words(&self.connect, start));
        self.load = Some(Part::start(format!("the load of {}", self.job.label), &words)?);
        Ok(())
    }

    /// Reads its counters; says when the agent was lost.
    pub(crate) fn mark(&mut self) -> Result<Option<String>> {
        let stats: Stats = self.pipeline.ask()?;
        let lost = stats.tuning.as_ref().filter(|t| t.state != "connected");
        let lost = lost.map(|t| format!("{}: the agent is lost: {} ({})", self.name, t.state, t.cause));
        self.marks.push(stats);
        Ok(lost)
    }

    /// An error when its load has failed before its time.
    pub(crate) fn look(&mut self) -> Result<()> {
        let Some(load) = &mut self.load else { return Ok(()) };
        // One that has all its acknowledgements may end a little before its last phase does.
        if load.has_ended()? { load.wait() } else { Ok(()) }
    }

    /// Takes the load's report, drains the pipeline, ends the sink.
    pub(crate) fn finish(mut self, stop: &Stop, directory: &Path, failing: Failing) -> Result<Outcome> {
        let mut load = self.load.take().context("a lane has a load")?;
        let report: LoadReport = load.line_unless(stop)?;
        while !load.has_ended()? {
            pause(stop, clock::monotonic() + Nanos::from_millis(5))?;
        }
        self.pipeline.terminate()?;
        let last: Stats = self.pipeline.line()?;
        let pid = self.pipeline.pid();
        if let (Err(error), Failing::Tells) = (self.pipeline.wait(), failing) {
            return Err(error);
        }
        let received = match &mut self.sink {
            None => None,
            Some(sink) => {
                sink.terminate()?;
                let received: Received = sink.line()?;
                sink.wait()?;
                Some(received)
            }
        };
        if self.job.downstream == Downstream::File {
            let file = directory.join(format!("{}.out", self.name));
            std::fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
        }
        let missing = report.missing + received.as_ref().and_then(|r| r.sequence_gaps).unwrap_or(0);
        Ok(Outcome {
            label: self.job.label,
            policy: self.job.policy,
            name: self.name,
            pid,
            load: report,
            missing,
            marks: self.marks,
            last,
            received,
        })
    }
}

/// Waits, and gives up when a stop is wanted: what unwinds from here ends every process and removes every file.
pub(crate) fn pause(stop: &Stop, until: Nanos) -> Result<()> {
    if stop.wait_until(until)? {
        bail!("interrupted");
    }
    Ok(())
}
