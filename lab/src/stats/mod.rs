//! Statistics of comparisons: pooled latencies, intervals by resampling blocks, tests by permutation. Pure functions of
//! numbers and a seed; nothing here reads a clock or a file.

mod bootstrap;
mod permutation;
mod pool;

pub(crate) use bootstrap::{Interval, Ratio, interval, median, ratio};
pub(crate) use permutation::{holm, permutation_p};
pub(crate) use pool::{Pool, Weighted};
