//! Latencies of runs in, quantiles and the interval of a quantile against itself out. Pure; seeded, so that the same runs
//! give the same figures.

/// Draws of the bootstrap.
const DRAWS: usize = 2_000;

/// Latencies in microseconds, ascending.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Samples(Vec<f64>);

impl Samples {
    pub(super) fn new(mut micros: Vec<f64>) -> Self {
        micros.sort_unstable_by(f64::total_cmp);
        Self(micros)
    }

    pub(super) fn pooled(runs: &[Self]) -> Self {
        Self::new(runs.iter().flat_map(|run| run.0.iter().copied()).collect())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    pub(super) fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len().max(1) as f64
    }
}

/// The smallest latency that a share `q` of all does not exceed.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
pub(super) fn quantile(samples: &Samples, q: f64) -> f64 {
    let rank = (samples.len() as f64 * q).ceil() as usize;
    samples.0.get(rank.clamp(1, samples.len().max(1)) - 1).copied().unwrap_or(0.0)
}

/// 95 % interval of the quantile of runs drawn anew over that of runs drawn anew once more: what two generators that are
/// the same would differ by. Whole runs are drawn, because the latencies within one hang together.
pub(super) fn interval_of_self(runs: &[Samples], q: f64, seed: u64) -> [f64; 2] {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut draw = || {
        let drawn: Vec<&Samples> = runs
            .iter()
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                &runs[usize::try_from((state >> 11) % runs.len() as u64).unwrap_or(0)]
            })
            .collect();
        quantile_of(&drawn, q)
    };
    let mut ratios: Vec<f64> = (0..DRAWS).map(|_| draw() / draw()).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    [ratios[DRAWS / 40], ratios[DRAWS - 1 - DRAWS / 40]]
}

/// As `quantile` of all of them pooled, by bisection on the value: nothing is copied or sorted for each draw.
fn quantile_of(runs: &[&Samples], q: f64) -> f64 {
    let total: usize = runs.iter().map(|run| run.len()).sum();
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank")]
    let rank = ((total as f64 * q).ceil() as usize).max(1);
    let (mut low, mut high) = (0.0, runs.iter().filter_map(|run| run.0.last()).copied().fold(0.0, f64::max));
    // To a ten-thousandth of a microsecond, for latencies up to a day.
    for _ in 0..50 {
        let middle = f64::midpoint(low, high);
        let below: usize = runs.iter().map(|run| run.0.partition_point(|value| *value <= middle)).sum();
        if below >= rank { high = middle } else { low = middle }
    }
    high
}

/// The widest of some intervals around 1.
pub(super) fn resolution(intervals: &[[f64; 2]]) -> f64 {
    intervals.iter().flatten().map(|edge| (edge - 1.0).abs()).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(values: impl Iterator<Item = u32>) -> Samples {
        Samples::new(values.map(f64::from).collect())
    }

    #[test]
    fn a_quantile_is_the_value_that_its_share_does_not_exceed() {
        let samples = run((1..=1_000).rev());
        let micros = |q| format!("{}", quantile(&samples, q));
        assert_eq!([0.5, 0.99, 0.999, 1.0].map(micros), ["500", "990", "999", "1000"]);
        assert!((samples.mean() - 500.5).abs() < 1e-9);
        assert_eq!(quantile(&Samples::default(), 0.99).to_bits(), 0.0_f64.to_bits());
    }

    #[test]
    fn pooled_by_bisection_is_pooled_by_sorting() {
        let runs = [run(1..=300), run((1..=700).map(|n| n * 3)), run(5..=5)];
        let (all, each) = (Samples::pooled(&runs), [&runs[0], &runs[1], &runs[2]]);
        for q in [0.01, 0.5, 0.99, 0.999] {
            assert!((quantile_of(&each, q) - quantile(&all, q)).abs() < 1e-3, "{q}");
        }
    }

    #[test]
    fn runs_that_are_alike_are_near_to_themselves_and_runs_that_differ_are_not() {
        let alike: Vec<Samples> = (0..12).map(|shift| run((0..1_000).map(move |n| 1_000 + n + shift))).collect();
        let [low, high] = interval_of_self(&alike, 0.99, 1);
        assert!(low > 0.99 && high < 1.01 && low <= 1.0 && high >= 1.0, "{low} {high}");
        let apart: Vec<Samples> = (1..=12).map(|scale| run((0..1_000).map(move |n| scale * (1_000 + n)))).collect();
        let interval = interval_of_self(&apart, 0.99, 1);
        assert!(interval[0] < 0.9 && interval[1] > 1.1, "{interval:?}");
        assert!(resolution(&[[low, high], interval]) > 0.1);
        assert_eq!(
            interval_of_self(&apart, 0.99, 1).map(f64::to_bits),
            interval.map(f64::to_bits),
            "the same runs give the same figures"
        );
    }
}
