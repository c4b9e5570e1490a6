//! Random numbers from a seed: the same seed gives the same numbers, now and in any later version, so that two ends of a
//! load and two runs of a comparison walk one schedule. xoshiro256++, seeded by splitmix64; never for secrets.

/// A generator. Two of the same seed and stream give the same numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    state: [u64; 4],
}

impl Random {
    /// Stream `stream` of `seed`: streams of one seed have nothing to do with each other.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut z = seed ^ stream.wrapping_mul(0xD6E8_FEB8_6659_FD93);
        let state = std::array::from_fn(|_| {
            z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut word = z;
            word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            word ^ (word >> 31)
        });
        Self { state }
    }

    pub(crate) fn next(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Uniform in (0, 1]: never 0, so that its logarithm is finite.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are just what a double holds")]
    pub(crate) fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// Exponential with mean 1.
    pub(crate) fn exponential(&mut self) -> f64 {
        -self.unit().ln()
    }

    /// Normal with mean 0 and deviation 1.
    pub(crate) fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_its_numbers_again_and_another_stream_gives_others() {
        let take = |seed, stream| {
            let mut random = Random::new(seed, stream);
            [0; 8].map(|_| random.next())
        };
        assert_eq!(take(7, 1), take(7, 1));
        assert!(take(7, 1) != take(7, 2) && take(7, 1) != take(8, 1));
    }

    #[test]
    fn the_laws_have_their_moments() {
        let mut random = Random::new(1, 1);
        let mut moments = |draw: fn(&mut Random) -> f64| {
            let values: Vec<f64> = (0..200_000).map(|_| draw(&mut random)).collect();
            let mean = values.iter().sum::<f64>() / 200_000.0;
            (mean, values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 200_000.0)
        };
        for (draw, mean, variance) in [
            (Random::unit as fn(&mut Random) -> f64, 0.5, 1.0 / 12.0),
            (Random::exponential, 1.0, 1.0),
            (Random::normal, 0.0, 1.0),
        ] {
            let got = moments(draw);
            assert!((got.0 - mean).abs() < 0.01 && (got.1 - variance).abs() < 0.02, "{got:?}, want {mean} {variance}");
        }
    }
}
