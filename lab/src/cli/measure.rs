//! Arguments of the subcommands that compare and measure, as they are typed.

use std::path::PathBuf;

use clap::Args;
use tidegate_client::Nanos;

use super::DEFAULT_PHASES;
use crate::compare::job::Downstream;
use crate::compare::plan::Contender;
use crate::load::schedule::Phases;
use crate::time::parse_span;
use crate::tuning::plans::{SIDE_BY_SIDE, Sinks};

/// Starts a sink, a pipeline and a load for each policy, block by block, and ends them all
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// Directory for report pages while it runs; what is put there is removed at the end
    #[arg(long, default_value = ".")]
    pub(crate) dir: PathBuf,
    /// The agent's control socket, for the agent's policies [default: /run/tidegate/api.sock]
    #[arg(long, value_name = "PATH", env = "TIDEGATE_SOCKET")]
    pub(crate) socket: Option<PathBuf>,
    /// Which to run: default, fixed, static:BATCH/INTERVAL, greedy, batcher, l0, regime, model; NAME=POLICY renames
    /// one, and one policy under two names is the A/A
    #[arg(long, value_delimiter = ',', default_value = "fixed,greedy,l0,model")]
    pub(crate) policies: Vec<Contender>,
    /// Where they flush to: tcp:DELAY (tcp:1ms@0s,10ms@4s changes it), file, postgres or redis
    #[arg(long, default_value = "tcp:10ms")]
    pub(crate) sink: Downstream,
    /// Rates and spans, RATExSPAN separated by commas
    #[arg(long, default_value = DEFAULT_PHASES)]
    pub(crate) phases: Phases,
    /// Begin with this long at the first rate, left out of the results
    #[arg(long, default_value = "2s", value_parser = parse_span)]
    pub(crate) warmup: Nanos,
    /// Bytes of a record on the wire
    #[arg(long, default_value_t = 512)]
    pub(crate) record_bytes: usize,
    /// Cap on the busy share of the flusher, told to the agent
    #[arg(long, value_name = "SHARE")]
    pub(crate) busy_cap: Option<f64>,
    /// Find the best constant of each phase and the best single one by real runs first, and let them run beside the
    /// others as `oracle` and `best`; minutes
    #[arg(long)]
    pub(crate) oracle: bool,
    /// Blocks: in each of them every policy runs once
    #[arg(long, default_value_t = 1)]
    pub(crate) blocks: usize,
    /// Lanes at once, where the sink bears company
    #[arg(long, value_name = "N", default_value_t = SIDE_BY_SIDE)]
    pub(crate) side_by_side: usize,
    /// Of the order of the lanes and of the intervals
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// The same results as JSON, `-` for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write a report into this directory: tuning.md and tuning.html
    #[arg(long, value_name = "DIR")]
    pub(crate) report: Option<PathBuf>,
}

/// Writes tuning.json, tuning.md and tuning.html
#[derive(Debug, Args)]
pub(crate) struct TuningArgs {
    /// Directory for report pages while it runs; what is put there is removed at the end
    #[arg(long, default_value = ".")]
    pub(crate) dir: PathBuf,
    /// The agent's control socket [default: /run/tidegate/api.sock]
    #[arg(long, value_name = "PATH", env = "TIDEGATE_SOCKET")]
    pub(crate) socket: Option<PathBuf>,
    /// Directory for the report
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) out: PathBuf,
    /// Which sinks
    #[arg(long, value_enum, default_value_t = Sinks::Promises)]
    pub(crate) sink: Sinks,
    /// A few minutes to try the plumbing by; the figures are not to be quoted
    #[arg(long)]
    pub(crate) quick: bool,
}

/// Prints two tables, and whether 128 differs from 256 at all
#[derive(Debug, Args)]
pub(crate) struct SweepArgs {
    /// Bytes of a record on the wire
    #[arg(long, default_value_t = 512)]
    pub(crate) record_bytes: usize,
    /// From the last byte of a flush to its acknowledgement
    #[arg(long, default_value = "2ms", value_parser = parse_span)]
    pub(crate) delay: Nanos,
    /// Runs of every cell
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=12))]
    pub(crate) repetitions: u8,
    /// Length of a run; its first fifth is left out
    #[arg(long, default_value = "1500ms", value_parser = parse_span)]
    pub(crate) span: Nanos,
    /// Of the order of the runs
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// The same results as JSON, `-` for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// Records a second on one thread
#[derive(Debug, Args)]
pub(crate) struct MicroArgs {
    /// The same results as JSON, `-` for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// Real runs on this machine; the table can be served by the agent (key `guidance` of its configuration)
#[derive(Debug, Args)]
pub(crate) struct GuidanceArgs {
    /// Directory for report pages while it runs; what is put there is removed at the end
    #[arg(long, default_value = ".")]
    pub(crate) dir: PathBuf,
    /// What a flush costs: from its last byte to its acknowledgement
    #[arg(long, default_value = "2ms", value_parser = parse_span)]
    pub(crate) delay: Nanos,
    /// Seconds measured of every setting, besides one that is left out
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub(crate) seconds: u64,
    /// The same table as JSON, `-` for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}
