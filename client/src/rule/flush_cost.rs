//! What a flush costs whatever is in it: sizes and durations of a pipeline's own flushes come in, one span comes out. Pure,
//! so that the simulator learns as a pipeline does. Never says a cost before a flush has shown one.
//!
//! The intercept of a straight line through (bytes, duration), by least squares over the last few dozen flushes, older
//! ones fading. Where the sizes hardly differ a line has no intercept worth the name: then it is the mean duration, which
//! is what a flush of the present size costs.

use crate::units::{Bytes, Nanos};

/// Weight that is left of a flush after the next one: the last thirty or so count.
const FADE: f64 = 0.97;
/// Spread of the sizes, over their mean, below which no line is drawn.
const SPREAD_MIN: f64 = 0.1;

/// An estimate that follows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FlushCost {
    weight: f64,
    mean_bytes: f64,
    mean_ns: f64,
    /// Weighted sums of squares and products about the means.
    bytes_squared: f64,
    bytes_ns: f64,
    fixed: Option<Nanos>,
}

impl FlushCost {
    /// Notes an acknowledged flush.
    #[expect(clippy::cast_precision_loss, reason = "neither a size nor a duration is known to 53 bits")]
    pub fn observe(&mut self, bytes: Bytes, took: Nanos) {
        let (x, y) = (bytes.0 as f64, took.0 as f64);
        let faded = self.weight * FADE;
        self.weight = faded + 1.0;
        // Sums about the moving means, after Welford: plain sums of squares of large sizes cancel to noise.
        let (dx, dy) = (x - self.mean_bytes, y - self.mean_ns);
        self.mean_bytes += dx / self.weight;
        self.mean_ns += dy / self.weight;
        let share = faded / self.weight;
        self.bytes_squared = self.bytes_squared * FADE + share * dx * dx;
        self.bytes_ns = self.bytes_ns * FADE + share * dx * dy;
        self.fixed = Some(self.intercept());
    }

    /// Cost of a flush whatever is in it; `None` before the first one.
    #[inline]
    pub fn fixed(&self) -> Option<Nanos> {
        self.fixed
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between zero and a mean of durations, which fits"
    )]
    fn intercept(&self) -> Nanos {
        let spread = (self.bytes_squared / self.weight).sqrt();
        let fixed = if spread > SPREAD_MIN * self.mean_bytes {
            self.mean_ns - self.mean_bytes * self.bytes_ns / self.bytes_squared
        } else {
            self.mean_ns
        };
        // No flush costs less than nothing, and more bytes never make one cheaper: the rest is noise.
        Nanos(fixed.clamp(0.0, self.mean_ns) as u64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn learnt(flushes: impl IntoIterator<Item = (u64, u64)>) -> Option<u64> {
        let mut cost = FlushCost::default();
        for (bytes, took) in flushes {
            cost.observe(Bytes(bytes), Nanos(took));
        }
        cost.fixed().map(|fixed| fixed.0)
    }

    #[test]
    fn before_the_first_flush_nothing_is_known() {
        assert_eq!(learnt([]), None);
    }

    #[test]
    fn of_sizes_that_differ_the_part_that_does_not_grow_with_them_is_found() {
        let line = |bytes: u64| (bytes, 3_000_000 + 2 * bytes);
        let fixed = learnt((1..40).map(|i| line(10_000 * (1 + i % 7)))).unwrap();
        assert!(fixed.abs_diff(3_000_000) < 1_000, "{fixed}");
    }

    #[test]
    fn of_equal_sizes_the_whole_duration_counts() {
        assert_eq!(learnt((0..40).map(|_| (4096, 5_000_000))), Some(5_000_000));
    }

    #[test]
    fn a_cost_that_changes_is_followed_within_a_hundred_flushes() {
        let line = |fixed: u64, i: u64| (10_000 * (1 + i % 7), fixed + 20_000 * (1 + i % 7));
        let before = (0..500).map(|i| line(1_000_000, i));
        let fixed = learnt(before.chain((0..150).map(|i| line(10_000_000, i)))).unwrap();
        assert!(fixed.abs_diff(10_000_000) < 500_000, "{fixed}");
    }

    proptest! {
        #[test]
        fn a_cost_lies_between_nothing_and_the_longest_flush(
            flushes in proptest::collection::vec((0_u64..1 << 40, 0_u64..1 << 40), 1..60),
        ) {
            let longest = flushes.iter().map(|f| f.1).max().unwrap();
            let fixed = learnt(flushes).unwrap();
            prop_assert!(fixed <= longest + longest / 1_000 + 1, "{fixed} > {longest}");
        }
    }
}
