//! Simulation: a scenario in, the policies side by side out. The agent's own core decides, in virtual time.
//!
//! Every policy sees the same arrivals. `default` and `fixed` are plain buffers, `greedy` flushes whenever the sink is free,
//! `l0` is the client's own rule with the agent off, `regime` and `model` the same rule with the agent on.

mod expect;
pub mod random;
pub mod scenario;
pub mod score;

use serde::Serialize;
use tidegate_client::abi::{DecisionJson, Policy, Registration, ReportWord};
use tidegate_client::rule::{L0, Rule};
use tidegate_client::units::Bytes as RuleBytes;

use crate::control::{Bounds, Reason};
use crate::event::{Input, RawBatch};
use crate::run::core::{Core, CoreConfig};
use crate::run::simulate::scenario::{Act, Neighbour, Scenario};
use crate::run::simulate::score::{Quantiles, Score};
use crate::source::Pulled;
use crate::source::sim::plant::{Phase, Plant, Running, Trouble};
use crate::source::sim::rules::{Fixed, Greedy};
use crate::source::sim::{SimSource, Simulated};
use crate::units::{BatchSize, FlushInterval, Nanos, PipelineName, Settings, Uid};

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
    /// A plain buffer on what many libraries ship: 100 events or 50 ms.
    Default,
    /// A plain buffer on the pipeline's defaults.
    Fixed,
    /// Flush what is queued whenever the sink is free.
    Greedy,
    /// The client's rule on the pipeline's defaults, with its own trigger by accrued waiting; no agent.
    L0,
    /// The client's rule under the agent, which follows three regimes of the rate.
    Regime,
    /// The client's rule under the agent, which learns the cost of a flush.
    Model,
}

impl Contender {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 6] = [Self::Default, Self::Fixed, Self::Greedy, Self::L0, Self::Regime, Self::Model];

    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Fixed => "fixed",
            Self::Greedy => "greedy",
            Self::L0 => "l0",
            Self::Regime => "regime",
            Self::Model => "model",
        }
    }

    /// The agent's policy, where the agent is on.
    pub fn policy(self) -> Option<Policy> {
        match self {
            Self::Regime => Some(Policy::Regime),
            Self::Model => Some(Policy::Model),
            _ => None,
        }
    }

    /// The one that a scenario's expectations are about.
    pub fn expected_of(scenario: &Scenario) -> Option<Self> {
        match scenario.registration.policy {
            Policy::Regime => Some(Self::Regime),
            Policy::Model => Some(Self::Model),
            Policy::Static | Policy::Greedy => None,
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
    /// Expectations of the scenario that the policy it names did not meet.
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
    /// The same without those that arrived before the expected time of settling.
    pub settled: Quantiles,
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
    /// Times that the breaker opened.
    pub breaker_trips: u64,
    /// Latencies of the settled parts of the phases.
    settled: Score,
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
            if Some(policy) == Contender::expected_of(scenario) {
                violations = expect::unmet(scenario, &report, &traces);
            }
            report
        })
        .collect();
    SimReport { scenario: scenario.name.clone(), seed, runs: runs.max(1), policies, violations }
}

/// Runs one policy once.
pub fn run(scenario: &Scenario, policy: Contender, seed: u64) -> Trace {
    let name = PipelineName::try_from("simulated".to_owned()).expect("a good name");
    let begin = START + LEAD;
    let end = Running::end(&scenario.phases, begin);
    // A second more, for what is still queued.
    let mut sim = SimSource::new(START, end + Nanos::SECOND);
    sim.add(pipeline(scenario, policy, &name, seed));
    if let Some(neighbour) = scenario.neighbour {
        sim.add(beside(scenario, policy, neighbour, begin, seed));
    }
    for (at, act) in &scenario.actions {
        sim.request(begin + *at, input(&name, *act));
    }
    if let Some(cores) = scenario.cpu_budget {
        sim.request(START, Input::CpuBudget { cores });
    }
    let mut core = Core::new(CoreConfig::default(), START);
    let starts = phase_starts(scenario);
    let mut trace = Trace {
        score: Score::of_phases(starts.clone()),
        settled: Score::of_phases(starts.clone()),
        settings: vec![(START, Bounds::new(&scenario.registration.knobs).defaults())],
        decisions: Vec::new(),
        breaker_trips: 0,
        totals: Totals::default(),
    };
    let mut batch = RawBatch::new();
    while sim.step(&mut batch) == Pulled::Batch {
        if policy.policy().is_some() {
            core.feed(&batch, |outcome| {
                for publish in outcome.publish {
                    sim.apply(&publish.name, publish.generation, publish.settings);
                    if publish.name == name {
                        trace.settings.push((outcome.now, publish.settings));
                    }
                }
                trace.decisions.extend(outcome.decisions.into_iter().filter(|d| d.name == name.as_str()));
            });
        }
        batch.clear();
        sim.drain(&name, |done| {
            trace.score.count(done);
            let phase = starts.partition_point(|start| *start <= done.arrived).saturating_sub(1);
            let within = scenario.expect.get(phase).copied().flatten().map_or(0, |expect| expect.within_ms);
            if starts.get(phase).is_some_and(|start| done.arrived >= *start + Nanos::from_millis(within)) {
                trace.settled.count(done);
            }
        });
    }
    trace.breaker_trips = trips(&trace.decisions);
    if let Some(running) = sim.running(&name) {
        let (words, _) = running.report();
        trace.totals = Totals {
            lost: words[ReportWord::EventsLost as usize],
            flushes: words[ReportWord::Flushes as usize],
            flush_ns: words[ReportWord::FlushNs as usize],
            cpu_ns: running.work().cpu_ns,
            span_ns: end.since(begin).0,
        };
    }
    trace
}

/// Times that the breaker opened: each begins with a decision that is no hold, or that a hold of another kind precedes.
fn trips(decisions: &[DecisionJson]) -> u64 {
    let open = |d: &DecisionJson| d.reason == Reason::BreakerOpen.word();
    let begins = decisions.windows(2).filter(|w| !open(&w[0]) && open(&w[1])).count();
    begins as u64 + u64::from(decisions.first().is_some_and(open))
}

fn input(name: &PipelineName, act: Act) -> Input {
    let (name, uid) = (name.clone(), Uid(0));
    match act {
        Act::Pin(request) => Input::Override { name, uid, request },
        Act::Free => Input::Free { name },
        Act::Pause => Input::Pause,
        Act::Resume => Input::Resume,
        Act::RollBack => Input::RollBack { name, uid },
    }
}

/// Largest batch that a shipped default fills, events, and how long it waits.
const DEFAULT_EVENTS: u64 = 100;
const DEFAULT_INTERVAL: FlushInterval = FlushInterval(50_000);

fn pipeline(scenario: &Scenario, policy: Contender, name: &PipelineName, seed: u64) -> Simulated {
    let lead = Phase { rate: 0.0, length: LEAD, flush: Nanos(0), trouble: Trouble::None };
    let phases = std::iter::once(lead).chain(scenario.phases.iter().copied()).collect();
    simulated(scenario, policy, name.clone(), phases, seed)
}

/// The second pipeline, from its arrival to the end.
fn beside(scenario: &Scenario, policy: Contender, of: Neighbour, begin: Nanos, seed: u64) -> Simulated {
    let name = PipelineName::try_from("neighbour".to_owned()).expect("a good name");
    let flush = scenario.phases.first().map_or(Nanos(0), |phase| phase.flush);
    let length = Running::end(&scenario.phases, Nanos(0)).since(of.from);
    let phases = vec![Phase { rate: of.rate, length, flush, trouble: Trouble::None }];
    let second = simulated(scenario, policy, name, phases, seed ^ 0x0062_6573_6964_6500);
    let mode = of.mode.unwrap_or(second.registration.mode);
    Simulated { from: begin + of.from, registration: Registration { mode, ..second.registration }, ..second }
}

fn simulated(scenario: &Scenario, policy: Contender, name: PipelineName, phases: Vec<Phase>, seed: u64) -> Simulated {
    let batch_max = RuleBytes(scenario.registration.knobs.batch_bytes.max);
    let rule: Box<dyn Rule> = match policy {
        Contender::Default | Contender::Fixed => Box::new(Fixed),
        Contender::Greedy => Box::new(Greedy { batch_max: GREEDY_BATCH }),
        Contender::L0 => Box::new(L0 { batch_max, kappa: Some(1.0) }),
        Contender::Regime | Contender::Model => Box::new(L0::by_settings(batch_max)),
    };
    let own = Bounds::new(&scenario.registration.knobs).defaults();
    let shipped = Settings { batch: BatchSize(DEFAULT_EVENTS * scenario.event.0), interval: DEFAULT_INTERVAL };
    let registration = policy.policy().map_or_else(
        || scenario.registration.clone(),
        |policy| Registration { policy, ..scenario.registration.clone() },
    );
    Simulated {
        name,
        registration,
        plant: Plant {
            phases,
            arrivals: scenario.arrivals,
            event: scenario.event,
            per_event: scenario.per_event,
            noise: scenario.noise,
            queue: scenario.queue,
            rule,
            defaults: if policy == Contender::Default { shipped } else { own },
        },
        lie: None,
        seed,
        from: START,
    }
}

fn phase_starts(scenario: &Scenario) -> Vec<Nanos> {
    let next = |at: &mut Nanos, length: Nanos| Some(std::mem::replace(at, *at + length));
    scenario.phases.iter().scan(START + LEAD, |at, phase| next(at, phase.length)).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a mean needs no more than 52 bits")]
fn report(scenario: &Scenario, policy: Contender, traces: &[Trace]) -> PolicyReport {
    let mut score = Score::of_phases(phase_starts(scenario));
    let mut settled = score.clone();
    let mut sum = Totals::default();
    let mut changes = 0;
    for Trace { score: one, settled: late, settings, totals, .. } in traces {
        score.merge(one);
        settled.merge(late);
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
        settled: settled.phase(nth),
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
