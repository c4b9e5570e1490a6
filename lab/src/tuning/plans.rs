//! What the proof runs: stages and a scale in, plans out. Every rate, span and delay of the proof stands here.

use clap::ValueEnum;
use serde::Serialize;
use tidegate_client::Nanos;

use crate::compare::highest::Effort;
use crate::compare::job::Downstream;
use crate::compare::plan::{Contender, Plan};
use crate::compare::search::Grid;
use crate::load::schedule::{Phase, Phases};
use crate::pipeline::policy::{Constant, Policy};
use crate::sink::delay::{Step, Steps};

/// Share of the time in which a flush may be in flight, for the model and for the oracle alike.
pub(crate) const BUSY_CAP: f64 = 0.6;
/// Rates that pass through a cold, a warm and a hot regime, and the steps between them.
const RATES: [u64; 6] = [300, 5_000, 55_000, 300, 20_000, 55_000];
/// From quiet to busy and back, twice.
const CHANGES: [u64; 5] = [300, 55_000, 300, 55_000, 300];
/// Steady rate under which the plant changes, and what a flush costs in its phases.
const STEP_RATE: u64 = 5_000;
const STEP_DELAYS_MS: [u64; 3] = [1, 10, 3];
/// What two processors bear at these rates: five lanes and the agent take less than one of them.
pub(crate) const SIDE_BY_SIDE: usize = 5;
const RECORD_BYTES: usize = 512;

/// Which sinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sinks {
    /// File and fsync
    File,
    /// Planted delays over TCP, the changing plant and the highest rates
    Tcp,
    /// The database server `postgres`, of the laboratory's own
    Postgres,
    /// Redis
    Redis,
    /// Everything but the databases: what the promises are about
    Promises,
    /// Everything
    All,
}

/// A part of the proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Stage {
    Tcp,
    Steps,
    Changes,
    FixedBuffer,
    Highest,
    File,
    Postgres,
    Redis,
    /// Put together on a command line.
    Own,
}

impl Stage {
    pub(crate) fn chosen(sinks: Sinks) -> Vec<Self> {
        let tcp = [Self::Tcp, Self::Steps, Self::Changes, Self::FixedBuffer, Self::Highest];
        match sinks {
            Sinks::File => vec![Self::File],
            Sinks::Tcp => tcp.to_vec(),
            Sinks::Postgres => vec![Self::Postgres],
            Sinks::Redis => vec![Self::Redis],
            Sinks::Promises => [&tcp[..], &[Self::File]].concat(),
            Sinks::All => [&tcp[..], &[Self::File, Self::Postgres, Self::Redis]].concat(),
        }
    }
}

/// How much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// To try the plumbing by: minutes.
    Quick,
    /// An hour at most.
    Full,
}

/// After so long, studies make do with fewer blocks: the promise is an hour, or six minutes.
pub(crate) fn time(sinks: Sinks, scale: Scale) -> Nanos {
    let minutes = match (scale, sinks) {
        (Scale::Quick, _) => 4,
        (Scale::Full, Sinks::All) => 90,
        (Scale::Full, _) => 54,
    };
    Nanos::from_millis(minutes * 60_000)
}

/// A plan, and what to search first.
pub(crate) struct Study {
    pub(crate) plan: Plan,
    /// Without one there is no oracle.
    pub(crate) grid: Option<Grid>,
}

fn contenders(labels: &[&str]) -> Vec<Contender> {
    let known = |label: &&str| {
        let policy = match *label {
            "fixed" => Policy::Fixed,
            "default" => Policy::Default,
            "greedy" => Policy::Greedy,
            "l0" => Policy::L0,
            "regime" => Policy::Regime,
            // `model` itself, and the same once more for the A/A.
            _ => Policy::Model,
        };
        Contender { label: (*label).to_owned(), policy, constants: Vec::new() }
    };
    labels.iter().map(known).collect()
}

fn rates(rates: &[u64], seconds: u64) -> Phases {
    Phases(rates.iter().map(|rate| Phase { rate: *rate, span: Nanos::from_millis(seconds * 1_000) }).collect())
}

/// What a stage runs.
pub(crate) fn study(stage: Stage, scale: Scale) -> Study {
    let quick = scale == Scale::Quick;
    let pick = |quick_one: u64, full: u64| if quick { quick_one } else { full };
    let blocks = |quick_one: usize, full: usize| if quick { quick_one } else { full };
    let tcp = |ms| Downstream::Tcp { delay: Nanos::from_millis(ms), steps: Steps::default() };
    let everyone = ["fixed", "default", "greedy", "l0", "regime", "model", "model again"];
    let most = ["fixed", "greedy", "l0", "regime", "model", "model again"];
    let plan = |title: &str, downstream, phases, labels: &[&str], blocks| Plan {
        title: title.to_owned(),
        downstream,
        phases,
        warmup: Nanos::from_millis(pick(1_000, 2_000)),
        record_bytes: RECORD_BYTES,
        busy_cap: Some(BUSY_CAP),
        contenders: contenders(labels),
        blocks,
        side_by_side: SIDE_BY_SIDE,
        seed: 1,
    };
    let six = rates(&RATES, pick(2, 4));
    match stage {
        Stage::Tcp => Study {
            plan: plan("TCP, 2 ms a flush", tcp(2), six, &everyone, blocks(2, 8)),
            grid: Some(if quick { Grid::quick() } else { Grid::fine() }),
        },
        Stage::Steps => {
            let seconds = pick(3, 4);
            let step = |(i, ms): (u64, u64)| Step {
                from: Nanos::from_millis(i * seconds * 1_000),
                fixed: Nanos::from_millis(ms),
            };
            let steps = Steps((0..).zip(STEP_DELAYS_MS).map(step).collect());
            let downstream = Downstream::Tcp { delay: Nanos::from_millis(STEP_DELAYS_MS[0]), steps };
            let phases = rates(&[STEP_RATE; STEP_DELAYS_MS.len()], seconds);
            Study {
                plan: plan("TCP, the cost of a flush changes", downstream, phases, &everyone, blocks(1, 8)),
                grid: Some(if quick { Grid::quick() } else { Grid::coarse() }),
            }
        }
        Stage::Changes => Study {
            plan: plan(
                "TCP, 2 ms a flush, from quiet to busy and back",
                tcp(2),
                rates(&CHANGES, pick(2, 4)),
                &["greedy", "l0", "regime", "model"],
                blocks(1, 4),
            ),
            grid: None,
        },
        Stage::FixedBuffer | Stage::Highest | Stage::Own => Study {
            plan: plan(
                "TCP, 10 ms a flush",
                tcp(10),
                six,
                &["fixed", "greedy", "l0", "model", "model again"],
                blocks(1, 6),
            ),
            grid: None,
        },
        Stage::File => Study {
            plan: plan(
                "file and fsync",
                Downstream::File,
                six,
                if quick { &["fixed", "greedy", "regime", "model"] } else { &most },
                blocks(1, 6),
            ),
            grid: (!quick).then(Grid::short),
        },
        Stage::Postgres => server("PostgreSQL", "postgres", plan, quick),
        Stage::Redis => server("Redis", "redis", plan, quick),
    }
}

/// A database takes fewer records than a sink that only sleeps: the rates end where it does.
fn server(
    title: &str,
    kind: &str,
    plan: impl Fn(&str, Downstream, Phases, &[&str], usize) -> Plan,
    quick: bool,
) -> Study {
    let phases = rates(&[300, 5_000, 20_000, 300], if quick { 2 } else { 4 });
    let labels: &[&str] = if quick {
        &["fixed", "greedy", "model"]
    } else {
        &["fixed", "greedy", "l0", "regime", "model", "model again"]
    };
    let downstream = Downstream::Server(kind.to_owned());
    Study { plan: plan(title, downstream, phases, labels, if quick { 1 } else { 6 }), grid: (!quick).then(Grid::short) }
}

/// The plan and the effort of the search for the highest rate.
pub(crate) fn highest(scale: Scale) -> (Plan, Effort) {
    let plan = study(Stage::Highest, scale).plan;
    let effort = match scale {
        Scale::Quick => Effort { seconds: 2, confirmations: 0, until: 1.5, from: 8_000, to: 160_000 },
        Scale::Full => Effort { seconds: 5, confirmations: 2, until: 1.04, from: 6_000, to: 200_000 },
    };
    (plan, effort)
}

/// Whose highest rates are looked for. The oracle is whichever of these constants bears the rate.
pub(crate) fn highest_contenders(scale: Scale) -> Vec<(&'static str, Vec<Contender>)> {
    let constant = |interval_us| Constant { batch_bytes: 512 << 10, interval_us };
    let of = |interval_us| Contender {
        label: "oracle".to_owned(),
        policy: Policy::Static(constant(interval_us)),
        constants: Vec::new(),
    };
    let mut all = vec![("default", contenders(&["default"])), ("model", contenders(&["model"]))];
    if scale == Scale::Full {
        all.push(("oracle", vec![of(10_000), of(20_000), of(2_000)]));
    }
    all
}
