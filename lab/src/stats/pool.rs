//! Latencies of several blocks, pooled: weighted counts a block in, quantiles and means of any choice of blocks out.
//! Never averages quantiles: the quantile of pooled records is what a user meets, the mean of quantiles is nobody's.
//!
//! A quantile of a resampled choice is found by bisection over cumulative weights, so that a bootstrap of a thousand
//! choices costs no more than a few merges.

/// Counts of one slice of a block, every record of it with the same weight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weighted<'a> {
    /// Of one record.
    pub(crate) weight: f64,
    /// Latency in microseconds and how many records had it.
    pub(crate) counts: &'a [(u64, u64)],
    /// Exact sum of the latencies, ns.
    pub(crate) sum_ns: u64,
}

/// Latencies by block.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    /// Every latency that occurs, ascending, microseconds.
    values: Vec<u64>,
    blocks: Vec<Block>,
}

#[derive(Clone, Debug, Default)]
struct Block {
    records: u64,
    /// Weight at or below each value; the last is all of it.
    cumulative: Vec<f64>,
    weighted_ns: f64,
}

impl Block {
    fn weight(&self) -> f64 {
        self.cumulative.last().copied().unwrap_or(0.0)
    }
}

impl Pool {
    /// One list of slices a block.
    #[expect(clippy::cast_precision_loss, reason = "counts and sums of a run stay far below 2^53 of their unit")]
    pub(crate) fn new(blocks: &[Vec<Weighted<'_>>]) -> Self {
        let mut values: Vec<u64> = blocks.iter().flatten().flat_map(|s| s.counts.iter().map(|(v, _)| *v)).collect();
        values.sort_unstable();
        values.dedup();
        let block = |slices: &Vec<Weighted<'_>>| {
            let mut block = Block { cumulative: vec![0.0; values.len()], ..Block::default() };
            for Weighted { weight, counts, sum_ns } in slices {
                for (value, count) in *counts {
                    let at = values.partition_point(|v| v < value);
                    block.cumulative[at] += weight * *count as f64;
                    block.records += count;
                }
                block.weighted_ns += weight * *sum_ns as f64;
            }
            let mut sum = 0.0;
            for weight in &mut block.cumulative {
                sum += *weight;
                *weight = sum;
            }
            block
        };
        Self { blocks: blocks.iter().map(block).collect(), values }
    }

    /// Every block once.
    pub(crate) fn all(&self) -> Vec<usize> {
        (0..self.blocks.len()).collect()
    }

    pub(crate) fn records(&self) -> u64 {
        self.blocks.iter().map(|b| b.records).sum()
    }

    /// Quantile `q` of the pooled records of these blocks (a block may come more than once), ms; `None` without a record.
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a latency are far below 2^53")]
    pub(crate) fn quantile(&self, q: f64, of: &[usize]) -> Option<f64> {
        let total: f64 = of.iter().map(|i| self.blocks[*i].weight()).sum();
        if total <= 0.0 {
            return None;
        }
        // A hair below, so that rounding never skips the last value.
        let wanted = q * total * (1.0 - 1e-12);
        let below = |at: usize| of.iter().map(|i| self.blocks[*i].cumulative[at]).sum::<f64>() < wanted;
        let (mut low, mut high) = (0, self.values.len() - 1);
        while low < high {
            let middle = usize::midpoint(low, high);
            if below(middle) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Some(self.values[low] as f64 / 1e3)
    }

    /// Mean of the pooled records, from exact sums, ms.
    pub(crate) fn mean(&self, of: &[usize]) -> Option<f64> {
        let total: f64 = of.iter().map(|i| self.blocks[*i].weight()).sum();
        let sum: f64 = of.iter().map(|i| self.blocks[*i].weighted_ns).sum();
        (total > 0.0).then(|| sum / total / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(weight: f64, counts: &[(u64, u64)]) -> Weighted<'_> {
        Weighted { weight, counts, sum_ns: counts.iter().map(|(us, n)| us * n * 1_000).sum() }
    }

    #[test]
    fn quantiles_are_those_of_all_records_together() {
        // 990 fast and 10 slow ones, in two blocks of which one holds all the slow ones.
        let (quiet, loud) = ([(1_000, 500)], [(1_000, 490), (90_000, 10)]);
        let pool = Pool::new(&[vec![slice(1.0, &quiet)], vec![slice(1.0, &loud)]]);
        assert_eq!(pool.records(), 1_000);
        assert_eq!(pool.quantile(0.99, &[0, 1]), Some(1.0));
        assert_eq!(pool.quantile(0.991, &[0, 1]), Some(90.0));
        assert_eq!(pool.quantile(0.99, &[1, 1]), Some(90.0), "a block may be drawn twice");
        assert_eq!(pool.quantile(1.0, &[0, 0]), Some(1.0));
        assert!((pool.mean(&[0, 1]).unwrap() - 1.89).abs() < 1e-9);
    }

    #[test]
    fn weights_let_a_quiet_second_count_as_much_as_a_busy_one() {
        let (few, many) = ([(200_000, 10)], [(2_000, 990)]);
        let by_time = Pool::new(&[vec![slice(1.0 / 10.0, &few), slice(1.0 / 990.0, &many)]]);
        assert_eq!(by_time.quantile(0.5, &[0]), Some(2.0));
        assert_eq!(by_time.quantile(0.51, &[0]), Some(200.0));
        assert!((by_time.mean(&[0]).unwrap() - 101.0).abs() < 1e-9);
    }

    #[test]
    fn without_records_nothing_is_known() {
        let pool = Pool::new(&[vec![]]);
        assert_eq!((pool.quantile(0.5, &[0]), pool.mean(&[0])), (None, None));
    }
}
