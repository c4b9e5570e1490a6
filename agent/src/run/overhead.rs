//! The budget of the agent's own cost: counters of the system in, a step of the governor's ladder out, once a look of ten
//! seconds. What somebody asks for explicitly stands outside: a look in which that happened changes nothing.

use crate::control::budget::{Changed, Cost, OverheadGovernor, Step};
use crate::serve::view::{BudgetView, OwnCost};
use crate::units::{Nanos, ProfileKind, Ratio};

/// Length of a look.
const LOOK: Nanos = Nanos::from_secs(10);
/// So long of each look the kernel keeps the run time of the probes: keeping it costs some ten nanoseconds a run.
const MEASURED: Nanos = Nanos::SECOND;

/// Looks that hold what the start costs and are shown, but not judged: loading and verifying, then the tables of all that
/// runs, then, when the first window closes, the names of all that it saw.
const STARTING: u32 = 3;

/// Watches the cost and turns the ladder.
#[derive(Debug)]
pub(super) struct Overhead {
    governor: OverheadGovernor,
    budget: Ratio,
    cpus: u32,
    began: Nanos,
    own_before: Nanos,
    /// Looks that are still part of the start.
    starting: u32,
    asked_for: AskedFor,
    probes: ProbeTime,
    share: Option<Ratio>,
}

/// Whether somebody watched something in this look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AskedFor {
    /// What runs, runs by configuration.
    Nothing,
    /// Somebody wants to see something, whatever it costs.
    Something,
}

/// What is due now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// The kernel shall keep the run time of the probes from now on, or no more.
    pub(super) measure: Option<Measure>,
    /// The step has changed.
    pub(super) step: Option<&'static Step>,
}

/// Whether the kernel shall keep the run time of the probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    /// From now on.
    Begin,
    /// No more.
    End,
}

/// The run time of the probes, measured for a part of each look and counted for the whole.
#[derive(Debug, Default)]
struct ProbeTime {
    since: Option<(Nanos, Nanos)>,
    /// The kernel was asked to keep it in this look, and still does not.
    began: bool,
    unknown: bool,
    /// Of this look.
    share: Option<f64>,
    total: Option<Nanos>,
}

impl Overhead {
    /// Begins at `now`.
    pub(super) fn new(budget: Ratio, cpus: u32, now: Nanos) -> Self {
        Self {
            governor: OverheadGovernor::default(),
            budget,
            cpus,
            began: now,
            own_before: Nanos(0),
            starting: STARTING,
            asked_for: AskedFor::Nothing,
            probes: ProbeTime::default(),
            share: None,
        }
    }

    /// Once a tick: `own` is the cost so far, `run_time` tells that of the probes where the kernel keeps it, and is asked
    /// as seldom as will do: each time it looks every program up.
    pub(super) fn tick(
        &mut self,
        now: Nanos,
        own: &OwnCost,
        run_time: impl FnOnce() -> Option<Nanos>,
        asked_for: AskedFor,
    ) -> Due {
        let mut due = Due::default();
        if asked_for == AskedFor::Something {
            self.asked_for = asked_for;
        }
        match self.probes.since {
            None if self.probes.share.is_none() && !self.probes.unknown => match run_time() {
                Some(time) => self.probes.since = Some((now, time)),
                None if self.probes.began => self.probes.unknown = true,
                None => (self.probes.began, due.measure) = (true, Some(Measure::Begin)),
            },
            Some((then, before)) if now.since(then) >= MEASURED => {
                if let Some(time) = run_time() {
                    self.probes.take(now.since(then), time.since(before));
                } else {
                    // Somebody else kept it, and does no more.
                    (self.probes.since, self.probes.unknown) = (None, true);
                }
                due.measure = Some(Measure::End);
            }
            _ => {}
        }
        if now.since(self.began) < LOOK {
            return due;
        }
        let spent = own.cpu();
        let span = now.since(self.began);
        let probes = self.probes.of(span);
        let cost = Cost { span, cpus: self.cpus, own_cpu: spent.since(self.own_before), probes };
        let is_start = self.starting > 0;
        self.starting = self.starting.saturating_sub(1);
        self.share = cost.share();
        if !is_start && self.asked_for == AskedFor::Nothing && self.governor.look(&cost, self.budget) == Changed::Yes {
            due.step = Some(self.governor.step());
        }
        (self.began, self.own_before, self.asked_for) = (now, spent, AskedFor::Nothing);
        (self.probes.share, self.probes.unknown) = (None, false);
        due.measure = due.measure.or((self.probes.since.is_none()).then_some(Measure::Begin));
        self.probes.began = due.measure == Some(Measure::Begin);
        due
    }

    /// Run time of the probes since the start, as far as it is known.
    pub(super) fn probes_time(&self) -> Option<Nanos> {
        self.probes.total
    }

    /// Kinds that are left out.
    pub(super) fn shed(&self) -> &'static [ProfileKind] {
        self.governor.step().shed
    }

    /// For the routes.
    pub(super) fn view(&self, cpu_period: Nanos) -> BudgetView {
        let Step { wait_factor, cpu_factor, shed } = *self.governor.step();
        BudgetView {
            budget: self.budget,
            share: self.share,
            step: self.governor.number(),
            cpu_period: Nanos(cpu_period.0.saturating_mul(u64::from(cpu_factor))),
            cpu_factor,
            wait_factor,
            shed,
        }
    }
}

impl ProbeTime {
    fn take(&mut self, span: Nanos, ran: Nanos) {
        self.since = None;
        self.share = (span > Nanos(0)).then(|| ran.as_secs_f64() / span.as_secs_f64());
    }

    /// The run time of a look of that length, from the part that was measured.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of some seconds is neither")]
    fn of(&mut self, span: Nanos) -> Option<Nanos> {
        let time = Nanos((self.share? * span.as_secs_f64() * 1e9) as u64);
        self.total = Some(self.total.unwrap_or_default() + time);
        Some(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host of two CPUs on which agent and probes take those shares of one, in thousandths.
    fn run(overhead: &mut Overhead, from: u64, seconds: u64, own: u64, probes: u64, asked: AskedFor) -> Vec<Due> {
        let mut due = Vec::new();
        let mut kept = false;
        for tick in from * 10..(from + seconds) * 10 {
            let now = Nanos(tick * Nanos::TICK.0);
            let cost = OwnCost { user_cpu_ns: now.0 / 1_000 * own, ..OwnCost::default() };
            let time = kept.then_some(Nanos(now.0 / 1_000 * probes));
            let next = overhead.tick(now, &cost, || time, asked);
            match next.measure {
                Some(Measure::Begin) => kept = true,
                Some(Measure::End) => kept = false,
                None => {}
            }
            due.push(next);
        }
        due
    }

    #[test]
    fn a_tenth_of_each_look_is_measured_and_the_whole_is_judged() {
        let mut overhead = Overhead::new(Ratio(0.01), 2, Nanos(0));
        let due = run(&mut overhead, 0, 100, 5, 10, AskedFor::Nothing);
        let measured = due.iter().filter(|d| d.measure == Some(Measure::Begin)).count();
        assert!((9..=11).contains(&measured), "{measured} times in ten looks");
        let share = overhead.view(Nanos(1)).share.unwrap().0;
        assert!((share - 0.0075).abs() < 0.000_1, "half of (0.5 % + 1 %) is {share}");
        assert!(due.iter().all(|d| d.step.is_none()));
        let total = overhead.probes_time().unwrap().as_secs_f64();
        assert!((total - 1.0).abs() < 0.15, "1 % of 100 s is {total} s");
    }

    #[test]
    fn a_run_time_that_somebody_else_stops_is_measured_again_at_the_next_look() {
        let mut overhead = Overhead::new(Ratio(0.01), 2, Nanos(0));
        let mut tick = |second: u64, time: Option<Nanos>| {
            overhead.tick(Nanos::from_secs(second), &OwnCost::default(), || time, AskedFor::Nothing).measure
        };
        // It was kept by the system's switch, which is off by the time that it is read again.
        assert_eq!(tick(1, Some(Nanos(5))), None);
        assert_eq!(tick(3, None), Some(Measure::End));
        assert_eq!((tick(4, None), tick(5, None)), (None, None), "it has ended");
        assert_eq!(tick(10, None), Some(Measure::Begin));
    }

    #[test]
    fn the_start_is_not_held_against_the_agent() {
        let mut overhead = Overhead::new(Ratio(0.01), 2, Nanos(0));
        // Names of all that was seen: a tenth of a CPU until half a minute has passed.
        let due = run(&mut overhead, 0, 29, 100, 1, AskedFor::Nothing);
        assert!(due.iter().all(|d| d.step.is_none()) && overhead.view(Nanos(1)).step == 0);
        assert!(overhead.view(Nanos(1)).share.unwrap().0 > 0.04, "it is shown all the same");
        let due = run(&mut overhead, 29, 30, 100, 1, AskedFor::Nothing);
        assert!(due.iter().any(|d| d.step.is_some()), "from then on it is");
    }

    #[test]
    fn over_the_budget_things_go_and_what_was_asked_for_is_not_held_against_it() {
        let mut overhead = Overhead::new(Ratio(0.01), 2, Nanos(0));
        run(&mut overhead, 0, 40, 15, 10, AskedFor::Something);
        assert_eq!(overhead.view(Nanos(1)).step, 0, "somebody wanted to see it");
        let due = run(&mut overhead, 40, 30, 15, 10, AskedFor::Nothing);
        assert!(due.iter().any(|d| d.step.is_some()) && overhead.view(Nanos(1)).step > 0);
        assert!(overhead.view(Nanos(10)).share.unwrap().0 > 0.01);
    }
}
