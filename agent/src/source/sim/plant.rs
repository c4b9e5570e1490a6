//! One simulated pipeline: arrivals, a queue, a flush rule and a sink that takes a + b·N. Virtual time, event by event.
//!
//! Open loop: events arrive when they are scheduled, whatever the pipeline does, and a latency counts from there to the
//! acknowledgement by the sink. Nothing here knows the agent: settings are put in from outside.

use std::collections::VecDeque;

use tidegate_client::abi::{REPORT_HISTOGRAM_WORDS, REPORT_WORDS, ReportWord, latency_bucket};
use tidegate_client::rule::flush_cost::FlushCost;
use tidegate_client::rule::{Cause, Queue, Rule, Settings as RuleSettings, Sink, Verdict, Waiting};
use tidegate_client::units::{Bytes as RuleBytes, Nanos as RuleNanos};

use crate::source::sim::lie::Lie;
use crate::source::sim::random::Random;
use crate::units::{Bytes, Generation, Nanos, Settings};

/// How events arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arrivals {
    /// At exponential gaps.
    #[default]
    Poisson,
    /// At equal gaps.
    Even,
}

/// A span of steady load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Phase {
    /// Events per second.
    pub rate: f64,
    /// How long.
    pub length: Nanos,
    /// Cost of a flush, whatever is in it.
    pub flush: Nanos,
    /// What is wrong meanwhile.
    pub trouble: Trouble,
}

/// What is wrong in a phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    #[default]
    None,
    /// The sink takes its time and then refuses: each flush is tried again.
    Failing,
    /// The pipeline writes no report.
    Silent,
    /// It lies in its report.
    Lying(Lie),
}

/// What a simulated pipeline is made of.
pub struct Plant {
    /// Its load, phase after phase; afterwards nothing arrives.
    pub phases: Vec<Phase>,
    /// How events arrive.
    pub arrivals: Arrivals,
    /// Size of an event.
    pub event: Bytes,
    /// Cost of each event in a flush.
    pub per_event: Nanos,
    /// How far the cost of a flush goes to and fro, as a share of it: 0 to 1.
    pub noise: f64,
    /// Capacity of its queue; what does not fit is lost.
    pub queue: Bytes,
    /// Its flush rule.
    pub rule: Box<dyn Rule>,
    /// Its own settings.
    pub defaults: Settings,
}

/// Cumulative counters of a pipeline's own doing, beside its report.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// CPU time, ns.
    pub cpu_ns: u64,
    /// Context switches.
    pub switches: u64,
    /// Reads, and the bytes they brought.
    pub reads: (u64, u64),
    /// Writes, and the bytes they took.
    pub writes: (u64, u64),
}

/// An acknowledged event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// When it arrived.
    pub arrived: Nanos,
    /// From there to its acknowledgement.
    pub latency: Nanos,
}

/// A pipeline that runs.
pub struct Running {
    plant: Plant,
    random: Random,
    now: u64,
    phase: usize,
    phase_end: u64,
    next: u64,
    queue: VecDeque<u64>,
    /// Sum of the arrival times of what is queued, ns.
    arrivals: u128,
    flush_cost: FlushCost,
    flight: Option<Flight>,
    settings: RuleSettings,
    generation: Generation,
    words: [u64; REPORT_WORDS],
    histogram: [u64; REPORT_HISTOGRAM_WORDS],
    done: Vec<Done>,
    work: Work,
}

struct Flight {
    begun: u64,
    ends: u64,
    arrivals: Vec<u64>,
    cause: Cause,
}

const NEVER: u64 = u64::MAX;
/// A flush that failed is tried again after this long, ns.
const RETRY_AFTER: u64 = 100_000_000;
/// CPU time of a flush, and of an event: what a small batcher was seen to take.
const CPU_PER_FLUSH: u64 = 60_000;
const CPU_PER_EVENT: u64 = 400;

impl Running {
    /// Starts at `start`.
    pub fn start(plant: Plant, seed: u64, start: Nanos) -> Self {
        let settings = rule_settings(plant.defaults);
        let mut running = Self {
            random: Random::new(seed),
            now: start.0,
            phase: 0,
            phase_end: start.0.saturating_add(plant.phases.first().map_or(0, |p| p.length.0)),
            next: NEVER,
            queue: VecDeque::new(),
            arrivals: 0,
            flush_cost: FlushCost::default(),
            flight: None,
            settings,
            generation: Generation(0),
            words: [0; REPORT_WORDS],
            histogram: [0; REPORT_HISTOGRAM_WORDS],
            done: Vec::new(),
            work: Work::default(),
            plant,
        };
        running.schedule(start.0);
        running
    }

    /// Puts settings in force.
    pub fn apply(&mut self, generation: Generation, settings: Settings) {
        (self.generation, self.settings) = (generation, rule_settings(settings));
    }

    /// When the last phase ends.
    pub fn end(phases: &[Phase], start: Nanos) -> Nanos {
        phases.iter().fold(start, |sum, phase| sum + phase.length)
    }

    /// Events acknowledged since this was last asked, in their order.
    pub fn drain(&mut self) -> std::vec::Drain<'_, Done> {
        self.done.drain(..)
    }

    /// Cumulative counters.
    pub fn work(&self) -> Work {
        self.work
    }

    /// Bytes that wait.
    pub fn queued(&self) -> u64 {
        self.queue.len() as u64 * self.plant.event.0
    }

    /// Its report, as it stands.
    pub fn report(&self) -> ([u64; REPORT_WORDS], [u64; REPORT_HISTOGRAM_WORDS]) {
        let mut words = self.words;
        let levels = [
            (ReportWord::QueueEvents, self.queue.len() as u64),
            (ReportWord::QueueBytes, self.queued()),
            (ReportWord::QueueCapacity, self.plant.queue.0),
            (ReportWord::Generation, self.generation.0),
            (ReportWord::BatchBytes, self.settings.batch.0),
            (ReportWord::FlushIntervalUs, self.settings.interval.as_micros()),
            (ReportWord::UpdatedNs, self.now),
        ];
        for (word, value) in levels {
            words[word as usize] = value;
        }
        (words, self.histogram)
    }

    /// Runs up to `until`.
    pub fn advance(&mut self, until: Nanos) {
        let mut wake = self.decide(Sink::Idle);
        loop {
            let flight = self.flight.as_ref().map_or(NEVER, |f| f.ends);
            let at = flight.min(self.next).min(wake).min(self.phase_end);
            if at > until.0 {
                break;
            }
            self.now = self.now.max(at);
            if flight == at {
                self.land();
                wake = self.decide(Sink::Freed);
            } else if self.next == at {
                self.arrive();
                if self.flight.is_none() {
                    wake = self.decide(Sink::Idle);
                }
            } else if self.phase_end == at {
                self.turn();
            } else {
                wake = self.decide(Sink::Idle);
            }
        }
        self.now = self.now.max(until.0);
    }

    /// Asks the rule; returns when to ask again if nothing happens before.
    fn decide(&mut self, sink: Sink) -> u64 {
        if self.flight.is_some() {
            return NEVER;
        }
        let queue = Queue {
            bytes: RuleBytes(self.queued()),
            oldest: self.queue.front().copied().map(RuleNanos),
            capacity: RuleBytes(self.plant.queue.0),
            waiting: self.flush_cost.fixed().map(|flush_cost| Waiting {
                events: self.queue.len() as u64,
                arrivals_ns: self.arrivals,
                flush_cost,
            }),
        };
        match self.plant.rule.decide(&self.settings, &queue, sink, RuleNanos(self.now)) {
            Verdict::Wait { until } => until.map_or(NEVER, |until| until.0),
            Verdict::Flush { cause, take } => {
                self.take_off(cause, take.0);
                NEVER
            }
        }
    }

    fn take_off(&mut self, cause: Cause, take: u64) {
        let events = usize::try_from(take / self.plant.event.0.max(1)).unwrap_or(usize::MAX).max(1);
        let arrivals: Vec<u64> = self.queue.drain(..events.min(self.queue.len())).collect();
        self.arrivals -= arrivals.iter().copied().map(u128::from).sum::<u128>();
        let cost = self.cost_of(arrivals.len() as u64);
        self.flight = Some(Flight { begun: self.now, ends: self.now.saturating_add(cost.max(1)), arrivals, cause });
    }

    fn phase(&self) -> Option<&Phase> {
        self.plant.phases.get(self.phase).or(self.plant.phases.last())
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a duration to a few digits"
    )]
    fn cost_of(&mut self, events: u64) -> u64 {
        let fixed = self.phase().map_or(0, |phase| phase.flush.0);
        let cost = fixed.saturating_add(self.plant.per_event.0.saturating_mul(events));
        if self.plant.noise > 0.0 {
            (cost as f64 * (1.0 + self.plant.noise * (2.0 * self.random.unit() - 1.0))) as u64
        } else {
            cost
        }
    }

    /// What is wrong now.
    pub fn trouble(&self) -> Trouble {
        self.phase().map_or(Trouble::None, |phase| phase.trouble)
    }

    fn land(&mut self) {
        let Some(Flight { begun, ends, arrivals, cause }) = self.flight.take() else {
            return;
        };
        if self.trouble() == Trouble::Failing {
            self.words[ReportWord::FlushErrors as usize] += 1;
            let again = self.cost_of(arrivals.len() as u64).saturating_add(RETRY_AFTER);
            self.flight = Some(Flight { begun, ends: ends.saturating_add(again.max(1)), arrivals, cause });
            return;
        }
        let events = arrivals.len() as u64;
        let bytes = events * self.plant.event.0;
        self.flush_cost.observe(RuleBytes(bytes), RuleNanos(ends - begun));
        let by_cause = match cause {
            Cause::Age => ReportWord::FlushesByAge,
            Cause::Size => ReportWord::FlushesBySize,
            Cause::Backlog => ReportWord::FlushesByBacklog,
            Cause::Panic => ReportWord::FlushesByPanic,
            Cause::Waiting => ReportWord::FlushesByWaiting,
        };
        let us = (ends - begun).saturating_add(500) / 1_000;
        let counts = [
            (ReportWord::EventsOut, events),
            (ReportWord::BytesOut, bytes),
            (ReportWord::Flushes, 1),
            (ReportWord::FlushNs, ends - begun),
            (ReportWord::FlushBytesSquared, bytes.wrapping_mul(bytes)),
            (ReportWord::FlushBytesUs, bytes.wrapping_mul(us)),
            (ReportWord::FlushUsSquared, us.wrapping_mul(us)),
            (by_cause, 1),
        ];
        for (word, count) in counts {
            self.words[word as usize] = self.words[word as usize].wrapping_add(count);
        }
        for arrived in arrivals {
            let latency = ends.saturating_sub(arrived);
            self.histogram[latency_bucket(RuleNanos(latency))] += 1;
            self.done.push(Done { arrived: Nanos(arrived), latency: Nanos(latency) });
        }
        self.work.cpu_ns += CPU_PER_FLUSH + events * CPU_PER_EVENT;
        self.work.switches += 2;
        self.work.writes = (self.work.writes.0 + 1, self.work.writes.1 + bytes);
    }

    fn arrive(&mut self) {
        if self.queued().saturating_add(self.plant.event.0) > self.plant.queue.0 {
            self.words[ReportWord::EventsLost as usize] += 1;
        } else {
            self.queue.push_back(self.next);
            self.arrivals += u128::from(self.next);
        }
        self.words[ReportWord::EventsIn as usize] += 1;
        self.words[ReportWord::BytesIn as usize] += self.plant.event.0;
        self.work.reads = (self.work.reads.0 + 1, self.work.reads.1 + self.plant.event.0);
        self.schedule(self.next);
    }

    /// The next phase begins. Exponential gaps have no memory, so a new one may be drawn here.
    fn turn(&mut self) {
        let at = self.phase_end;
        self.phase += 1;
        self.phase_end = self.plant.phases.get(self.phase).map_or(NEVER, |p| at.saturating_add(p.length.0));
        self.schedule(at);
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float becomes an integer by saturation"
    )]
    fn schedule(&mut self, after: u64) {
        let rate = self.plant.phases.get(self.phase).map_or(0.0, |phase| phase.rate);
        let gap = match self.plant.arrivals {
            Arrivals::Poisson => self.random.exponential(),
            Arrivals::Even => 1.0,
        };
        let next = if rate > 0.0 { after.saturating_add((1e9 * gap / rate) as u64) } else { NEVER };
        // What would arrive after the phase belongs to the next one, which draws anew.
        self.next = if next < self.phase_end { next.max(after.saturating_add(1)) } else { NEVER };
    }
}

fn rule_settings(settings: Settings) -> RuleSettings {
    RuleSettings { batch: RuleBytes(settings.batch.0), interval: RuleNanos::from_micros(settings.interval.0) }
}

#[cfg(test)]
mod tests {
    use tidegate_client::rule::L0;

    use super::*;
    use crate::source::sim::rules::{Fixed, Greedy};
    use crate::units::{BatchSize, FlushInterval};

    fn plant(rate: f64, rule: Box<dyn Rule>) -> Running {
        queued(rate, Bytes(64 << 20), rule)
    }

    fn queued(rate: f64, queue: Bytes, rule: Box<dyn Rule>) -> Running {
        let phase = Phase { rate, length: Nanos::from_secs(10), flush: Nanos::from_millis(10), trouble: Trouble::None };
        let plant = Plant {
            phases: vec![phase],
            arrivals: Arrivals::Even,
            event: Bytes(512),
            per_event: Nanos(0),
            noise: 0.0,
            queue,
            rule,
            defaults: Settings { batch: BatchSize(256 << 10), interval: FlushInterval(250_000) },
        };
        Running::start(plant, 1, Nanos(0))
    }

    fn latencies_ms(running: &mut Running) -> Vec<f64> {
        running.advance(Nanos::from_secs(20));
        let mut all: Vec<f64> = running.drain().map(|d| d.latency.as_millis_f64()).collect();
        all.sort_unstable_by(f64::total_cmp);
        all
    }

    #[test]
    fn a_fixed_buffer_at_low_load_waits_for_its_timer() {
        let all = latencies_ms(&mut plant(100.0, Box::new(Fixed)));
        assert_eq!(all.len(), 999);
        assert!(all.last().is_some_and(|max| (*max - 260.0).abs() < 0.1), "{:?}", all.last());
    }

    #[test]
    fn greedy_never_waits_longer_than_two_flushes() {
        let all = latencies_ms(&mut plant(5_000.0, Box::new(Greedy { batch_max: RuleBytes(512 << 10) })));
        assert!(all.iter().all(|ms| (10.0..=20.1).contains(ms)), "{:?} {:?}", all.first(), all.last());
    }

    #[test]
    fn by_waiting_alone_events_wait_about_as_long_in_all_as_a_flush_costs() {
        let rule = L0 { batch_max: RuleBytes(512 << 10), kappa: Some(1.0) };
        let all = latencies_ms(&mut plant(1_000.0, Box::new(rule)));
        // At 1,000 events/s and 10 ms a flush the sink frees with ten events queued, which is 45 to 55 ms of waiting. Before
        // the first flush its cost is not known, and the interval of 250 ms holds.
        assert!(all[9_700] < 21.0, "{:?}", all[9_700]);
        let lone = latencies_ms(&mut plant(20.0, Box::new(rule)));
        let (first, late) = (lone[10], lone[190]);
        assert!((19.9..20.1).contains(&first) && late < 20.1, "a lone event waits one flush: {first} {late}");
    }

    #[test]
    fn what_arrived_is_acknowledged_queued_or_lost() {
        let mut running = queued(60_000.0, Bytes(300 << 10), Box::new(Fixed));
        for tick in 1..=120 {
            running.advance(Nanos(tick * Nanos::TICK.0));
            let (words, histogram) = running.report();
            let word = |w: ReportWord| words[w as usize];
            let flying = running.flight.as_ref().map_or(0, |f| f.arrivals.len() as u64);
            let known = word(ReportWord::EventsOut) + word(ReportWord::QueueEvents) + word(ReportWord::EventsLost);
            assert_eq!(word(ReportWord::EventsIn), known + flying);
            assert_eq!(histogram.iter().sum::<u64>(), word(ReportWord::EventsOut));
        }
        assert!(running.report().0[ReportWord::EventsLost as usize] > 1_000, "a full queue takes nothing");
    }
}
