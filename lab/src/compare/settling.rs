//! How soon settings stand after a change of the load: counters at the marks in, changes that had settled within the first
//! second out. Pure; it looks at the settings in use, not at what anybody decided.

use serde::Serialize;

use super::lane::Outcome;
use super::plan::{MARKS, Plan};
use crate::pipeline::Stats;

/// Settings this near to those at the end of the phase have settled.
const NEAR: f64 = 1.25;

/// What one policy of the agent did after changes.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Settling {
    pub(crate) policy: String,
    /// Changes of the load or the plant, over all blocks.
    pub(crate) changes: usize,
    /// Of those, how often interval and batch after a second were within a quarter of those at the end of the phase. A batch
    /// size is slack, and does not count, where no flush between the two began because it was reached, in the queue or behind
    /// another flush.
    pub(crate) within_a_second: usize,
    /// The worst of the others, in words.
    pub(crate) worst: Option<String>,
}

/// Of every policy that the agent sets.
pub(super) fn settling(plan: &Plan, kept: &[Vec<Outcome>]) -> Vec<Settling> {
    let of_agent = plan.contenders.iter().enumerate().filter(|(_, c)| c.policy.of_agent().is_some());
    let one = |(i, contender): (usize, &super::plan::Contender)| {
        let mut settling = Settling { policy: contender.label.clone(), changes: 0, within_a_second: 0, worst: None };
        let mut farthest = NEAR;
        for lanes in kept {
            for (phase, at) in plan.phases.0.iter().enumerate().skip(1) {
                let marks = &lanes[i].marks;
                let (Some(then), Some(end)) = (marks.get(phase * MARKS + 2), marks.get((phase + 1) * MARKS)) else {
                    continue;
                };
                settling.changes += 1;
                let far = apart(then, end);
                settling.within_a_second += usize::from(far <= NEAR);
                if far > farthest {
                    farthest = far;
                    let ms = |stats: &Stats| {
                        crate::time::as_ms(tidegate_client::Nanos::from_micros(stats.flush_interval_us))
                    };
                    settling.worst = Some(format!(
                        "{}/s: {} KiB and {} ms after a second, {} KiB and {} ms at the end",
                        at.rate,
                        then.batch_bytes / 1024,
                        ms(then),
                        end.batch_bytes / 1024,
                        ms(end)
                    ));
                }
            }
        }
        settling
    };
    of_agent.map(one).collect()
}

/// The larger of the two ratios of the settings that decide, 1 or more.
#[expect(clippy::cast_precision_loss, reason = "settings far below 2^53")]
fn apart(a: &Stats, b: &Stats) -> f64 {
    let ratio = |a: u64, b: u64| {
        let (a, b) = (a.max(1) as f64, b.max(1) as f64);
        (a / b).max(b / a)
    };
    let by_interval = ratio(a.flush_interval_us, b.flush_interval_us);
    let is_slack = (a.by_size, a.by_backlog) == (b.by_size, b.by_backlog);
    if is_slack { by_interval } else { by_interval.max(ratio(a.batch_bytes, b.batch_bytes)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_apart_by_the_larger_ratio_of_those_that_decide() {
        let at = |batch_bytes, flush_interval_us| Stats { batch_bytes, flush_interval_us, ..Stats::default() };
        let by_size = |stats| Stats { by_size: 1, ..stats };
        assert!((apart(&at(100, 8_000), &by_size(at(100, 10_000))) - 1.25).abs() < 1e-12);
        assert!((apart(&at(400, 8_000), &by_size(at(100, 8_000))) - 4.0).abs() < 1e-12);
        assert!((apart(&at(400, 8_000), &Stats { by_backlog: 1, ..at(100, 8_000) }) - 4.0).abs() < 1e-12);
        assert!((apart(&at(400, 8_000), &at(100, 10_000)) - 1.25).abs() < 1e-12, "no flush began by size");
    }
}
