//! The blocks of a plan in, figures out: one row a policy, phase and part, and the ratios between policies. Pure: the same
//! blocks give the same intervals.

use serde::Serialize;

use super::blocks::{Blocks, Quiet};
use super::lane::Outcome;
use super::plan::{Group, MARKS, Part, Plan};
use super::settling::{Settling, settling};
use crate::load::latency::SliceReport;
use crate::pipeline::Stats;
use crate::pipeline::policy::Policy;
use crate::stats::{Interval, Pool, Ratio, Weighted, interval, ratio};

/// Name of all phases together.
pub(crate) const ALL: &str = "all";
/// Records beyond a quantile below which it is not to be trusted.
pub(crate) const TAIL_FEWEST: u64 = 100;

/// What counts alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Weighting {
    /// Every event.
    Event,
    /// Every second.
    Time,
}

/// A figure of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Figure {
    P99,
    P999,
    Mean,
    Flushes,
    Cpu,
}

/// One policy in one phase, or in all of them.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) policy: String,
    /// Rate and plant, or `all`.
    pub(crate) phase: String,
    pub(crate) part: Part,
    pub(crate) weighting: Weighting,
    /// Records behind it.
    pub(crate) records: u64,
    /// Records beyond the 99th percentile.
    pub(crate) tail_records: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// Of the 99th percentile, over blocks.
    pub(crate) p99_interval_ms: Option<Interval>,
    pub(crate) p999_ms: f64,
    pub(crate) mean_ms: f64,
    pub(crate) flushes_per_1000: f64,
    /// CPU time of the pipeline, ms per 1,000 events.
    pub(crate) cpu_ms_per_1000: f64,
    /// Share of the time in which a flush was in flight.
    pub(crate) busy: f64,
    /// Panic flushes later than the grace after a change.
    pub(crate) panics: u64,
}

/// How one policy stands to another in one figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Comparison {
    pub(crate) policy: String,
    pub(crate) against: String,
    pub(crate) phase: String,
    pub(crate) part: Part,
    pub(crate) weighting: Weighting,
    pub(crate) figure: Figure,
    #[serde(flatten)]
    pub(crate) ratio: Ratio,
}

/// What ran under one name.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Ran {
    pub(crate) label: String,
    pub(crate) policy: Policy,
    /// A constant a phase, of an oracle.
    pub(crate) constants: Vec<String>,
}

/// Everything a plan gave.
#[derive(Debug, Serialize)]
pub(crate) struct Digest {
    pub(crate) title: String,
    pub(crate) sink: String,
    pub(crate) phases: String,
    pub(crate) record_bytes: usize,
    pub(crate) busy_cap: Option<f64>,
    pub(crate) warmup_s: f64,
    pub(crate) lanes_at_once: usize,
    pub(crate) seed: u64,
    pub(crate) quiet: Quiet,
    pub(crate) groups: Vec<String>,
    pub(crate) ran: Vec<Ran>,
    pub(crate) rows: Vec<Row>,
    pub(crate) comparisons: Vec<Comparison>,
    /// Pairs of one policy under two names: what cannot be told apart here.
    pub(crate) aa: Vec<Comparison>,
    /// How soon settings stood after changes, of the agent's policies.
    pub(crate) settling: Vec<Settling>,
    /// The pipelines as processes, for whoever watched them from outside.
    pub(crate) pipelines: Vec<Outcome>,
}

/// Where in a run.
#[derive(Clone, Copy)]
struct Place<'a> {
    group: Option<&'a Group>,
    part: Part,
    weighting: Weighting,
}

impl Place<'_> {
    fn holds(&self, phase: usize, second: usize) -> bool {
        let all = || {
            let whole = Group { name: String::new(), phases: vec![phase] };
            whole.holds(self.part, phase, second)
        };
        self.group.map_or_else(all, |g| g.holds(self.part, phase, second))
    }

    fn name(&self) -> String {
        self.group.map_or_else(|| ALL.to_owned(), |g| g.name.clone())
    }
}

/// The figures of blocks.
pub(crate) struct Digester<'a> {
    plan: &'a Plan,
    kept: &'a [Vec<Outcome>],
}

impl Digester<'_> {
    fn index(&self, label: &str) -> Option<usize> {
        self.plan.contenders.iter().position(|c| c.label == label)
    }

    #[expect(clippy::cast_precision_loss, reason = "records of a second")]
    fn pool(&self, contender: usize, place: Place<'_>) -> Pool {
        let weigh = |slice: &SliceReport| match place.weighting {
            Weighting::Event => 1.0,
            Weighting::Time => slice.span_ns as f64 / 1e9 / slice.records.max(1) as f64,
        };
        let mut blocks = Vec::new();
        for lanes in self.kept {
            let slices = lanes[contender].load.slices.iter().filter(|s| place.holds(s.phase, s.second));
            let weighted = slices.map(|s| Weighted { weight: weigh(s), counts: &s.counts, sum_ns: s.sum_ns });
            blocks.push(weighted.collect::<Vec<_>>());
        }
        Pool::new(&blocks)
    }

    /// Costs of one block, summed over the phases of the place, each weighted as the place says.
    #[expect(clippy::cast_precision_loss, reason = "counters of a run")]
    fn costs(&self, lane: &Outcome, place: Place<'_>) -> Costs {
        let mut costs = Costs::default();
        for (phase, at) in self.plan.phases.0.iter().enumerate() {
            let marks = &lane.marks[phase * MARKS..=(phase + 1) * MARKS];
            for (from, to, second) in [(0, 2, 0), (2, 3, 1)] {
                if !place.holds(phase, second) {
                    continue;
                }
                let between = |value: fn(&Stats) -> u64| value(&marks[to]).saturating_sub(value(&marks[from])) as f64;
                let span = between(|s| s.at_ns) / 1e9;
                let events = at.rate as f64 * span;
                if events <= 0.0 {
                    continue;
                }
                let weight = match place.weighting {
                    Weighting::Event => events,
                    Weighting::Time => span,
                };
                costs.weight += weight;
                costs.flushes += weight * between(|s| s.flushes) / events;
                costs.cpu_ms += weight * between(|s| s.cpu_ns) / 1e6 / events;
                costs.span += span;
                costs.busy += between(|s| s.flush_ns) / 1e9;
                let calm = if second == 0 { 1 } else { from };
                costs.panics += marks[to].by_panic.saturating_sub(marks[calm].by_panic);
            }
        }
        costs
    }

    fn row(&self, contender: usize, place: Place<'_>) -> Option<Row> {
        let pool = self.pool(contender, place);
        let all = pool.all();
        let mut costs = Costs::default();
        for lanes in self.kept {
            costs.add(&self.costs(&lanes[contender], place));
        }
        Some(Row {
            policy: self.plan.contenders[contender].label.clone(),
            phase: place.name(),
            part: place.part,
            weighting: place.weighting,
            records: pool.records(),
            tail_records: pool.records() / 100,
            p50_ms: pool.quantile(0.5, &all)?,
            p99_ms: pool.quantile(0.99, &all)?,
            p99_interval_ms: interval(all.len(), self.plan.seed, |choice| pool.quantile(0.99, choice)),
            p999_ms: pool.quantile(0.999, &all)?,
            mean_ms: pool.mean(&all)?,
            flushes_per_1000: costs.flushes / costs.weight * 1e3,
            cpu_ms_per_1000: costs.cpu_ms / costs.weight * 1e3,
            busy: costs.busy / costs.span,
            panics: costs.panics,
        })
    }

    fn compare(&self, policy: usize, against: usize, place: Place<'_>, figure: Figure) -> Option<Comparison> {
        let value = |contender: usize| -> Option<(Vec<f64>, f64)> {
            let latency = |of: fn(&Pool, &[usize]) -> Option<f64>| {
                let pool = self.pool(contender, place);
                let blocks = pool.all().iter().map(|i| of(&pool, &[*i])).collect::<Option<Vec<f64>>>()?;
                Some((blocks, of(&pool, &pool.all())?))
            };
            let cost = |of: fn(&Costs) -> f64| {
                let costs: Vec<Costs> = self.kept.iter().map(|lanes| self.costs(&lanes[contender], place)).collect();
                let mut all = Costs::default();
                for of_block in &costs {
                    all.add(of_block);
                }
                (all.weight > 0.0).then(|| (costs.iter().map(|c| of(c) / c.weight).collect(), of(&all) / all.weight))
            };
            match figure {
                Figure::P99 => latency(|pool, of| pool.quantile(0.99, of)),
                Figure::P999 => latency(|pool, of| pool.quantile(0.999, of)),
                Figure::Mean => latency(Pool::mean),
                Figure::Flushes => cost(|c| c.flushes),
                Figure::Cpu => cost(|c| c.cpu_ms),
            }
        };
        let ((ours, pooled), (theirs, their_pooled)) = (value(policy)?, value(against)?);
        Some(Comparison {
            policy: self.plan.contenders[policy].label.clone(),
            against: self.plan.contenders[against].label.clone(),
            phase: place.name(),
            part: place.part,
            weighting: place.weighting,
            figure,
            ratio: ratio(&ours, &theirs, (pooled, their_pooled), self.plan.seed)?,
        })
    }
}

/// Sums over phases and blocks.
#[derive(Clone, Copy, Debug, Default)]
struct Costs {
    weight: f64,
    flushes: f64,
    cpu_ms: f64,
    span: f64,
    busy: f64,
    panics: u64,
}

impl Costs {
    fn add(&mut self, other: &Self) {
        let Self { weight, flushes, cpu_ms, span, busy, panics } = *other;
        self.weight += weight;
        self.flushes += flushes;
        self.cpu_ms += cpu_ms;
        self.span += span;
        self.busy += busy;
        self.panics += panics;
    }
}

/// Those that others are held against, when they ran.
const REFERENCES: [&str; 6] = ["fixed", "default", "greedy", "regime", "best", "oracle"];

/// All figures of the blocks.
pub(crate) fn digest(plan: &Plan, blocks: Blocks) -> Digest {
    let Blocks { kept, quiet } = blocks;
    let digester = Digester { plan, kept: &kept };
    let groups = plan.groups();
    let mut places = Vec::new();
    for weighting in [Weighting::Event, Weighting::Time] {
        for group in &groups {
            let of = |part| Place { group: Some(group), part, weighting };
            places.extend([Part::Whole, Part::FirstSecond, Part::Settled].map(of));
        }
        places.extend([Part::Whole, Part::Settled].map(|part| Place { group: None, part, weighting }));
    }
    let contenders = 0..plan.contenders.len();
    let rows = contenders.clone().flat_map(|c| places.iter().map(move |p| (c, *p)));
    let rows: Vec<Row> = rows.filter_map(|(c, place)| digester.row(c, place)).collect();

    let (mut comparisons, mut aa) = (Vec::new(), Vec::new());
    let references: Vec<usize> = REFERENCES.iter().filter_map(|label| digester.index(label)).collect();
    for policy in contenders {
        for place in &places {
            for against in references.iter().copied().filter(|a| *a != policy) {
                let figures = [Figure::P99, Figure::P999, Figure::Mean, Figure::Flushes, Figure::Cpu];
                comparisons.extend(figures.iter().filter_map(|f| digester.compare(policy, against, *place, *f)));
            }
            let (of, contenders) = (&plan.contenders[policy], &plan.contenders);
            let twins = contenders[..policy].iter().position(|c| c.policy == of.policy && c.constants == of.constants);
            if let Some(twin) = twins
                && place.part != Part::FirstSecond
            {
                aa.extend(digester.compare(policy, twin, *place, Figure::P99));
            }
        }
    }
    Digest {
        title: plan.title.clone(),
        sink: plan.downstream.to_string(),
        phases: plan.phases.to_string(),
        record_bytes: plan.record_bytes,
        busy_cap: plan.busy_cap,
        warmup_s: crate::time::as_ms(plan.warmup) / 1e3,
        lanes_at_once: plan.lanes_at_once(),
        seed: plan.seed,
        quiet,
        groups: groups.into_iter().map(|g| g.name).collect(),
        ran: plan
            .contenders
            .iter()
            .map(|c| Ran {
                label: c.label.clone(),
                policy: c.policy,
                constants: c.constants.iter().map(ToString::to_string).collect(),
            })
            .collect(),
        rows,
        comparisons,
        aa,
        settling: settling(plan, &kept),
        pipelines: kept.into_iter().flatten().collect(),
    }
}

impl Digest {
    /// The row of a policy.
    pub(crate) fn row(&self, policy: &str, phase: &str, part: Part, weighting: Weighting) -> Option<&Row> {
        self.rows.iter().find(|r| (&*r.policy, &*r.phase, r.part, r.weighting) == (policy, phase, part, weighting))
    }

    /// How `policy` stands to `against`.
    pub(crate) fn ratio(
        &self,
        (policy, against): (&str, &str),
        (phase, part, weighting): (&str, Part, Weighting),
        figure: Figure,
    ) -> Option<Ratio> {
        let fits = |c: &&Comparison| {
            (&*c.policy, &*c.against, &*c.phase) == (policy, against, phase)
                && (c.part, c.weighting, c.figure) == (part, weighting, figure)
        };
        self.comparisons.iter().find(fits).map(|c| c.ratio)
    }

    /// Whether somebody ran under this name.
    pub(crate) fn has(&self, label: &str) -> bool {
        self.ran.iter().any(|r| r.label == label)
    }
}

#[cfg(test)]
mod tests;
