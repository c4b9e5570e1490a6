//! The highest rate that meets a 99th percentile: contenders in, a rate each out. Doubling until it breaks, bisection, and
//! a confirmation by further runs; a rate that does not confirm is lowered until one does.

use anyhow::Result;
use serde::Serialize;
use tidegate_client::Nanos;

use super::job::{Check, Job};
use super::plan::{Contender, Plan};
use super::runner::Runner;
use crate::load::schedule::{Phase, Phases};
use crate::out::note;
use crate::stats::{Pool, Weighted};

const LIMIT_MS: f64 = 50.0;
/// Part of the rate to begin with below which nothing is looked for.
const LEAST: u64 = 16;

/// How long to look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Seconds of a run; the first is left out.
    pub(crate) seconds: u64,
    /// Runs that have to confirm a rate.
    pub(crate) confirmations: usize,
    /// Ratio of the bounds at which the bisection ends.
    pub(crate) until: f64,
    /// Where to begin, and where to end.
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// What was found of one contender.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Highest {
    pub(crate) policy: String,
    /// Records a second.
    pub(crate) rate: u64,
    /// 99th percentile at that rate, of the last confirmation.
    pub(crate) p99_ms: f64,
    /// Whether the range ended before the policy did.
    pub(crate) at_end: bool,
    /// Every rate that was tried and its 99th percentile, in order; absent where records were never acknowledged.
    pub(crate) tried: Vec<(u64, Option<f64>)>,
}

/// The highest rate of each list of contenders: a rate counts when one of the list meets it.
pub(crate) fn highest(
    runner: &Runner<'_>,
    plan: &Plan,
    name: &str,
    any: &[Contender],
    effort: Effort,
) -> Result<Highest> {
    let mut tried = Vec::new();
    let mut last = 0;
    let mut p99 = f64::NAN;
    let mut meets = |rate: u64| -> Result<bool> {
        // The one that met the rate before comes first.
        for i in (0..any.len()).map(|i| (i + last) % any.len()) {
            let seen = tail(runner, plan, &any[i], rate, effort.seconds)?;
            tried.push((rate, seen));
            if let Some(ms) = seen.filter(|ms| *ms <= LIMIT_MS) {
                (last, p99) = (i, ms);
                return Ok(true);
            }
        }
        Ok(false)
    };
    note(&format!("{}: highest rate of {name}", plan.title));
    let rate = bisect(&mut meets, effort)?;
    Ok(Highest { policy: name.to_owned(), rate, p99_ms: p99, at_end: rate >= effort.to, tried })
}

/// The search itself, on whatever `meets` asks; 0 when not even the least rate is met.
fn bisect(meets: &mut dyn FnMut(u64) -> Result<bool>, effort: Effort) -> Result<u64> {
    let (mut low, mut high) = (0, effort.from);
    if meets(high)? {
        low = high;
        while low < effort.to {
            high = (low * 2).min(effort.to);
            if !meets(high)? {
                break;
            }
            low = high;
        }
    } else {
        while low == 0 && high > effort.from / LEAST {
            if meets(high / 2)? {
                low = high / 2;
            } else {
                high /= 2;
            }
        }
    }
    if low == 0 {
        return Ok(0);
    }
    #[expect(clippy::cast_precision_loss, reason = "rates")]
    while high as f64 / low as f64 > effort.until {
        let middle = u64::midpoint(low, high);
        if meets(middle)? {
            low = middle;
        } else {
            high = middle;
        }
    }
    // A rate that was met once may have been lucky.
    let mut confirmed = 0;
    while confirmed < effort.confirmations && low > effort.from / LEAST / 2 {
        if meets(low)? {
            confirmed += 1;
        } else {
            (low, confirmed) = (low * 97 / 100, 0);
        }
    }
    Ok(low)
}

/// 99th percentile of a run at `rate` but for its first second; `None` when records stayed unacknowledged.
fn tail(runner: &Runner<'_>, plan: &Plan, contender: &Contender, rate: u64, seconds: u64) -> Result<Option<f64>> {
    let span = Nanos(seconds * 1_000_000_000);
    let job = Job {
        phases: Phases(vec![Phase { rate, span }]),
        warmup: Nanos::from_millis(1_000),
        marks: vec![Nanos(0), span],
        check: Check::Nothing,
        drain: Nanos::from_millis(3_000),
        ..plan.job(contender)
    };
    let together = runner.together_whatever(&[job])?;
    let Some(lane) = together.outcomes.first() else { return Ok(None) };
    let slices = lane.load.slices.iter().filter(|s| s.second > 0);
    let weighted = slices.map(|s| Weighted { weight: 1.0, counts: &s.counts, sum_ns: s.sum_ns }).collect();
    let p99 = Pool::new(&[weighted]).quantile(0.99, &[0]);
    Ok(p99.filter(|_| lane.missing == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EFFORT: Effort = Effort { seconds: 1, confirmations: 2, until: 1.02, from: 1_000, to: 100_000 };

    #[test]
    fn the_bound_is_found_from_below() {
        let found = bisect(&mut |rate| Ok(rate <= 37_000), EFFORT).unwrap();
        assert!((36_200..=37_000).contains(&found), "{found}");
        assert_eq!(bisect(&mut |_| Ok(false), EFFORT).unwrap(), 0);
        let below = bisect(&mut |rate| Ok(rate <= 310), EFFORT).unwrap();
        assert!((303..=310).contains(&below), "{below}: below the rate to begin with");
        assert_eq!(bisect(&mut |_| Ok(true), EFFORT).unwrap(), 100_000);
    }

    #[test]
    fn a_lucky_run_is_not_believed() {
        // 40,000 is met once, by luck; from then on the truth is 30,000.
        let mut luck = 1;
        let mut meets = |rate: u64| {
            let lucky = (30_000..=33_000).contains(&rate) && luck > 0;
            luck -= i32::from(lucky);
            Ok(rate <= 30_000 || lucky)
        };
        let found = bisect(&mut meets, EFFORT).unwrap();
        assert!(found <= 30_000, "{found}");
    }
}
