//! The governor: a wanted change in, an allowed one out. Always on, and it knows no policy.
//!
//! At steady load a change is small (a quarter up, half down), waits for the one before it, and a change of direction
//! waits longest: that is what makes oscillation impossible rather than unlikely. A detected step of the rate may go
//! anywhere at once, because a limit there only prolongs what hurts. The pipeline's bounds hold for all of them.

use tidegate_client::abi::Boundary;

use crate::control::bounds::Bounds;
use crate::units::{BatchSize, FlushInterval, Nanos, Settings};

/// Differences below this share are not worth a change.
pub const DEADBAND: f64 = 0.10;
/// Intervals closer than this are the same, microseconds: a timer is no finer.
const LEAST_US: u64 = 100;
/// Largest step up, as a factor.
pub const UP: f64 = 1.25;
/// Largest step down, as a factor.
pub const DOWN: f64 = 0.5;
/// Shortest time between two changes at steady load.
pub const DWELL: Nanos = Nanos::SECOND;
/// Shortest time between two reversals at steady load; each doubles it.
pub const REVERSAL_DWELL: Nanos = Nanos::from_secs(60);
/// Longest time that doubling leads to.
pub const LONGEST_REVERSAL_DWELL: Nanos = Nanos::from_secs(480);

/// Why a change is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// The load drifts.
    Steady,
    /// The load stepped, or the signals have just begun.
    Step,
    /// The queue is about to overflow.
    Panic,
    /// The slow trim asks what a small change does; it keeps its own slow time.
    Probe,
}

/// What the governor allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// These settings, and which limit bound them.
    Change(Settings, Option<Boundary>),
    /// No change.
    Hold(Hold),
}

/// Why nothing changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// What is wanted is what is.
    Deadband,
    /// The change before it is too recent.
    Dwell,
    /// The reversal before it is too recent.
    Reversal,
    /// A change was taken back a short while ago.
    Quarantine,
    /// The change before it is still on trial.
    OnTrial,
    /// The sink's pace begins the flushes: neither knob decides anything.
    SinkDecides,
}

/// What the governor remembers of a pipeline.
#[derive(Clone, Copy, Debug, Default)]
pub struct Governor {
    changed: Option<Nanos>,
    batch: Option<Direction>,
    interval: Option<Direction>,
    reversed: Option<Nanos>,
    reversal_dwell: Option<Nanos>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

impl Governor {
    /// How far from `current` towards `wanted` the settings may go at `now`.
    pub fn govern(
        &mut self,
        current: Settings,
        wanted: Settings,
        bounds: &Bounds,
        urgency: Urgency,
        now: Nanos,
    ) -> Verdict {
        let (clamped, bound_by) = bounds.clamp(wanted);
        if bounds.hold(current) && !apart(current, clamped) {
            return Verdict::Hold(Hold::Deadband);
        }
        match urgency {
            Urgency::Step | Urgency::Panic => {
                // No reversal: the load turned, not the controller.
                (self.changed, self.batch, self.interval) = (Some(now), None, None);
                Verdict::Change(clamped, bound_by)
            }
            // What the policy wants beyond the trim's small change waits its turn like any other.
            Urgency::Probe if within_steps(current, clamped) => Verdict::Change(clamped, bound_by),
            Urgency::Steady | Urgency::Probe => self.steady(current, clamped, bound_by, bounds, now),
        }
    }

    fn steady(
        &mut self,
        current: Settings,
        clamped: Settings,
        bound_by: Option<Boundary>,
        bounds: &Bounds,
        now: Nanos,
    ) -> Verdict {
        if self.changed.is_some_and(|then| now.since(then) < DWELL) {
            return Verdict::Hold(Hold::Dwell);
        }
        let batch = direction(current.batch.0, clamped.batch.0);
        let interval = direction(current.interval.0, clamped.interval.0);
        if turns(self.batch, batch) || turns(self.interval, interval) {
            let dwell = self.reversal_dwell.unwrap_or(REVERSAL_DWELL);
            match self.reversed.map(|then| now.since(then)) {
                Some(quiet) if quiet < dwell => return Verdict::Hold(Hold::Reversal),
                Some(quiet) if quiet < dwell + dwell => {
                    self.reversal_dwell = Some((dwell + dwell).min(LONGEST_REVERSAL_DWELL));
                }
                _ => self.reversal_dwell = None,
            }
            self.reversed = Some(now);
        }
        let stepped = Settings {
            batch: BatchSize(slew(current.batch.0, clamped.batch.0)),
            interval: FlushInterval(slew(current.interval.0, clamped.interval.0)),
        };
        // The bounds win over the slew limit: settings that lie outside are brought back in one go.
        let settings = bounds.clamp(stepped).0;
        self.changed = Some(now);
        self.batch = batch.or(self.batch);
        self.interval = interval.or(self.interval);
        Verdict::Change(settings, if settings == clamped { bound_by } else { Some(Boundary::Slew) })
    }
}

#[expect(clippy::cast_precision_loss, reason = "a comparison within a tenth")]
fn apart(a: Settings, b: Settings) -> bool {
    let far = |a: u64, b: u64| a.abs_diff(b) as f64 > DEADBAND * a.max(b) as f64;
    let intervals = (a.interval.0, b.interval.0);
    far(a.batch.0, b.batch.0) || (far(intervals.0, intervals.1) && intervals.0.abs_diff(intervals.1) > LEAST_US)
}

fn within_steps(current: Settings, wanted: Settings) -> bool {
    slew(current.batch.0, wanted.batch.0) == wanted.batch.0
        && slew(current.interval.0, wanted.interval.0) == wanted.interval.0
}

fn direction(from: u64, to: u64) -> Option<Direction> {
    match from.cmp(&to) {
        std::cmp::Ordering::Less => Some(Direction::Up),
        std::cmp::Ordering::Equal => None,
        std::cmp::Ordering::Greater => Some(Direction::Down),
    }
}

fn turns(before: Option<Direction>, now: Option<Direction>) -> bool {
    before.is_some() && now.is_some() && before != now
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a limit needs no more than 52 bits, and a float becomes an integer by saturation"
)]
fn slew(from: u64, to: u64) -> u64 {
    let highest = ((from as f64 * UP) as u64).max(from.saturating_add(1));
    let lowest = (from as f64 * DOWN).ceil() as u64;
    to.clamp(lowest.min(highest), highest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidegate_client::abi::{KnobRange, Knobs};

    fn bounds() -> Bounds {
        Bounds::new(&Knobs {
            batch_bytes: KnobRange { min: 4_096, max: 1 << 20, default: 256 << 10 },
            flush_interval_us: KnobRange { min: 1_000, max: 250_000, default: 250_000 },
        })
    }

    fn settings(batch: u64, interval: u64) -> Settings {
        Settings { batch: BatchSize(batch), interval: FlushInterval(interval) }
    }

    fn changed(verdict: Verdict) -> Settings {
        match verdict {
            Verdict::Change(settings, _) => settings,
            Verdict::Hold(why) => panic!("held: {why:?}"),
        }
    }

    #[test]
    fn a_steady_change_goes_a_quarter_up_or_half_down() {
        let (current, far) = (settings(100_000, 100_000), settings(1_000_000, 1_000));
        let verdict = Governor::default().govern(current, far, &bounds(), Urgency::Steady, Nanos(0));
        assert_eq!(verdict, Verdict::Change(settings(125_000, 50_000), Some(Boundary::Slew)));
    }

    #[test]
    fn a_step_goes_anywhere_within_the_bounds_at_once() {
        let mut governor = Governor::default();
        let verdict =
            governor.govern(settings(4_096, 250_000), settings(u64::MAX, 0), &bounds(), Urgency::Step, Nanos(0));
        assert_eq!(verdict, Verdict::Change(settings(1 << 20, 1_000), Some(Boundary::Min)));
    }

    #[test]
    fn panic_waits_for_nothing() {
        let mut governor = Governor::default();
        let (low, high) = (settings(65_536, 5_000), settings(524_288, 50_000));
        changed(governor.govern(low, high, &bounds(), Urgency::Steady, Nanos(0)));
        assert_eq!(governor.govern(low, high, &bounds(), Urgency::Steady, Nanos(1)), Verdict::Hold(Hold::Dwell));
        assert_eq!(changed(governor.govern(low, high, &bounds(), Urgency::Panic, Nanos(2))), high);
    }

    #[test]
    fn what_is_nearly_right_stays() {
        let verdict = Governor::default().govern(
            settings(100_000, 10_000),
            settings(105_000, 9_500),
            &bounds(),
            Urgency::Step,
            Nanos(0),
        );
        assert_eq!(verdict, Verdict::Hold(Hold::Deadband));
    }

    #[test]
    fn settings_outside_the_bounds_are_brought_back_in_one_go() {
        let verdict = Governor::default().govern(
            settings(1 << 30, 5_000),
            settings(1 << 30, 5_000),
            &bounds(),
            Urgency::Steady,
            Nanos(0),
        );
        assert_eq!(changed(verdict), settings(1 << 20, 5_000));
    }

    #[test]
    fn a_wish_that_flips_every_tick_is_granted_one_reversal_a_minute() {
        let mut governor = Governor::default();
        let mut current = settings(262_144, 20_000);
        let mut directions = Vec::new();
        for tick in 0..18_000_u64 {
            let now = Nanos(tick * Nanos::TICK.0);
            let wanted = if tick / 15 % 2 == 0 { settings(262_144, 40_000) } else { settings(262_144, 10_000) };
            if let Verdict::Change(next, _) = governor.govern(current, wanted, &bounds(), Urgency::Steady, now) {
                directions.push((now, next.interval > current.interval));
                current = next;
            }
        }
        let reversals: Vec<Nanos> = directions.windows(2).filter(|w| w[0].1 != w[1].1).map(|w| w[1].0).collect();
        for pair in reversals.windows(2) {
            assert!(pair[1].since(pair[0]) >= REVERSAL_DWELL, "{reversals:?}");
        }
        assert!(reversals.len() <= 8, "half an hour of flips is damped more and more: {reversals:?}");
    }

    proptest! {
        #[test]
        fn any_wish_stays_within_bounds_and_steps(
            wishes in proptest::collection::vec((any::<u64>(), any::<u64>(), 0_u64..5_000_000_000), 1..60),
        ) {
            let bounds = bounds();
            let (mut governor, mut now, mut current) = (Governor::default(), Nanos(0), bounds.defaults());
            for (batch, interval, wait) in wishes {
                now = now + Nanos(wait);
                let verdict = governor.govern(current, settings(batch, interval), &bounds, Urgency::Steady, now);
                if let Verdict::Change(next, _) = verdict {
                    prop_assert!(bounds.hold(next));
                    prop_assert!(next.batch.0 <= current.batch.0 + current.batch.0 / 4);
                    prop_assert!(next.batch.0 * 2 >= current.batch.0);
                    prop_assert!(next.interval.0 <= current.interval.0 + current.interval.0 / 4);
                    prop_assert!(next.interval.0 * 2 >= current.interval.0);
                    current = next;
                }
            }
        }
    }
}
