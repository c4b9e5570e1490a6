//! The overhead governor: what the agent itself cost in, how often the probes may look out. Never touches a probe.
//!
//! A ladder of fixed steps and not a controller of rates: an operator can read from one number what is left out and in
//! which order things went, and a ladder cannot swing between two rates that nobody has heard of. Up at once when the
//! budget is exceeded, down one step only after a minute far below it, so that a cost near the limit settles instead of
//! going to and fro. Each sample carries what it stands for, so a profile stays unbiased whatever the step.

use crate::units::{Nanos, ProfileKind, Ratio};

/// Share of the host that the agent may cost, unless told otherwise.
pub const DEFAULT_BUDGET: Ratio = Ratio(0.01);

/// Below this share of the budget there is room for the step before: each step about halves the cost, at most.
const ROOM: f64 = 0.4;

/// Looks in a row with room before a step down.
const LOOKS_WITH_ROOM: u32 = 6;

/// One step of the ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Periods between stacks of waits (off-CPU, run queue, socket) are this many times as long.
    pub wait_factor: u32,
    /// Periods between CPU samples are this many times as long.
    pub cpu_factor: u32,
    /// Kinds that are not recorded unless somebody asks for them by name.
    pub shed: &'static [ProfileKind],
}

/// The order in which things go: first stacks of short waits, whose totals stay exact all the same; then who woke whom
/// and who read; then the rate on the CPU; then waiting altogether. The last step still samples the CPU, an eighth as often.
pub const LADDER: [Step; 9] = [
    Step { wait_factor: 1, cpu_factor: 1, shed: &[] },
    Step { wait_factor: 4, cpu_factor: 1, shed: &[] },
    Step { wait_factor: 16, cpu_factor: 1, shed: &[] },
    Step { wait_factor: 64, cpu_factor: 1, shed: &[] },
    Step { wait_factor: 64, cpu_factor: 1, shed: &[ProfileKind::Wakeup] },
    Step { wait_factor: 64, cpu_factor: 1, shed: &[ProfileKind::Wakeup, ProfileKind::Sock] },
    Step { wait_factor: 64, cpu_factor: 2, shed: &[ProfileKind::Wakeup, ProfileKind::Sock] },
    Step {
        wait_factor: 64,
        cpu_factor: 4,
        shed: &[ProfileKind::Wakeup, ProfileKind::Sock, ProfileKind::Runq, ProfileKind::Offcpu],
    },
    Step {
        wait_factor: 64,
        cpu_factor: 8,
        shed: &[ProfileKind::Wakeup, ProfileKind::Sock, ProfileKind::Runq, ProfileKind::Offcpu],
    },
];

/// What the agent cost over one look: a profile window, 10 s.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// How long the look was.
    pub span: Nanos,
    /// CPUs of the host.
    pub cpus: u32,
    /// CPU time of the agent and its children, without what somebody asked for explicitly.
    pub own_cpu: Nanos,
    /// Run time of the probes; absent where the kernel does not tell, and then the budget judges by the rest.
    pub probes: Option<Nanos>,
}

impl Cost {
    /// Share of the whole host, 0 to 1; absent for a look of no length.
    #[expect(clippy::cast_precision_loss, reason = "a share to three digits")]
    pub fn share(&self) -> Option<Ratio> {
        let host = self.span.0.checked_mul(u64::from(self.cpus)).filter(|ns| *ns > 0)?;
        let spent = self.own_cpu + self.probes.unwrap_or_default();
        Some(Ratio(spent.0 as f64 / host as f64))
    }
}

/// Where the governor stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OverheadGovernor {
    step: usize,
    looks_with_room: u32,
}

impl OverheadGovernor {
    /// The step in force.
    pub fn step(&self) -> &'static Step {
        &LADDER[self.step.min(LADDER.len() - 1)]
    }

    /// Its number: 0 when nothing is left out.
    pub fn number(&self) -> usize {
        self.step
    }

    /// Takes in a look and says whether the step has changed. A cost that is not known changes nothing.
    pub fn look(&mut self, cost: &Cost, budget: Ratio) -> Changed {
        let before = self.step;
        let Some(share) = cost.share().filter(|_| budget.0 > 0.0) else { return Changed::No };
        if share.0 > budget.0 {
            // A step about halves what can be saved: far above the budget, one at a time would take minutes.
            let steps = if share.0 > 2.0 * budget.0 { 2 } else { 1 };
            self.step = (self.step + steps).min(LADDER.len() - 1);
            self.looks_with_room = 0;
        } else if share.0 < ROOM * budget.0 {
            self.looks_with_room += 1;
            if self.looks_with_room >= LOOKS_WITH_ROOM {
                self.looks_with_room = 0;
                self.step = self.step.saturating_sub(1);
            }
        } else {
            self.looks_with_room = 0;
        }
        if self.step == before { Changed::No } else { Changed::Yes }
    }
}

/// Whether a look changed the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It did: rates are to be set anew.
    Yes,
    /// It did not.
    No,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A cost of `milli` thousandths of a host with two CPUs.
    fn cost(milli: u64) -> Cost {
        let own_cpu = Nanos::from_millis(10 * milli);
        Cost { span: Nanos::from_secs(10), cpus: 2, own_cpu, probes: Some(own_cpu) }
    }

    #[test]
    fn a_cost_over_the_budget_is_answered_at_once_and_one_below_it_never() {
        let mut governor = OverheadGovernor::default();
        for _ in 0..100 {
            assert_eq!(governor.look(&cost(10), DEFAULT_BUDGET), Changed::No);
        }
        assert_eq!(governor.look(&cost(11), DEFAULT_BUDGET), Changed::Yes);
        assert_eq!((governor.number(), governor.step().wait_factor, governor.step().cpu_factor), (1, 4, 1));
        assert_eq!(governor.look(&cost(30), DEFAULT_BUDGET), Changed::Yes);
        assert_eq!(governor.number(), 3);
    }

    #[test]
    fn room_is_taken_back_only_after_a_minute_of_it() {
        let mut governor = OverheadGovernor { step: 3, looks_with_room: 0 };
        for _ in 0..5 {
            assert_eq!(governor.look(&cost(3), DEFAULT_BUDGET), Changed::No);
        }
        assert_eq!(governor.look(&cost(5), DEFAULT_BUDGET), Changed::No, "one look without room begins anew");
        for _ in 0..5 {
            assert_eq!(governor.look(&cost(3), DEFAULT_BUDGET), Changed::No);
        }
        assert_eq!(governor.look(&cost(3), DEFAULT_BUDGET), Changed::Yes);
        assert_eq!(governor.number(), 2);
    }

    #[test]
    fn a_cost_that_falls_with_each_step_settles() {
        for at_first in [4_u64, 12, 19, 35, 80, 300] {
            let mut governor = OverheadGovernor::default();
            let mut changes = Vec::new();
            for look in 0..1_000 {
                // A floor that no step can save, and a rest that each step halves.
                let milli = 2 + (at_first << 10 >> governor.number() >> 10);
                if governor.look(&cost(milli), DEFAULT_BUDGET) == Changed::Yes {
                    changes.push(look);
                }
            }
            assert!(changes.iter().all(|look| *look < 100), "{at_first}: still changing at {changes:?}");
        }
    }

    #[test]
    fn what_is_shed_stays_shed_further_up_and_periods_only_grow() {
        for pair in LADDER.windows(2) {
            assert!(pair[0].shed.iter().all(|kind| pair[1].shed.contains(kind)));
            assert!(pair[1].wait_factor >= pair[0].wait_factor && pair[1].cpu_factor >= pair[0].cpu_factor);
        }
        assert!(LADDER.iter().all(|step| !step.shed.contains(&ProfileKind::Cpu)), "the CPU is always sampled");
    }

    #[test]
    fn a_cost_that_is_not_known_changes_nothing() {
        let mut governor = OverheadGovernor { step: 2, looks_with_room: 0 };
        for unknown in [Cost { span: Nanos(0), ..cost(500) }, Cost { cpus: 0, ..cost(500) }] {
            assert_eq!(governor.look(&unknown, DEFAULT_BUDGET), Changed::No);
        }
        assert_eq!(governor.number(), 2);
    }

    proptest! {
        #[test]
        fn any_costs_leave_it_on_the_ladder(looks in proptest::collection::vec((any::<u64>(), any::<u64>(), any::<u32>()), 0..200)) {
            let mut governor = OverheadGovernor::default();
            for (own, span, cpus) in looks {
                let before = governor.number();
                let one = Cost { span: Nanos(span), cpus, own_cpu: Nanos(own), probes: None };
                governor.look(&one, DEFAULT_BUDGET);
                prop_assert!(governor.number() < LADDER.len());
                prop_assert!(governor.number().abs_diff(before) <= 2);
            }
        }
    }
}
