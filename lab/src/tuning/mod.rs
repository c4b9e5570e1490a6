//! The whole proof in one run: the plans of the tuner's promises in their order, each with its search and its blocks, then
//! the highest rates, the verdicts and the report. Decides nothing about a policy, only whether a figure keeps a promise.

pub(crate) mod plans;
mod verdict;

use anyhow::{Context, Result};
use serde::Serialize;
use tidegate_client::contact;

use crate::cli::TuningArgs;
use crate::compare::blocks::run_blocks;
use crate::compare::digest::{Digest, digest};
use crate::compare::highest::{Highest, highest};
use crate::compare::runner::Runner;
use crate::compare::search::{Found, add_oracle};
use crate::compare::table;
use crate::out::{json_file, text};
use crate::report;
use crate::stop::Stop;
use plans::{BUSY_CAP, Scale, Stage, Study};
pub(crate) use verdict::{Holds, Verdict};

/// One study that ran.
#[derive(Debug, Serialize)]
pub(crate) struct Done {
    pub(crate) stage: Stage,
    pub(crate) digest: Digest,
    /// What the search found, where one ran.
    pub(crate) found: Option<Found>,
}

/// All of it.
#[derive(Debug, Serialize)]
pub(crate) struct Proof {
    /// Whether it was only to try the plumbing by.
    pub(crate) quick: bool,
    pub(crate) machine: Machine,
    pub(crate) verdicts: Vec<Verdict>,
    /// Where tuning does not help, in plain words.
    pub(crate) no_help: Vec<String>,
    pub(crate) studies: Vec<Done>,
    /// Highest rate with a 99th percentile of 50 ms.
    pub(crate) highest: Vec<Highest>,
}

/// Where it ran.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
}

impl Machine {
    pub(crate) fn here() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let info = read("/proc/cpuinfo");
        let model = info.lines().find_map(|l| l.strip_prefix("model name")?.split_once(':'));
        Self {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpu: model.map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned()),
            cpus: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        }
    }
}

/// A comparison that somebody put together, as a proof of one study.
pub(crate) fn of_one(digest: Digest, found: Option<Found>) -> Proof {
    let mut proof = Proof::new(Scale::Full);
    proof.studies.push(Done { stage: Stage::Own, digest, found });
    proof.verdicts = verdict::all(&proof);
    proof.no_help = verdict::no_help(&proof);
    proof
}

impl Proof {
    fn new(scale: Scale) -> Self {
        Self {
            quick: scale == Scale::Quick,
            machine: Machine::here(),
            verdicts: Vec::new(),
            no_help: Vec::new(),
            studies: Vec::new(),
            highest: Vec::new(),
        }
    }
}

/// Runs the studies, prints their tables and the verdicts, writes the report.
pub(crate) fn run(args: &TuningArgs) -> Result<()> {
    let stop = Stop::listen()?;
    let socket = args.socket.clone().unwrap_or_else(contact::default_socket);
    contact::health(&socket).context("no agent answers (start `tidegate agent`, or name its socket with --socket)")?;
    let scale = if args.quick { Scale::Quick } else { Scale::Full };
    let runner = Runner::new(&stop, &args.dir, &socket)?.hurried(plans::time(args.sink, scale));
    let mut proof = Proof::new(scale);
    for stage in Stage::chosen(args.sink) {
        if stage == Stage::Highest {
            proof.highest = highest_rates(&runner, scale)?;
        } else {
            let done = study(&runner, stage, scale)?;
            text(&table::render(&done.digest))?;
            proof.studies.push(done);
        }
        // After every stage, so that what ran is not lost with what did not.
        proof.verdicts = verdict::all(&proof);
        proof.no_help = verdict::no_help(&proof);
        std::fs::create_dir_all(&args.out).with_context(|| format!("create {}", args.out.display()))?;
        json_file(&args.out.join("tuning.json"), &proof)?;
        report::write(&proof, &args.out)?;
    }
    text(&verdict::render(&proof))
}

fn study(runner: &Runner<'_>, stage: Stage, scale: Scale) -> Result<Done> {
    let Study { mut plan, grid } = plans::study(stage, scale);
    let found = grid.map(|grid| add_oracle(runner, &mut plan, &grid, BUSY_CAP)).transpose()?;
    let blocks = run_blocks(runner, &plan)?;
    Ok(Done { stage, digest: digest(&plan, blocks), found })
}

fn highest_rates(runner: &Runner<'_>, scale: Scale) -> Result<Vec<Highest>> {
    let (plan, effort) = plans::highest(scale);
    let mut all = Vec::new();
    for (name, any) in plans::highest_contenders(scale) {
        all.push(highest(runner, &plan, name, &any, effort)?);
    }
    Ok(all)
}
