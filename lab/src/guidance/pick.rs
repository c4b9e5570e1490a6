//! Which setting suits a use: turns in, the best of them and all that are about as good out. Pure.

use tidegate_client::abi::Purpose;

use crate::compare::turns::Turn;

/// About as good as the best: within the noise of a run of seconds.
const ALIKE_TAIL: f64 = 1.25;
const ALIKE_BOTH: f64 = 1.15;
const ALIKE_COST: f64 = 1.05;
/// A batch that is late has no throughput that anybody wants.
const LATEST_MS: f64 = 500.0;

/// What is sought, in words.
pub(super) fn criterion(purpose: Purpose, cap: f64) -> String {
    match purpose {
        Purpose::RealTime => {
            format!(
                "real-time: shortest p99 with the flusher busy at most {cap} of the time, and what is within 25 % of it"
            )
        }
        Purpose::Balanced => {
            format!(
                "balanced: least p99 times CPU a message under the same cap of {cap}, and what is within 15 % of it"
            )
        }
        Purpose::HighThroughput => {
            format!(
                "high-throughput: least CPU a message with a p99 up to {LATEST_MS} ms, and what is within 5 % of it"
            )
        }
    }
}

/// The best, and all that are about as good.
pub(super) fn pick(purpose: Purpose, turns: &[Turn], cap: f64) -> Option<(&Turn, Vec<&Turn>)> {
    type Score = fn(&Turn) -> f64;
    let (score, alike): (Score, f64) = match purpose {
        Purpose::RealTime => (|t| t.p99_ms, ALIKE_TAIL),
        Purpose::Balanced => (|t| t.p99_ms * t.cpu_us_per_event, ALIKE_BOTH),
        Purpose::HighThroughput => (|t| t.cpu_us_per_event, ALIKE_COST),
    };
    let fits = |t: &&Turn| match purpose {
        Purpose::RealTime | Purpose::Balanced => t.busy <= cap,
        Purpose::HighThroughput => t.p99_ms <= LATEST_MS,
    };
    let fitting: Vec<&Turn> = turns.iter().filter(fits).collect();
    let best = fitting.iter().copied().min_by(|a, b| score(a).total_cmp(&score(b)))?;
    let near = fitting.into_iter().filter(|t| score(t) <= score(best) * alike).collect();
    Some((best, near))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::policy::Constant;

    fn turn(interval_us: u64, busy: f64, p99_ms: f64, cpu: f64) -> Turn {
        let constant = Constant { batch_bytes: 1, interval_us };
        Turn { constant, busy, p99_ms, cpu_us_per_event: cpu, events_per_flush: 1.0, gap_ms: 1.0 }
    }

    #[test]
    fn each_use_picks_by_its_own_criterion() {
        let turns =
            [turn(1, 0.9, 2.0, 9.0), turn(5, 0.4, 8.0, 4.0), turn(20, 0.2, 12.0, 1.5), turn(90, 0.1, 90.0, 1.0)];
        let best = |purpose| pick(purpose, &turns, 0.6).unwrap().0.constant.interval_us;
        assert_eq!(best(Purpose::RealTime), 5, "the shortest tail is beyond the cap");
        assert_eq!(best(Purpose::Balanced), 20);
        assert_eq!(best(Purpose::HighThroughput), 90);
        assert!(pick(Purpose::RealTime, &turns, 0.05).is_none());
    }

    #[test]
    fn what_is_about_as_good_is_in_the_range() {
        let turns = [turn(1, 0.1, 10.0, 1.0), turn(2, 0.1, 12.0, 1.0), turn(3, 0.1, 13.0, 1.0)];
        assert_eq!(pick(Purpose::RealTime, &turns, 0.6).unwrap().1.len(), 2);
    }
}
