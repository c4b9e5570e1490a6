//! A plan in, its blocks out: in every block each contender runs once under the same load, in an order drawn anew. A block
//! in which others used the machine too much is left out and counted.

use anyhow::{Result, bail};
use fastrand::Rng;
use serde::Serialize;

use super::job::Job;
use super::lane::Outcome;
use super::plan::{Plan, divide};
use super::runner::Runner;
use crate::out::note;

/// Share of the processors that others may take in a block.
pub(crate) const FOREIGN_MAX: f64 = 0.05;
/// Fewer quiet blocks than this are no comparison.
const QUIET_FEWEST: usize = 2;

/// Blocks that run even when the time is up.
const LATE_FEWEST: usize = 3;

/// All that ran.
pub(crate) struct Blocks {
    /// The blocks that count, each with one outcome a contender, in the plan's order.
    pub(crate) kept: Vec<Vec<Outcome>>,
    pub(crate) quiet: Quiet,
}

/// How quiet the machine was.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Quiet {
    /// Blocks that ran.
    pub(crate) run: usize,
    /// Of those, left out because others took more than they may.
    pub(crate) dropped: usize,
    /// Largest share of the processors that others took, of each block that ran.
    pub(crate) foreign: Vec<f64>,
    /// What they may take.
    pub(crate) foreign_max: f64,
    /// Whether too few blocks were quiet, so that all of them count: figures to try the plumbing by, not to be quoted.
    pub(crate) noisy: bool,
    /// Most cores that the lanes of a block and the agent took.
    pub(crate) cores: f64,
}

/// Runs blocks until as many quiet ones as are wanted are there, or half as many again have run.
pub(crate) fn run_blocks(runner: &Runner<'_>, plan: &Plan) -> Result<Blocks> {
    let mut random = Rng::with_seed(plan.seed);
    let (mut all, mut foreign, mut cores) = (Vec::new(), Vec::new(), 0.0_f64);
    let quiet = |foreign: &[f64]| foreign.iter().filter(|share| **share <= FOREIGN_MAX).count();
    // Another half only where it can help: with one block wanted, one is run.
    while quiet(&foreign) < plan.blocks && foreign.len() < plan.blocks + plan.blocks / 2 {
        if runner.is_late() && foreign.len() >= plan.blocks.min(LATE_FEWEST) {
            note(&format!("{}: the time is up after {} blocks", plan.title, foreign.len()));
            break;
        }
        let mut order: Vec<usize> = (0..plan.contenders.len()).collect();
        random.shuffle(&mut order);
        let mut outcomes: Vec<Option<Outcome>> = plan.contenders.iter().map(|_| None).collect();
        let mut worst = 0.0_f64;
        for group in divide(&order, plan.lanes_at_once()) {
            let jobs: Vec<Job> = group.iter().map(|i| plan.job(&plan.contenders[*i])).collect();
            let together = runner.together(&jobs)?;
            worst = worst.max(together.foreign);
            cores = cores.max(together.cores);
            for (i, outcome) in group.into_iter().zip(together.outcomes) {
                if outcome.missing > 0 {
                    bail!("{}: {} records were not acknowledged, or never arrived", outcome.label, outcome.missing);
                }
                outcomes[i] = Some(outcome);
            }
        }
        foreign.push(worst);
        all.push(outcomes.into_iter().flatten().collect::<Vec<_>>());
        note(&format!(
            "{}: block {} ({} quiet ones wanted), others took {:.1} % of the machine",
            plan.title,
            foreign.len(),
            plan.blocks,
            worst * 100.0
        ));
    }
    let (run, good) = (foreign.len(), quiet(&foreign));
    let noisy = good < QUIET_FEWEST.min(plan.blocks);
    let kept: Vec<Vec<Outcome>> =
        all.into_iter().zip(&foreign).filter(|(_, share)| noisy || **share <= FOREIGN_MAX).map(|(b, _)| b).collect();
    let quiet = Quiet { run, dropped: run - kept.len(), foreign, foreign_max: FOREIGN_MAX, noisy, cores };
    Ok(Blocks { kept, quiet })
}
