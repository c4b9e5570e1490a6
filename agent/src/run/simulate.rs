//! Simulation: a scenario in, the policies side by side out. The agent's own core decides, in virtual time.
//!
//! Every policy sees the same arrivals. `fixed` is a plain buffer, `greedy` flushes whenever the sink is free,
//! `batcher` is the client's own rule with the agent off, `regime` the same with the agent on.

pub mod scenario;
pub mod score;

use serde::Serialize;
use tidegate_client::abi::{DecisionJson, ReportWord};
use tidegate_client::rule::{L0, Rule};
use tidegate_client::units::Bytes as RuleBytes;

use crate::control::Bounds;
use crate::event::RawBatch;
use crate::run::core::{Core, CoreConfig};
use crate::run::simulate::scenario::{PhaseExpect, Scenario};
use crate::run::simulate::score::{Quantiles, Score};
use crate::source::Pulled;
use crate::source::sim::plant::{Phase, Plant, Running};
use crate::source::sim::rules::{Fixed, Greedy};
use crate::source::sim::{SimSource, Simulated};
use crate::units::{Nanos, PipelineName, Settings};

/// Largest flush of the greedy rule.
const GREEDY_BATCH: RuleBytes = RuleBytes(512 << 10);
/// Virtual time at which the pipeline registers: not zero, which stands for "never" in places.
const START: Nanos = Nanos::SECOND;
/// It is idle for so long before its load begins: a pipeline registers when it starts, not when it is busy.
const LEAD: Nanos = Nanos::SECOND;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Contender {
    /// A plain buffer on the pipeline's defaults.
    Fixed,
    /// Flush what is queued whenever the sink is free.
    Greedy,
    /// The client's rule on the pipeline's defaults.
    Batcher,
    /// The client's rule under the agent.
    Regime,
}

impl Contender {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 4] = [Self::Fixed, Self::Greedy, Self::Batcher, Self::Regime];

    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Greedy => "greedy",
            Self::Batcher => "batcher",
            Self::Regime => "regime",
        }
    }
}

/// The policies side by side.
#[derive(Clone, Debug, Serialize)]
pub struct SimReport {
    /// Name of the scenario.
    pub scenario: String,
    /// First seed.
    pub seed: u64,
    /// Runs, one seed each, counted together.
    pub runs: u64,
    /// One row a policy.
    pub policies: Vec<PolicyReport>,
    /// Expectations of the scenario that the policy `regime` did not meet.
    pub violations: Vec<String>,
}

/// What came of one policy.
#[derive(Clone, Debug, Serialize)]
pub struct PolicyReport {
    /// Which.
    pub policy: Contender,
    /// Events acknowledged.
    pub events: u64,
    /// Events that found the queue full.
    pub lost: u64,
    /// Flushes per 1,000 events.
    pub flushes_per_1000: f64,
    /// Share of the time in which a flush was in flight.
    pub utilization: f64,
    /// CPU time per event by the plant's own reckoning, microseconds.
    pub cpu_us_per_event: f64,
    /// Times the settings changed.
    pub changes: u64,
    /// Every event alike.
    pub by_event: Quantiles,
    /// Every second alike.
    pub by_time: Quantiles,
    /// By phase.
    pub phases: Vec<PhaseReport>,
}

/// What came of one phase.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct PhaseReport {
    /// Its load, events/s.
    pub rate: f64,
    /// Settings at its end.
    pub settings: Settings,
    /// Every event alike.
    pub latency: Quantiles,
}

/// One run of one policy.
#[derive(Clone, Debug)]
pub struct Trace {
    /// Its latencies.
    pub score: Score,
    /// Settings in force, with the time from which on.
    pub settings: Vec<(Nanos, Settings)>,
    /// Decisions, in their order.
    pub decisions: Vec<DecisionJson>,
    totals: Totals,
}

#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    lost: u64,
    flushes: u64,
    flush_ns: u64,
    cpu_ns: u64,
    span_ns: u64,
}

/// Runs every policy `runs` times, from `seed` on.
pub fn simulate(scenario: &Scenario, seed: u64, runs: u64) -> SimReport {
    compare(scenario, &Contender::ALL, seed, runs)
}

/// Runs these policies `runs` times, from `seed` on.
pub fn compare(scenario: &Scenario, policies: &[Contender], seed: u64, runs: u64) -> SimReport {
    let mut violations = Vec::new();
    let policies = policies
        .iter()
        .copied()
        .map(|policy| {
            let traces: Vec<Trace> =
                (0..runs.max(1)).map(|nth| run(scenario, policy, seed.wrapping_add(nth))).collect();
            let report = report(scenario, policy, &traces);
            if policy == Contender::Regime {
                violations = unmet(scenario, &report, &traces);
            }
            report
        })
        .collect();
    SimReport { scenario: scenario.name.clone(), seed, runs: runs.max(1), policies, violations }
}

/// Runs one policy once.
pub fn run(scenario: &Scenario, policy: Contender, seed: u64) -> Trace {
    let name = PipelineName::try_from("simulated".to_owned()).expect("a good name");
    let end = Running::end(&scenario.phases, START + LEAD);
    // A second more, for what is still queued.
    let mut sim = SimSource::new(START, end + Nanos::SECOND);
    sim.add(pipeline(scenario, policy, &name, seed));
    let mut core = Core::new(CoreConfig::default(), START);
    let mut trace = Trace {
        score: Score::of_phases(phase_starts(scenario)),
        settings: vec![(START, Bounds::new(&scenario.registration.knobs).defaults())],
        decisions: Vec::new(),
        totals: Totals::default(),
    };
    let mut batch = RawBatch::new();
    while sim.step(&mut batch) == Pulled::Batch {
        if policy == Contender::Regime {
            core.feed(&batch, |outcome| {
                for publish in outcome.publish {
                    sim.apply(&publish.name, publish.generation, publish.settings);
                    trace.settings.push((outcome.now, publish.settings));
                }
                trace.decisions.extend(outcome.decisions);
            });
        }
        batch.clear();
        sim.drain(&name, |done| trace.score.count(done));
    }
    if let Some(running) = sim.running(&name) {
        let (words, _) = running.report();
        trace.totals = Totals {
            lost: words[ReportWord::EventsLost as usize],
            flushes: words[ReportWord::Flushes as usize],
            flush_ns: words[ReportWord::FlushNs as usize],
            cpu_ns: running.work().cpu_ns,
            span_ns: end.since(START + LEAD).0,
        };
    }
    trace
}

fn pipeline(scenario: &Scenario, policy: Contender, name: &PipelineName, seed: u64) -> Simulated {
    let batch_max = RuleBytes(scenario.registration.knobs.batch_bytes.max);
    let rule: Box<dyn Rule> = match policy {
        Contender::Fixed => Box::new(Fixed),
        Contender::Greedy => Box::new(Greedy { batch_max: GREEDY_BATCH }),
        Contender::Batcher | Contender::Regime => Box::new(L0::by_settings(batch_max)),
    };
    Simulated {
        name: name.clone(),
        registration: scenario.registration.clone(),
        plant: Plant {
            phases: std::iter::once(Phase { rate: 0.0, length: LEAD, flush: Nanos(0) })
                .chain(scenario.phases.iter().copied())
                .collect(),
            arrivals: scenario.arrivals,
            event: scenario.event,
            per_event: scenario.per_event,
            queue: scenario.queue,
            rule,
            defaults: Bounds::new(&scenario.registration.knobs).defaults(),
        },
        lie: None,
        seed,
    }
}

fn phase_starts(scenario: &Scenario) -> Vec<Nanos> {
    let next = |at: &mut Nanos, length: Nanos| Some(std::mem::replace(at, *at + length));
    scenario.phases.iter().scan(START + LEAD, |at, phase| next(at, phase.length)).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a mean needs no more than 52 bits")]
fn report(scenario: &Scenario, policy: Contender, traces: &[Trace]) -> PolicyReport {
    let mut score = Score::of_phases(phase_starts(scenario));
    let mut sum = Totals::default();
    let mut changes = 0;
    for Trace { score: one, settings, totals, .. } in traces {
        score.merge(one);
        sum.lost += totals.lost;
        sum.flushes += totals.flushes;
        sum.flush_ns += totals.flush_ns;
        sum.cpu_ns += totals.cpu_ns;
        sum.span_ns += totals.span_ns;
        changes += settings.len() as u64 - 1;
    }
    let events = score.events().max(1) as f64;
    let starts = phase_starts(scenario);
    let phases = scenario.phases.iter().enumerate().map(|(nth, phase)| PhaseReport {
        rate: phase.rate,
        settings: traces.first().map_or_else(
            || Bounds::new(&scenario.registration.knobs).defaults(),
            |trace| in_force(trace, starts[nth] + phase.length),
        ),
        latency: score.phase(nth),
    });
    PolicyReport {
        policy,
        events: score.events(),
        lost: sum.lost,
        flushes_per_1000: 1e3 * sum.flushes as f64 / events,
        utilization: sum.flush_ns as f64 / sum.span_ns.max(1) as f64,
        cpu_us_per_event: sum.cpu_ns as f64 / 1e3 / events,
        changes,
        by_event: score.by_event(),
        by_time: score.by_time(),
        phases: phases.collect(),
    }
}

/// Settings in force just before `at`.
fn in_force(trace: &Trace, at: Nanos) -> Settings {
    let nth = trace.settings.partition_point(|(from, _)| *from < at).saturating_sub(1);
    trace.settings[nth].1
}

fn unmet(scenario: &Scenario, report: &PolicyReport, traces: &[Trace]) -> Vec<String> {
    let mut found = Vec::new();
    let starts = phase_starts(scenario);
    for (nth, expect) in scenario.expect.iter().enumerate() {
        let Some(expect) = expect else {
            continue;
        };
        let end = starts[nth] + scenario.phases[nth].length;
        let from = starts[nth] + Nanos::from_millis(expect.within_ms);
        for trace in traces {
            let settled = std::iter::once(in_force(trace, from))
                .chain(trace.settings.iter().filter(|(at, _)| *at >= from && *at < end).map(|(_, settings)| *settings));
            found.extend(settled.filter_map(|settings| outside(nth, expect, settings)));
        }
        let p99 = report.phases.get(nth).and_then(|phase| phase.latency.p99_ms);
        found.extend(above(&format!("phase[{nth}].p99_ms"), p99, expect.p99_ms));
    }
    if let Some(total) = scenario.total {
        found.extend(above("p99_ms by time", report.by_time.p99_ms, total.p99_ms));
        found.extend(above("p999_ms by time", report.by_time.p999_ms, total.p999_ms));
        if let Some(most) = total.changes.map(|most| most.saturating_mul(traces.len() as u64))
            && report.changes > most
        {
            found.push(format!("changes = {}: expected at most {most}", report.changes));
        }
    }
    found.dedup();
    found
}

fn outside(nth: usize, expect: &PhaseExpect, settings: Settings) -> Option<String> {
    let knobs = [
        ("batch_bytes", expect.batch_bytes, settings.batch.0),
        ("flush_interval_us", expect.flush_interval_us, settings.interval.0),
    ];
    knobs.into_iter().find_map(|(key, range, value)| {
        let [low, high] = range?;
        (!(low..=high).contains(&value))
            .then(|| format!("phase[{nth}].{key} = {value}: expected {low} to {high} after {} ms", expect.within_ms))
    })
}

fn above(what: &str, value: Option<f64>, limit: Option<f64>) -> Option<String> {
    let (value, limit) = (value?, limit?);
    (value > limit).then(|| format!("{what} = {value:.1}: expected at most {limit:.1}"))
}
