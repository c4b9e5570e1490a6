//! Sizes of records: a law as it is typed in, a size for each record out. Drawn from the seed of the run, by the sender
//! alone. Never larger than the law's own bound, so that a buffer of that size holds any record.

use std::fmt;
use std::str::FromStr;

use super::random::Random;
use super::spec::{Spec, within};
use crate::time::parse_bytes;
use crate::wire::{RECORD_HEADER, RECORD_MAX};

/// How large records are on the wire, their head included.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sizes {
    law: SizeLaw,
    text: String,
}

#[derive(Clone, Debug, PartialEq)]
enum SizeLaw {
    Fixed(usize),
    /// Logarithm normally distributed, cut off at both ends.
    LogNormal {
        mu: f64,
        sigma: f64,
        most: usize,
    },
    /// `least` times a rank, the rank by Zipf's law.
    Zipf {
        least: usize,
        cumulative: Vec<f64>,
    },
}

/// Most ranks of Zipf's law: a table of half a mebibyte.
const RANKS: usize = 1 << 16;
/// Stream of random numbers: no phase has as high a number.
const STREAM: u64 = u64::MAX;

impl FromStr for Sizes {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let size = |text: &str| {
            let bytes = parse_bytes(text)?;
            let fits = usize::try_from(bytes).ok().filter(|size| (RECORD_HEADER..=RECORD_MAX).contains(size));
            fits.ok_or_else(|| format!("size {text:?}: want {RECORD_HEADER} to {RECORD_MAX} bytes"))
        };
        if !text.contains('@') {
            let law = SizeLaw::Fixed(
                size(text).map_err(|e| format!("{e}, or a law like lognormal@600:sigma=1 or zipf@64:s=1.2"))?,
            );
            return Ok(Self { law, text: text.to_owned() });
        }
        let mut spec = Spec::new(text)?;
        let value = size(spec.value)?;
        let law = match spec.name {
            "lognormal" => {
                let sigma =
                    spec.take("sigma", 1.0, |t| within(t, 0.01, 4.0, "a deviation of the logarithm, like 1"))?;
                let most = spec.take("max", RECORD_MAX, size)?;
                spec.done("sigma=DEVIATION and max=SIZE")?;
                #[expect(clippy::cast_precision_loss, reason = "at most 4 MiB")]
                let mu = (value as f64).ln() - sigma * sigma / 2.0;
                SizeLaw::LogNormal { mu, sigma, most }
            }
            "zipf" => {
                let s = spec.take("s", 1.2, |t| within(t, 0.0, 10.0, "an exponent, like 1.2"))?;
                let most = spec.take("max", value.saturating_mul(RANKS).min(1 << 20).max(value), size)?;
                spec.done("s=EXPONENT and max=SIZE")?;
                let ranks = most / value;
                if ranks == 0 || ranks > RANKS {
                    return Err(format!("{text:?}: max={most} is {ranks} times the smallest, want 1 to {RANKS} times"));
                }
                SizeLaw::Zipf { least: value, cumulative: zipf(ranks, s) }
            }
            other => return Err(format!("{text:?}: no law {other:?}: a size, lognormal or zipf")),
        };
        Ok(Self { law, text: text.to_owned() })
    }
}

/// Probability of the ranks up to each.
#[expect(clippy::cast_precision_loss, reason = "at most 65536 ranks")]
fn zipf(ranks: usize, s: f64) -> Vec<f64> {
    let mut sum = 0.0;
    let mut cumulative: Vec<f64> = Vec::with_capacity(ranks);
    for rank in 1..=ranks {
        sum += (rank as f64).powf(-s);
        cumulative.push(sum);
    }
    for value in &mut cumulative {
        *value /= sum;
    }
    cumulative
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Sizes {
    /// No record is larger.
    pub(crate) fn most(&self) -> usize {
        match &self.law {
            SizeLaw::Fixed(size) => *size,
            SizeLaw::LogNormal { most, .. } => *most,
            SizeLaw::Zipf { least, cumulative } => least * cumulative.len(),
        }
    }

    /// One size after the other, the same for the same seed.
    pub(crate) fn draw(&self, seed: u64) -> Draw<'_> {
        Draw { law: &self.law, random: Random::new(seed, STREAM) }
    }
}

/// Draws sizes.
#[derive(Debug)]
pub(crate) struct Draw<'a> {
    law: &'a SizeLaw,
    random: Random,
}

impl Draw<'_> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive and cut off below")]
    pub(crate) fn next(&mut self) -> usize {
        match self.law {
            SizeLaw::Fixed(size) => *size,
            SizeLaw::LogNormal { mu, sigma, most } => {
                let size = (mu + sigma * self.random.normal()).exp().round();
                (size as usize).clamp(RECORD_HEADER, *most)
            }
            SizeLaw::Zipf { least, cumulative } => {
                let drawn = self.random.unit();
                least * (cumulative.partition_point(|below| *below < drawn) + 1).min(cumulative.len())
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::cast_precision_loss, reason = "sizes far below 2^52")]
mod tests {
    use super::*;

    fn sizes(text: &str) -> Vec<usize> {
        let sizes: Sizes = text.parse().unwrap();
        let mut draw = sizes.draw(1);
        let drawn: Vec<usize> = (0..200_000).map(|_| draw.next()).collect();
        assert!(drawn.iter().all(|size| (RECORD_HEADER..=sizes.most()).contains(size)), "{text}");
        drawn
    }

    fn mean(sizes: &[usize]) -> f64 {
        sizes.iter().sum::<usize>() as f64 / sizes.len() as f64
    }

    fn near(got: f64, want: f64, share: f64) {
        assert!((got - want).abs() <= share * want, "{got}, want {want} within {share}");
    }

    #[test]
    fn a_plain_size_is_that_size() {
        assert!(sizes("512").iter().all(|size| *size == 512));
        assert_eq!("2KiB".parse::<Sizes>().unwrap().most(), 2_048);
    }

    #[test]
    fn a_log_normal_size_has_its_mean_and_its_tail() {
        let mut drawn = sizes("lognormal@600:sigma=1");
        near(mean(&drawn), 600.0, 0.02);
        drawn.sort_unstable();
        let median = 600.0 * (-0.5_f64).exp();
        near(drawn[100_000] as f64, median, 0.02);
        near(drawn[198_000] as f64, median * 2.326_35_f64.exp(), 0.05);
        assert!(sizes("lognormal@600:max=1KiB").contains(&1_024), "what is larger is cut off");
    }

    #[test]
    fn a_zipf_size_has_its_ranks() {
        let drawn = sizes("zipf@64:s=1:max=64000");
        let harmonic: f64 = (1..=1_000).map(|rank| 1.0 / f64::from(rank)).sum();
        near(mean(&drawn), 64.0 * 1_000.0 / harmonic, 0.02);
        for rank in [1, 2, 10] {
            let share = drawn.iter().filter(|size| **size == 64 * rank).count() as f64 / 200_000.0;
            near(share, 1.0 / (rank as f64 * harmonic), 0.05);
        }
        assert!(drawn.iter().all(|size| size % 64 == 0));
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_could() {
        for (bad, names) in [
            ("", "like lognormal@600:sigma=1"),
            ("19", "want 20 to 4194304"),
            ("5MiB", "want 20 to 4194304"),
            ("normal@600", "no law \"normal\""),
            ("lognormal@600:s=1", "lognormal takes no \"s\""),
            ("lognormal@600:sigma=0", "like 1"),
            ("zipf@1024:max=64", "want 1 to 65536 times"),
        ] {
            let error = bad.parse::<Sizes>().unwrap_err();
            assert!(error.contains(names), "{bad:?}: {error}");
        }
    }
}
