//! Flush policies side by side: a sink, a pipeline and a load for each, in randomised blocks, one table at the end. Leaves
//! no process and no file behind, however it ends.

pub(crate) mod blocks;
pub(crate) mod children;
pub(crate) mod cpu;
pub(crate) mod digest;
pub(crate) mod highest;
pub(crate) mod job;
pub(crate) mod lane;
pub(crate) mod plan;
pub(crate) mod runner;
pub(crate) mod search;
mod settling;
pub(crate) mod table;
pub(crate) mod turns;

use anyhow::{Context, Result, bail};
use tidegate_client::contact;

use crate::cli::CompareArgs;
use crate::out::{json_file, text};
use crate::stop::Stop;
use crate::tuning::plans::BUSY_CAP;
use plan::{Contender, Plan};
use runner::Runner;
use search::{Grid, add_oracle};

/// Runs the comparison and prints its table.
pub(crate) fn run(args: &CompareArgs) -> Result<()> {
    let stop = Stop::listen()?;
    let socket = args.socket.clone().unwrap_or_else(contact::default_socket);
    let contenders = distinct(&args.policies)?;
    if contenders.iter().any(|c| c.policy.of_agent().is_some()) {
        contact::health(&socket).context(
            "policies regime and model: no agent answers (start `tidegate agent`, name its socket with --socket, or \
             leave them out with --policies fixed,greedy,l0)",
        )?;
    }
    let runner = Runner::new(&stop, &args.dir, &socket)?;
    let mut plan = Plan {
        title: "comparison".to_owned(),
        downstream: args.sink.clone(),
        phases: args.phases.clone(),
        warmup: args.warmup,
        record_bytes: args.record_bytes,
        busy_cap: args.busy_cap,
        contenders,
        blocks: args.blocks,
        side_by_side: args.side_by_side,
        seed: args.seed,
    };
    let found = if args.oracle {
        let grid = if plan.downstream.bears_company() { Grid::fine() } else { Grid::short() };
        Some(add_oracle(&runner, &mut plan, &grid, args.busy_cap.unwrap_or(BUSY_CAP))?)
    } else {
        None
    };
    let digest = digest::digest(&plan, blocks::run_blocks(&runner, &plan)?);
    if let Some(path) = &args.json {
        json_file(path, &digest)?;
    }
    text(&table::render(&digest))?;
    if let Some(directory) = &args.report {
        crate::report::write(&crate::tuning::of_one(digest, found), directory)?;
    }
    Ok(())
}

/// Each name once.
fn distinct(contenders: &[Contender]) -> Result<Vec<Contender>> {
    for (i, contender) in contenders.iter().enumerate() {
        if contenders[..i].iter().any(|c| c.label == contender.label) {
            bail!(
                "--policies: {} comes twice (give one another name, like again={})",
                contender.label,
                contender.policy
            );
        }
    }
    Ok(contenders.to_vec())
}
