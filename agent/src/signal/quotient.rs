//! A mean as a quotient of sums over the newest ticks: enough of them to tell, and no more than a bound.
//!
//! Sums over sums, not a mean of the ticks' means: an idle tick must not weigh as much as a busy one. How far it looks
//! back follows the load, so that it is fast when much happens and still known when little does.

use std::collections::VecDeque;

/// Numerators and denominators of the newest ticks.
#[derive(Clone, Debug)]
pub struct Quotient {
    ticks: VecDeque<(u64, u64)>,
    enough: u64,
    most: usize,
}

impl Quotient {
    /// Looks back until the denominators add up to `enough`, over `most` ticks at most.
    pub fn over(enough: u64, most: usize) -> Self {
        Self { ticks: VecDeque::new(), enough, most: most.max(1) }
    }

    /// Takes in one tick.
    pub fn push(&mut self, numerator: u64, denominator: u64) {
        self.ticks.push_back((numerator, denominator));
        while self.ticks.len() > self.most {
            self.ticks.pop_front();
        }
    }

    /// Forgets what it has seen.
    pub fn forget(&mut self) {
        self.ticks.clear();
    }

    /// The quotient; unknown when the denominators are all zero.
    #[expect(clippy::cast_precision_loss, reason = "a mean needs no more than 52 bits")]
    pub fn value(&self) -> Option<f64> {
        let (mut above, mut below) = (0_u64, 0_u64);
        for (numerator, denominator) in self.ticks.iter().rev() {
            above = above.saturating_add(*numerator);
            below = below.saturating_add(*denominator);
            if below >= self.enough {
                break;
            }
        }
        (below > 0).then(|| above as f64 / below as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::Quotient;

    #[test]
    fn idle_ticks_weigh_nothing() {
        let mut mean = Quotient::over(100, 10);
        assert_eq!(mean.value(), None, "unknown is not zero");
        mean.push(1_000, 10);
        mean.push(0, 0);
        assert_eq!(mean.value(), Some(100.0));
    }

    #[test]
    fn a_busy_tick_is_enough_alone() {
        let mut mean = Quotient::over(100, 10);
        mean.push(1, 1);
        mean.push(5_000, 100);
        assert_eq!(mean.value(), Some(50.0));
    }
}
