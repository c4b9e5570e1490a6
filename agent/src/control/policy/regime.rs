//! The three-regime policy: the event rate in, a proposal out. A pure function, with hysteresis at its edges.
//!
//! Cold, below 1,000 events/s: flush every 5 ms, whatever there is. Hot, from 50,000: fill 512 KiB. Warm, between: both
//! knobs move from the one end to the other with the logarithm of the rate. The age limit never exceeds a little more
//! than the time the batch takes to fill at the newest rate: a long limit left over from a busy time is what ruins the
//! tail after the load has fallen, and a limit just above the fill time lets the batch fill first.

use crate::control::load::Load;
use crate::control::policy::{Because, Proposal, rounded};
use crate::signal::exact::ln;
use crate::units::EventsPerSec;

/// Below this rate the regime is cold.
pub const WARM_FROM: EventsPerSec = EventsPerSec(1_000.0);
/// From this rate the regime is hot.
pub const HOT_FROM: EventsPerSec = EventsPerSec(50_000.0);
/// A regime is left downwards only below this share of the edge at which it was entered.
pub const HYSTERESIS: f64 = 0.8;
/// Flush interval when cold, and the shortest this policy proposes.
pub const COLD_INTERVAL_US: f64 = 5_000.0;
/// Longest flush interval this policy proposes.
pub const LONGEST_INTERVAL_US: f64 = 50_000.0;
/// Batch size when hot.
pub const HOT_BATCH: f64 = 524_288.0;
/// Batch size at the cold end: far above what 5 ms bring there, so that age decides, yet no burst is one huge batch.
pub const COLD_BATCH: f64 = 65_536.0;
/// The age limit over the time a batch takes to fill: slack for a load that is not even.
pub const FILL_SLACK: f64 = 1.25;
/// Share of the wanted p99 that waiting and flushing may take.
pub const OBJECTIVE_SHARE: f64 = 0.8;
/// Shortest interval an objective can ask for.
const SHORTEST_INTERVAL_US: f64 = 1_000.0;

/// Where the load stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Regime {
    /// Flush by age.
    Cold,
    /// By either.
    Warm,
    /// Flush by size.
    Hot,
}

/// What set the age limit of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// The regime.
    Regime,
    /// The time to fill a batch at the newest rate.
    Fill,
    /// The wanted p99.
    Objective,
}

/// The regime at `rate`, when it was `before`.
pub fn regime(before: Option<Regime>, rate: EventsPerSec) -> Regime {
    let edge = |edge: EventsPerSec, above: bool| if above { edge.0 * HYSTERESIS } else { edge.0 };
    if rate.0 >= edge(HOT_FROM, before == Some(Regime::Hot)) {
        Regime::Hot
    } else if rate.0 >= edge(WARM_FROM, matches!(before, Some(Regime::Warm | Regime::Hot))) {
        Regime::Warm
    } else {
        Regime::Cold
    }
}

/// What the settings should be at `load`, in `regime`.
pub fn propose(regime: Regime, load: &Load) -> Proposal {
    let event_bytes = load.event_bytes().min(HOT_BATCH);
    let fill_us = |batch: f64, rate: f64| FILL_SLACK * 1e6 * batch / (rate.max(1.0) * event_bytes);
    let at_edge = fill_us(HOT_BATCH, HOT_FROM.0).clamp(COLD_INTERVAL_US, LONGEST_INTERVAL_US);
    let (batch, by_regime) = match regime {
        Regime::Cold => (COLD_BATCH, COLD_INTERVAL_US),
        Regime::Warm => {
            let x = (ln(load.rate.0 / WARM_FROM.0) / ln(HOT_FROM.0 / WARM_FROM.0)).clamp(0.0, 1.0);
            (COLD_BATCH + x * (HOT_BATCH - COLD_BATCH), COLD_INTERVAL_US + x * (at_edge - COLD_INTERVAL_US))
        }
        Regime::Hot => (HOT_BATCH, at_edge),
    };
    let mut interval = by_regime;
    let mut age = Age::Regime;
    let by_fill = fill_us(batch, load.newest.0).max(COLD_INTERVAL_US);
    if by_fill < interval {
        (interval, age) = (by_fill, Age::Fill);
    }
    if let Some(objective_ms) = load.objective.p99_ms {
        #[expect(clippy::cast_precision_loss, reason = "an objective is a few digits")]
        let budget = OBJECTIVE_SHARE * objective_ms as f64 - load.flushes.duration_ms.unwrap_or(0.0);
        let by_objective = (1e3 * budget).max(SHORTEST_INTERVAL_US);
        if by_objective < interval {
            (interval, age) = (by_objective, Age::Objective);
        }
    }
    Proposal { settings: rounded(batch, interval), because: Because::Regime(regime, age), predicted: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::flush::Flushes;
    use crate::units::{BatchSize, FlushInterval, Nanos, Settings};
    use proptest::prelude::*;
    use tidegate_client::abi::Objective;

    fn load(rate: f64) -> Load {
        Load {
            rate: EventsPerSec(rate),
            newest: EventsPerSec(rate),
            dispersion: None,
            event_bytes: Some(512.0),
            flushes: Flushes { duration_ms: Some(10.0), ..Flushes::default() },
            cpu_cores: None,
            objective: Objective::default(),
            cpu_share: None,
        }
    }

    fn at(rate: f64) -> Settings {
        propose(regime(None, EventsPerSec(rate)), &load(rate)).settings
    }

    #[test]
    fn cold_flushes_every_5_ms() {
        for rate in [0.0, 1.0, 300.0, 999.0] {
            assert_eq!(at(rate).interval, FlushInterval(5_000), "at {rate}/s");
        }
    }

    #[test]
    fn hot_fills_512_kib_before_its_age_limit() {
        for rate in [50_000.0, 55_000.0, 1e6] {
            let Settings { batch, interval } = at(rate);
            assert_eq!(batch, BatchSize(512 << 10));
            let fill_ms = 1e3 * 1_024.0 / rate;
            assert!(Nanos::from(interval).as_millis_f64() > 1.1 * fill_ms, "{interval:?} at {rate}/s");
        }
    }

    #[test]
    fn warm_joins_the_two_without_a_jump() {
        for edge in [1_000.0, 50_000.0] {
            let (below, above) = (at(edge * 0.999), at(edge * 1.001));
            assert!(below.interval.0.abs_diff(above.interval.0) <= 200, "{below:?} {above:?}");
        }
        assert!(at(5_000.0).interval > at(1_000.0).interval && at(5_000.0).interval < at(20_000.0).interval);
    }

    #[test]
    fn a_regime_is_left_downwards_only_a_fifth_below_its_edge() {
        let next = |before, rate| regime(Some(before), EventsPerSec(rate));
        assert_eq!(next(Regime::Hot, 41_000.0), Regime::Hot);
        assert_eq!(next(Regime::Hot, 39_000.0), Regime::Warm);
        assert_eq!(next(Regime::Warm, 49_000.0), Regime::Warm);
        assert_eq!(next(Regime::Warm, 810.0), Regime::Warm);
        assert_eq!(next(Regime::Warm, 790.0), Regime::Cold);
        assert_eq!(next(Regime::Cold, 990.0), Regime::Cold);
        assert_eq!(next(Regime::Hot, 500.0), Regime::Cold);
    }

    #[test]
    fn the_age_limit_follows_the_newest_rate_when_it_rises() {
        let load = Load { newest: EventsPerSec(200_000.0), ..load(30_000.0) };
        let proposal = propose(Regime::Warm, &load);
        assert_eq!(proposal.because, Because::Regime(Regime::Warm, Age::Fill));
        assert_eq!(proposal.settings.interval, FlushInterval(5_650));
    }

    #[test]
    fn a_wanted_p99_caps_the_age_limit() {
        let objective = Objective { p99_ms: Some(20), ..Objective::default() };
        let load = Load { objective, ..load(60_000.0) };
        let proposal = propose(Regime::Hot, &load);
        assert_eq!(proposal.because, Because::Regime(Regime::Hot, Age::Objective));
        assert_eq!(proposal.settings.interval, FlushInterval(6_000));
    }

    proptest! {
        #[test]
        fn any_load_has_a_finite_proposal(
            rate in any::<f64>(), newest in any::<f64>(), bytes in any::<f64>(), flush in any::<f64>(),
            objective in proptest::option::of(any::<u64>()),
        ) {
            let load = Load {
                rate: EventsPerSec(rate),
                newest: EventsPerSec(newest),
                event_bytes: Some(bytes),
                flushes: Flushes { duration_ms: Some(flush), ..Flushes::default() },
                objective: Objective { p99_ms: objective, ..Objective::default() },
                ..load(1.0)
            };
            let Settings { batch, interval } = propose(regime(None, load.rate), &load).settings;
            prop_assert!((64 << 10..=512 << 10).contains(&batch.0), "{batch:?}");
            prop_assert!((1_000..=50_000).contains(&interval.0), "{interval:?}");
        }
    }
}
