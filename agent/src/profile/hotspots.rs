//! Hot spots: the profile of now and the windows before it in; functions ranked by how much they grew out, each with its
//! chance of being noise. Never judges from one window alone.
//!
//! For each function, with its share `p` of the profile of now and its shares `p₁ … pₖ` of the `k` windows of the baseline:
//! - `p̄`: its share of all of the baseline together; growth `d = p − p̄`, in points of the whole;
//! - `v`, `v̄`: sampling variances of `p` and `p̄` (`shares`);
//! - `s²`: variance of `p₁ … pₖ` around their mean, which holds what the workload itself varies by;
//! - `σ² = max(v + v̄, s² (1 + 1/k))`, the variance of a prediction; `z = d / σ`. Where the second term is the greater one, it
//!   was estimated from `k` values, and `d / σ` is a `t` with `k − 1` degrees of freedom, taken for the `z` of the same chance.
//!
//! Of all functions those are told whose chances pass at a false discovery rate of 5 % (`noise`), those that grew most
//! first. Below [`FEWEST_WINDOWS`] windows how much the workload varies is not known, and nothing is said.

use super::model::{Frame, Origin, Profile};
use super::noise::{believed, chance, t_to_z};
use super::shares::{Function, Share, Shares, Sum};

/// Windows of the baseline below which nothing is said.
pub const FEWEST_WINDOWS: usize = 5;

/// Growth below which nothing is said, as a share: a hundredth of a percent, however sure, is no hot spot.
const LEAST_GROWTH: f64 = 0.005;

/// A function that grew.
#[derive(Clone, Debug, PartialEq)]
pub struct Hotspot {
    /// The function.
    pub frame: Frame,
    /// Share of what ends in it now, 0 to 1.
    pub own: f64,
    /// Share of what ends in it in the baseline.
    pub baseline: f64,
    /// Standard error of the difference.
    pub error: f64,
    /// Chance of such a growth, or of as great a fall, when there is none.
    pub chance: f64,
    /// Share of what it takes part in now.
    pub all: f64,
}

impl Hotspot {
    /// By how much it grew, 0 to 1.
    pub fn growth(&self) -> f64 {
        self.own - self.baseline
    }

    /// It in words.
    pub fn words(&self) -> String {
        let Self { frame, own, baseline, error, chance, all } = self;
        let (own, baseline, all) = (own * 100.0, baseline * 100.0, all * 100.0);
        let (points, error) = (self.growth() * 100.0, error * 100.0);
        let chance = if *chance < 0.0001 { "below 0.0001".to_owned() } else { format!("{chance:.4}") };
        let name = &frame.name;
        format!(
            "{name} grew by {points:.1} ± {error:.1} points, from {baseline:.1} % to {own:.1} % \
             (with what it calls {all:.1} %; chance of noise {chance})"
        )
    }
}

/// What grew.
#[derive(Clone, Debug, PartialEq)]
pub enum Hotspots {
    /// Ranked, those that grew most first; empty when nothing did.
    Ranked(Vec<Hotspot>),
    /// The baseline has too few windows.
    TooEarly {
        /// It has this many.
        windows: usize,
    },
}

/// Ranks what grew against the windows before. Windows of nothing are left out: an idle host has no shares.
pub fn hotspots(now: &Profile, baseline: &[Profile]) -> Hotspots {
    let windows: Vec<Shares<'_>> = baseline.iter().map(Shares::of).filter(|shares| shares.total.value > 0.0).collect();
    let current = Shares::of(now);
    if windows.len() < FEWEST_WINDOWS {
        return Hotspots::TooEarly { windows: windows.len() };
    }
    let mut found: Vec<Hotspot> = current
        .functions
        .iter()
        // What the profiler itself says is no function that could be made faster.
        .filter(|(frame, function)| frame.origin != Origin::Note && function.own.value > 0.0)
        .filter_map(|(frame, function)| compare(frame, *function, &current, &windows))
        .collect();
    // In one order whatever the order of the table.
    found.sort_by(|a, b| a.frame.cmp(&b.frame));
    let chances: Vec<f64> = found.iter().map(|hotspot| hotspot.chance).collect();
    let mut keep = believed(&chances).into_iter();
    found.retain(|hotspot| keep.next() == Some(true) && hotspot.growth() >= LEAST_GROWTH);
    found.sort_by(|a, b| b.growth().total_cmp(&a.growth()));
    Hotspots::Ranked(found)
}

#[expect(clippy::cast_precision_loss, reason = "a few hundred windows")]
fn compare(frame: &Frame, function: Function, now: &Shares<'_>, windows: &[Shares<'_>]) -> Option<Hotspot> {
    let Share { share: own, variance } = now.share(function.own);
    let k = windows.len() as f64;
    let owns: Vec<Sum> = windows.iter().map(|window| window.get(frame).own).collect();
    let whole = together(windows.iter().map(|window| window.total));
    let draw = windows.iter().map(|w| w.draw).sum::<Option<f64>>()? / k;
    let pooled = Shares { functions: std::collections::HashMap::default(), total: whole, draw: Some(draw) };
    let before = pooled.share(together(owns.iter().copied()));
    let sampling = variance? + before.variance?;
    let shares: Vec<f64> = owns.iter().zip(windows).map(|(own, window)| own.value / window.total.value).collect();
    let mean = shares.iter().sum::<f64>() / k;
    let spread = shares.iter().map(|share| (share - mean) * (share - mean)).sum::<f64>() / (k - 1.0);
    let between = spread * (1.0 + 1.0 / k);
    let growth = own - before.share;
    let (error, z) = if between > sampling {
        (between.sqrt(), t_to_z(growth / between.sqrt(), k - 1.0))
    } else {
        (sampling.sqrt(), growth / sampling.sqrt())
    };
    let all = now.share(function.all).share;
    Some(Hotspot { frame: frame.clone(), own, baseline: before.share, error, chance: chance(z), all })
}

fn together(sums: impl Iterator<Item = Sum>) -> Sum {
    sums.fold(Sum::default(), |all, one| Sum { value: all.value + one.value, variance: all.variance + one.variance })
}
