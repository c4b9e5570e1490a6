//! How sure a figure is: blocks in, the interval of a statistic of resampled blocks out. Whole blocks are drawn, never
//! records: records of one block share its moment of the machine, and drawn singly they would look far too sure.

use fastrand::Rng;
use serde::{Deserialize, Serialize};

/// Choices of blocks drawn.
const DRAWS: usize = 1_000;
/// Below this many blocks an interval would be a guess.
const FEWEST: usize = 3;

/// 95 % of the resampled statistic lies within.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Interval {
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// Interval of `statistic` over `blocks` blocks; `None` when there are too few of them to tell.
pub(crate) fn interval(blocks: usize, seed: u64, statistic: impl Fn(&[usize]) -> Option<f64>) -> Option<Interval> {
    if blocks < FEWEST {
        return None;
    }
    let mut random = Rng::with_seed(seed);
    let mut drawn: Vec<f64> = (0..DRAWS)
        .filter_map(|_| {
            let choice: Vec<usize> = (0..blocks).map(|_| random.usize(0..blocks)).collect();
            statistic(&choice)
        })
        .collect();
    if drawn.len() < DRAWS / 2 {
        return None;
    }
    drawn.sort_unstable_by(f64::total_cmp);
    Some(Interval { low: drawn[drawn.len() / 40], high: drawn[drawn.len() - 1 - drawn.len() / 40] })
}

/// How one policy stands to another.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ratio {
    /// Median of the ratios of the blocks.
    pub(crate) median: f64,
    /// Its interval, when there are enough blocks.
    pub(crate) interval: Option<Interval>,
    /// Ratio of the pooled figures.
    pub(crate) pooled: f64,
    /// Blocks behind it.
    pub(crate) blocks: usize,
}

impl Ratio {
    /// Lower bound, or the median where there is none.
    pub(crate) fn low(&self) -> f64 {
        self.interval.map_or(self.median, |i| i.low)
    }

    /// Upper bound, or the median where there is none.
    pub(crate) fn high(&self) -> f64 {
        self.interval.map_or(self.median, |i| i.high)
    }
}

/// The ratio of two figures, each given by its value in every block (in the same order) and pooled.
pub(crate) fn ratio(upper: &[f64], lower: &[f64], pooled: (f64, f64), seed: u64) -> Option<Ratio> {
    let ratios: Vec<f64> =
        upper.iter().zip(lower).filter(|(_, lower)| **lower > 0.0).map(|(upper, lower)| upper / lower).collect();
    let of = |choice: &[usize]| median(choice.iter().map(|i| ratios[*i]).collect());
    Some(Ratio {
        median: median(ratios.clone())?,
        interval: interval(ratios.len(), seed, of),
        pooled: pooled.0 / pooled.1,
        blocks: ratios.len(),
    })
}

/// Median; `None` of nothing.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[half]),
        _ => Some(f64::midpoint(values[half - 1], values[half])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::cast_precision_loss, reason = "a few blocks")]
    fn mean_of(values: &[f64]) -> impl Fn(&[usize]) -> Option<f64> {
        move |choice| Some(choice.iter().map(|i| values[*i]).sum::<f64>() / choice.len() as f64)
    }

    #[test]
    fn an_interval_holds_the_truth_about_as_often_as_it_says() {
        // 200 experiments of 12 blocks whose true mean is 0.5.
        let held = (0..200)
            .filter(|seed| {
                let mut random = Rng::with_seed(1_000 + seed);
                let values: Vec<f64> = (0..12).map(|_| random.f64()).collect();
                let Interval { low, high } = interval(12, *seed, mean_of(&values)).unwrap();
                (low..=high).contains(&0.5)
            })
            .count();
        // The percentile bootstrap of 12 blocks is a little too sure of itself; 95 % would be 190.
        assert!((176..=198).contains(&held), "{held} of 200");
    }

    #[test]
    fn the_same_seed_gives_the_same_interval_and_two_blocks_give_none() {
        let values = [1.0, 2.0, 4.0, 8.0];
        assert_eq!(interval(4, 7, mean_of(&values)), interval(4, 7, mean_of(&values)));
        assert_eq!(interval(2, 7, mean_of(&values)), None);
    }

    #[test]
    fn a_ratio_is_the_median_over_blocks_and_one_bad_block_does_not_move_it() {
        let ratio = ratio(&[1.0, 2.0, 3.0, 400.0, 5.0], &[2.0, 4.0, 6.0, 4.0, 10.0], (7.0, 2.0), 1).unwrap();
        assert!((ratio.median - 0.5).abs() < 1e-12 && (ratio.pooled - 3.5).abs() < 1e-12);
        assert!(ratio.low() <= 0.5 && ratio.high() >= 0.5);
        assert!(super::ratio(&[1.0], &[0.0], (1.0, 0.0), 1).is_none());
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }
}
