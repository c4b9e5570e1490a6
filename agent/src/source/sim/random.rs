//! A seeded generator: the same numbers on every machine, and nothing else. Not for secrets.
//!
//! `SplitMix64` for the bits. Exponential gaps by von Neumann's comparison method, which needs no logarithm: the platform's
//! own differs in its last digits, and a seed must mean the same run everywhere.

/// A generator.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The generator of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Evenly in `0..1`.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Evenly in `low..high`.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Exponential with mean 1.
    pub fn exponential(&mut self) -> f64 {
        // A run of falling uniform numbers of odd length yields its first; an even one adds 1 and tries again.
        let mut whole = 0.0;
        loop {
            let first = self.unit();
            let (mut last, mut length) = (first, 1_u32);
            loop {
                let next = self.unit();
                if next >= last {
                    break;
                }
                last = next;
                length += 1;
            }
            if length % 2 == 1 {
                return whole + first;
            }
            whole += 1.0;
        }
    }

    /// Number of events of a Poisson process within a time in which `mean` are expected.
    pub fn poisson(&mut self, mean: f64) -> u64 {
        let (mut count, mut at) = (0, self.exponential());
        while at < mean {
            count += 1;
            at += self.exponential();
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn counts_have_the_mean_and_the_variance_of_a_poisson_process() {
        let mut random = Random::new(42);
        let n = 20_000_u32;
        let counts: Vec<f64> =
            (0..n).map(|_| f64::from(u32::try_from(random.poisson(30.0)).unwrap_or(u32::MAX))).collect();
        let mean = counts.iter().sum::<f64>() / f64::from(n);
        let variance = counts.iter().map(|c| (c - mean) * (c - mean)).sum::<f64>() / f64::from(n);
        assert!((mean - 30.0).abs() < 0.2, "{mean}");
        assert!((variance / mean - 1.0).abs() < 0.05, "{variance} for {mean}");
    }
}
