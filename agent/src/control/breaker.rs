//! The breaker: signs that tuning cannot be right in; closed, open or half-open out. Open means the pipeline's own settings.
//!
//! A fuse and not a controller: it looks only at what no policy can mend. Open it waits, each time twice as long; half-open
//! it lets the policy try again and opens at the first sign; closed again it forgets.

use std::collections::VecDeque;

use crate::units::Nanos;

/// Flushes that fail, a second, before it counts as a sick sink.
pub const FAILING: f64 = 1.0;
/// For so long.
pub const FAILING_FOR: Nanos = Nanos::from_secs(2);
/// The p99 is far missed beyond this factor of what is wanted, where the policy expects to meet it.
pub const FAR_MISSED: f64 = 5.0;
/// For so long.
pub const FAR_MISSED_FOR: Nanos = Nanos::from_secs(10);
/// Signals that stay away for so long are lost.
pub const LOST_AFTER: Nanos = Nanos::from_secs(10);
/// Roll-backs that trip it, within [`ROLL_BACKS_WITHIN`].
pub const ROLL_BACKS: usize = 3;
/// See [`ROLL_BACKS`].
pub const ROLL_BACKS_WITHIN: Nanos = Nanos::from_secs(600);
/// First time open.
pub const OPEN_FOR: Nanos = Nanos::from_secs(30);
/// Longest time open.
pub const LONGEST_OPEN: Nanos = Nanos::from_secs(480);
/// Half-open for so long before it closes.
pub const HALF_OPEN_FOR: Nanos = Nanos::from_secs(10);

/// Why it opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The sink fails.
    Failing,
    /// The wanted p99 is far missed.
    FarMissed,
    /// The signals are lost.
    SignalsLost,
    /// Changes were taken back again and again.
    RollBacks,
}

impl Cause {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Failing => "flushes keep failing",
            Self::FarMissed => "the wanted p99 is missed by far although the settings should meet it",
            Self::SignalsLost => "no report has come for 10 s",
            Self::RollBacks => "three changes were taken back within ten minutes",
        }
    }
}

/// What it looks at in one tick.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Vitals {
    /// Flushes that failed, a second.
    pub failed_per_s: Option<f64>,
    /// The p99 over what is wanted, where the policy expects to meet it.
    pub p99_over_wanted: Option<f64>,
    /// Age of the last good report.
    pub report_age: Option<Nanos>,
}

/// Where it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Position {
    /// The policy leads.
    #[default]
    Closed,
    /// The pipeline's own settings hold.
    Open(Cause),
    /// The policy tries again.
    HalfOpen(Cause),
}

/// The breaker of one pipeline.
#[derive(Clone, Debug, Default)]
pub struct Breaker {
    position: Position,
    since: Nanos,
    open_for: Option<Nanos>,
    failing_since: Option<Nanos>,
    missed_since: Option<Nanos>,
    roll_backs: VecDeque<Nanos>,
    trips: u64,
}

impl Breaker {
    /// Where it stands.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Times that it opened.
    pub fn trips(&self) -> u64 {
        self.trips
    }

    /// A change was taken back.
    pub fn rolled_back(&mut self, now: Nanos) {
        self.roll_backs.push_back(now);
        while self.roll_backs.len() > ROLL_BACKS {
            self.roll_backs.pop_front();
        }
    }

    /// Takes in a tick. Whether the position changed.
    pub fn look(&mut self, now: Nanos, vitals: &Vitals) -> bool {
        let sign = self.sign(now, vitals);
        let next = match (self.position, sign) {
            (Position::Closed | Position::HalfOpen(_), Some(cause)) => {
                self.open_for = Some(self.open_for.map_or(OPEN_FOR, |last| (last + last).min(LONGEST_OPEN)));
                self.trips += 1;
                (self.failing_since, self.missed_since) = (None, None);
                self.roll_backs.clear();
                Position::Open(cause)
            }
            // Lost signals are over when they are back, and not before.
            (Position::Open(Cause::SignalsLost), None) => Position::HalfOpen(Cause::SignalsLost),
            (Position::Open(cause), _)
                if cause != Cause::SignalsLost && now.since(self.since) >= self.open_for.unwrap_or(OPEN_FOR) =>
            {
                Position::HalfOpen(cause)
            }
            (Position::HalfOpen(_), None) if now.since(self.since) >= HALF_OPEN_FOR => Position::Closed,
            (Position::Closed, None) if now.since(self.since) >= LONGEST_OPEN => {
                self.open_for = None;
                Position::Closed
            }
            (position, _) => position,
        };
        let changed = next != self.position;
        if changed {
            (self.position, self.since) = (next, now);
        }
        changed
    }

    fn sign(&mut self, now: Nanos, vitals: &Vitals) -> Option<Cause> {
        let Vitals { failed_per_s, p99_over_wanted, report_age } = *vitals;
        let failing = failed_per_s.is_some_and(|failed| failed >= FAILING);
        let missed = p99_over_wanted.is_some_and(|factor| factor >= FAR_MISSED);
        let for_long = |since: &mut Option<Nanos>, holds: bool, long: Nanos| {
            *since = if holds { since.or(Some(now)) } else { None };
            since.is_some_and(|then| now.since(then) >= long)
        };
        let failing = for_long(&mut self.failing_since, failing, FAILING_FOR);
        let missed = for_long(&mut self.missed_since, missed, FAR_MISSED_FOR);
        let oldest = self.roll_backs.front().filter(|_| self.roll_backs.len() >= ROLL_BACKS);
        if report_age.is_some_and(|age| age >= LOST_AFTER) {
            Some(Cause::SignalsLost)
        } else if failing {
            Some(Cause::Failing)
        } else if oldest.is_some_and(|then| now.since(*then) <= ROLL_BACKS_WITHIN) {
            Some(Cause::RollBacks)
        } else if missed {
            Some(Cause::FarMissed)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: Vitals = Vitals { failed_per_s: Some(0.0), p99_over_wanted: Some(0.5), report_age: Some(Nanos::TICK) };
    const SICK: Vitals = Vitals { failed_per_s: Some(3.0), ..FINE };

    fn run(breaker: &mut Breaker, now: &mut Nanos, vitals: &Vitals, seconds: u64) {
        for _ in 0..10 * seconds {
            *now = *now + Nanos::TICK;
            breaker.look(*now, vitals);
        }
    }

    #[test]
    fn a_sick_sink_opens_it_and_a_healthy_one_closes_it_again() {
        let (mut breaker, mut now) = (Breaker::default(), Nanos::SECOND);
        run(&mut breaker, &mut now, &FINE, 60);
        run(&mut breaker, &mut now, &SICK, 1);
        assert_eq!(breaker.position(), Position::Closed, "one bad second is none");
        run(&mut breaker, &mut now, &SICK, 2);
        assert_eq!(breaker.position(), Position::Open(Cause::Failing));
        run(&mut breaker, &mut now, &FINE, 31);
        assert_eq!(breaker.position(), Position::HalfOpen(Cause::Failing));
        run(&mut breaker, &mut now, &FINE, 11);
        assert_eq!((breaker.position(), breaker.trips()), (Position::Closed, 1));
    }

    #[test]
    fn a_sink_that_stays_sick_is_left_alone_longer_each_time() {
        let (mut breaker, mut now) = (Breaker::default(), Nanos::SECOND);
        run(&mut breaker, &mut now, &SICK, 3_600);
        assert!((8..=11).contains(&breaker.trips()), "30, 60, 120, 240, then 480 s each: {}", breaker.trips());
    }

    #[test]
    fn lost_signals_open_it_until_they_are_back() {
        let (mut breaker, mut now) = (Breaker::default(), Nanos::SECOND);
        let lost = Vitals { report_age: Some(LOST_AFTER), ..Vitals::default() };
        run(&mut breaker, &mut now, &lost, 300);
        assert_eq!(breaker.position(), Position::Open(Cause::SignalsLost));
        run(&mut breaker, &mut now, &FINE, 1);
        assert_eq!(breaker.position(), Position::HalfOpen(Cause::SignalsLost));
    }

    #[test]
    fn a_missed_objective_needs_to_be_missed_far_and_long() {
        let (mut breaker, mut now) = (Breaker::default(), Nanos::SECOND);
        run(&mut breaker, &mut now, &Vitals { p99_over_wanted: Some(4.9), ..FINE }, 100);
        assert_eq!(breaker.trips(), 0);
        run(&mut breaker, &mut now, &Vitals { p99_over_wanted: Some(5.1), ..FINE }, 11);
        assert_eq!(breaker.position(), Position::Open(Cause::FarMissed));
    }

    #[test]
    fn three_roll_backs_within_ten_minutes_open_it_and_spread_out_they_do_not() {
        let (mut often, mut seldom, mut now) = (Breaker::default(), Breaker::default(), Nanos::SECOND);
        for nth in 0..3 {
            often.rolled_back(now + Nanos::from_secs(10 * nth));
            seldom.rolled_back(now + Nanos::from_secs(400 * nth));
        }
        now = now + Nanos::from_secs(801);
        assert!(!seldom.look(now, &FINE));
        assert!(often.look(Nanos::from_secs(100), &FINE));
        assert_eq!(often.position(), Position::Open(Cause::RollBacks));
    }
}
