//! Arrivals: a law, its span and a seed in, the due time of one record after the other out. A Poisson process whose rate
//! changes is drawn at the highest rate of each stretch and thinned to the rate of the instant, which is exact for every
//! law. Keeps a few numbers, however many records there are.

use tidegate_client::Nanos;

use super::law::Law;
use super::random::Random;
use super::trace::TraceReader;

const SECOND: f64 = 1e9;

/// One segment's arrivals.
#[derive(Debug)]
pub(crate) struct Arrivals<'a> {
    law: &'a Law,
    span: Nanos,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Even { next: u64 },
    Poisson(Box<Poisson>),
    Trace(TraceReader),
}

impl<'a> Arrivals<'a> {
    pub(crate) fn new(law: &'a Law, span: Nanos, random: Random) -> Self {
        let way = match law {
            Law::Even { .. } => Way::Even { next: 0 },
            Law::Trace(trace) => Way::Trace(trace.read()),
            _ => Way::Poisson(Box::new(Poisson::new(law, random))),
        };
        Self { law, span, way }
    }
}

impl Iterator for Arrivals<'_> {
    type Item = Nanos;
    fn next(&mut self) -> Option<Nanos> {
        match (&mut self.way, self.law) {
            (Way::Even { next }, Law::Even { rate }) => {
                let wide = |n: u64| u128::from(n);
                // By number, not by time: the last record must not fall victim to rounding.
                let records = wide(*rate) * wide(self.span.0) / 1_000_000_000;
                let at = wide(*next) * 1_000_000_000 / wide(*rate);
                *next += 1;
                (wide(*next) <= records).then(|| Nanos(u64::try_from(at).unwrap_or(u64::MAX)))
            }
            (Way::Trace(reader), Law::Trace(trace)) => reader.next(trace),
            (Way::Poisson(process), law) => process.next(law, self.span),
            _ => None,
        }
    }
}

/// A Poisson process on its way.
#[derive(Debug)]
struct Poisson {
    random: Random,
    /// Where it stands, ns.
    at: f64,
    stretch: Stretch,
    mode: Mode,
}

/// A time over which the rate does not exceed a bound.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    end: f64,
    /// Records a second.
    most: f64,
}

/// Which of two states a law is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    High,
    Low,
}

impl Poisson {
    fn new(law: &Law, mut random: Random) -> Self {
        let mode = match law {
            // In the long run's proportion, so that short runs have the same mean.
            Law::Burst { share, .. } if random.unit() > *share => Mode::Low,
            _ => Mode::High,
        };
        let mut process = Self { random, at: 0.0, stretch: Stretch { end: 0.0, most: 0.0 }, mode };
        process.stretch = process.stretch_after(law);
        process
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "above 0 and below the span, whole ns")]
    fn next(&mut self, law: &Law, span: Nanos) -> Option<Nanos> {
        let span = exact(span);
        loop {
            let gap = self.random.exponential() * SECOND / self.stretch.most;
            // Written so that a rate of 0, whose gap is infinite, ends the stretch too.
            if self.at + gap < self.stretch.end.min(span) {
                self.at += gap;
                if self.random.unit() * self.stretch.most <= self.rate(law) {
                    return Some(Nanos(self.at as u64));
                }
                continue;
            }
            if self.stretch.end >= span {
                // What is asked again stays at the end.
                self.at = span;
                return None;
            }
            // What is left of the gap is forgotten, which an exponential law allows.
            self.at = self.stretch.end;
            self.mode = if self.mode == Mode::High { Mode::Low } else { Mode::High };
            self.stretch = self.stretch_after(law);
        }
    }

    /// The stretch that begins where this process stands.
    fn stretch_after(&mut self, law: &Law) -> Stretch {
        let for_good = |most: f64| Stretch { end: f64::INFINITY, most };
        match *law {
            Law::Poisson { rate } => for_good(rate),
            Law::Ramp { from, to, .. } => for_good(from.max(to)),
            Law::Daily { rate, swing, .. } => for_good(rate * (1.0 + swing)),
            Law::OnOff { rate, low, on, off } => {
                let (most, length) = if self.mode == Mode::High { (rate, on) } else { (low, off) };
                Stretch { end: self.at + exact(length), most }
            }
            Law::Burst { rate, factor, share, mean } => {
                let calm = rate / (1.0 - share + share * factor);
                let (most, mean) = match self.mode {
                    Mode::High => (calm * factor, exact(mean)),
                    Mode::Low => (calm, exact(mean) * (1.0 - share) / share),
                };
                Stretch { end: self.at + mean * self.random.exponential(), most }
            }
            Law::Flash { rate, peak, at, rise, fall } => {
                let (at, risen) = (exact(at), exact(at) + exact(rise));
                if self.at < at {
                    Stretch { end: at, most: rate }
                } else if self.at < risen {
                    Stretch { end: risen, most: rate.max(peak) }
                } else {
                    // Pieces of the fall, so that little is drawn in vain.
                    let most = rate.max(flash_rate(rate, peak, self.at - risen, exact(fall)));
                    Stretch { end: self.at + exact(fall) / 4.0, most }
                }
            }
            Law::Even { .. } | Law::Trace(_) => Stretch { end: f64::INFINITY, most: 0.0 },
        }
    }

    /// The rate where this process stands.
    fn rate(&self, law: &Law) -> f64 {
        match *law {
            Law::Ramp { .. } | Law::Daily { .. } | Law::Flash { .. } => rate_at(law, self.at),
            _ => self.stretch.most,
        }
    }
}

/// The rate of a law that follows the clock alone.
fn rate_at(law: &Law, at: f64) -> f64 {
    match *law {
        Law::Ramp { from, to, span } => from + (to - from) * at / exact(span),
        Law::Daily { rate, swing, day } => rate * (1.0 - swing * (std::f64::consts::TAU * at / exact(day)).cos()),
        Law::Flash { rate, peak, at: begin, rise, fall } => {
            let (begin, risen) = (exact(begin), exact(begin) + exact(rise));
            if at < begin {
                rate
            } else if at < risen {
                rate + (peak - rate) * (at - begin) / exact(rise)
            } else {
                flash_rate(rate, peak, at - risen, exact(fall))
            }
        }
        _ => 0.0,
    }
}

/// The rate of a flash crowd `since` its peak.
fn flash_rate(rate: f64, peak: f64, since: f64, fall: f64) -> f64 {
    rate + (peak - rate) * (-since / fall).exp()
}

#[expect(clippy::cast_precision_loss, reason = "below 104 days a double is exact to a nanosecond")]
fn exact(span: Nanos) -> f64 {
    span.0 as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::law::Traffic;

    /// Due times of a single segment, in seconds.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    fn times(text: &str, seed: u64) -> Vec<f64> {
        let traffic: Traffic = text.parse().unwrap();
        let segment = &traffic.0[0];
        let times: Vec<f64> =
            Arrivals::new(&segment.law, segment.span, Random::new(seed, 0)).map(|at| at.0 as f64 / SECOND).collect();
        assert!(times.windows(2).all(|pair| pair[0] <= pair[1]), "{text}: in order");
        assert!(times.last().is_none_or(|last| *last < exact(segment.span) / SECOND), "{text}: within the span");
        times
    }

    fn between(times: &[f64], from: f64, to: f64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let count = times.iter().filter(|at| (from..to).contains(*at)).count() as f64;
        count / (to - from)
    }

    /// Mean and variance of the counts in bins of `bin` seconds.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a bin's number")]
    fn counts(times: &[f64], bin: f64, span: f64) -> (f64, f64) {
        let mut bins = vec![0.0; (span / bin).round() as usize];
        for at in times {
            bins[((at / bin) as usize).min((span / bin) as usize - 1)] += 1.0;
        }
        let mean = bins.iter().sum::<f64>() / bins.len() as f64;
        (mean, bins.iter().map(|n: &f64| (n - mean).powi(2)).sum::<f64>() / bins.len() as f64)
    }

    fn near(got: f64, want: f64, share: f64) {
        assert!((got - want).abs() <= share * want, "{got}, want {want} within {share}");
    }

    #[test]
    fn even_arrivals_have_equal_gaps() {
        let times = times("even@1000x2s", 1);
        assert_eq!(times.len(), 2_000);
        assert!(times.windows(2).all(|pair| (pair[1] - pair[0] - 0.001).abs() < 1e-6));
    }

    #[test]
    fn poisson_arrivals_have_their_rate_exponential_gaps_and_a_dispersion_of_one() {
        let times = times("poisson@2000x100s", 1);
        near(between(&times, 0.0, 100.0), 2_000.0, 0.01);
        let (mean, variance) = counts(&times, 0.1, 100.0);
        near(variance / mean, 1.0, 0.15);
        let mut gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        gaps.sort_unstable_by(f64::total_cmp);
        for percent in [10_u8, 50, 90, 99] {
            let want = -(1.0 - f64::from(percent) / 100.0).ln();
            near(gaps[gaps.len() * usize::from(percent) / 100] * 2_000.0, want, 0.03);
        }
    }

    #[test]
    fn on_and_off_take_turns() {
        let times = times("onoff@4000x20s:on=500ms:off=1500ms:low=100", 1);
        for turn in 0..10 {
            let begin = f64::from(turn) * 2.0;
            near(between(&times, begin, begin + 0.5), 4_000.0, 0.1);
            near(between(&times, begin + 0.5, begin + 2.0), 100.0, 0.35);
        }
        let silent = self::times("onoff@4000x2s:on=500ms", 1);
        assert!(!silent.iter().any(|at| (0.5..1.0).contains(at)), "silent unless told otherwise");
    }

    /// Bursts of the asked rate, length and share: the mean stays what it is, and counts are as over-dispersed as the
    /// theory of a two-state process says. A bin as long as a burst sees Var/Mean = 1 + 2·(h−l)²·p·(1−p)/(m·r)·(1 − (1−e^(−rT))/(rT)),
    /// where r is the sum of the rates of change between the states.
    #[test]
    fn bursts_have_their_mean_share_and_dispersion() {
        let times = times("burst@2000x2000s:factor=10:share=0.1:mean=200ms", 1);
        near(between(&times, 0.0, 2_000.0), 2_000.0, 0.03);
        let (low, high) = (2_000.0 / 1.9, 20_000.0 / 1.9);
        let (mean, variance) = counts(&times, 0.2, 2_000.0);
        let r = 1.0 / 0.2 + 1.0 / 1.8;
        let rt: f64 = r * 0.2;
        let excess = 2.0 * (high - low) * (high - low) * 0.1 * 0.9 / (2_000.0 * r) * (1.0 - (1.0 - (-rt).exp()) / rt);
        near(variance / mean, 1.0 + excess, 0.1);
        // In bins of a tenth of a burst nearly all are of one state or the other.
        let bins: Vec<f64> = (0..100_000).map(|i| f64::from(i) * 0.02).collect();
        let middle = (low * high).sqrt() * 0.02;
        let (mut rest, mut in_burst) = (times.iter().peekable(), 0);
        for bin in &bins {
            let mut count = 0.0;
            while rest.next_if(|at| **at < bin + 0.02).is_some() {
                count += 1.0;
            }
            in_burst += u32::from(count > middle);
        }
        near(f64::from(in_burst) / 100_000.0, 0.1, 0.12);
    }

    #[test]
    fn a_ramp_rises_in_a_straight_line() {
        let times = times("ramp@1000-9000x40s", 1);
        for (from, want) in [(0.0, 1_500.0), (15.0, 4_500.0), (35.0, 8_500.0)] {
            near(between(&times, from, from + 5.0), want, 0.03);
        }
        near(between(&times, 0.0, 40.0), 5_000.0, 0.01);
    }

    #[test]
    fn a_day_has_its_night_and_its_noon() {
        let times = times("daily@2000x80s:swing=0.9:day=40s", 1);
        near(between(&times, 0.0, 80.0), 2_000.0, 0.01);
        near(between(&times, 39.0, 41.0), 200.0, 0.15);
        near(between(&times, 19.0, 21.0), 3_800.0, 0.04);
        near(between(&times, 9.0, 11.0), 2_000.0, 0.05);
    }

    #[test]
    fn a_flash_crowd_comes_at_once_and_leaves_slowly() {
        let times = times("flash@500x60s:peak=10000:at=20s:rise=1s:fall=10s", 1);
        near(between(&times, 0.0, 20.0), 500.0, 0.05);
        near(between(&times, 20.9, 21.1), 10_000.0, 0.06);
        let later = 500.0 + 9_500.0 * (-1.0_f64).exp();
        near(between(&times, 30.5, 31.5), later, 0.05);
    }

    #[test]
    fn a_seed_gives_its_arrivals_again() {
        for law in ["poisson@500x5s", "burst@500x5s", "flash@500x5s"] {
            assert_eq!(times(law, 3), times(law, 3));
            assert_ne!(times(law, 3), times(law, 4));
        }
    }
}
