//! Hot spots: the profile of now and the windows before it in, one after the other; functions beside their baseline out,
//! each with the chance that its growth is noise. Never judges from one window alone, and never keeps one.
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

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::model::{Frame, Origin, Profile};
use super::noise::{believed, chance, t_to_z};
use super::shares::{Share, Shares, Sum};

/// Windows of the baseline below which nothing is said.
pub const FEWEST_WINDOWS: usize = 5;

/// Growth below which nothing is said, as a share: half a percent, however sure, is no hot spot.
const LEAST_GROWTH: f64 = 0.005;

/// A function of now beside its baseline.
#[derive(Clone, Debug, PartialEq)]
pub struct Hotspot {
    /// The function.
    pub frame: Frame,
    /// Share of what ends in it now, 0 to 1.
    pub own: f64,
    /// Share of what it takes part in now.
    pub all: f64,
    /// Share of what ends in it in the baseline; absent without one.
    pub before: Option<f64>,
    /// What its growth is worth; absent where that cannot be told.
    pub verdict: Option<Verdict>,
}

/// What a growth, or a fall, is worth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// Standard error of the difference.
    pub error: f64,
    /// Chance of such a growth, or of as great a fall, when there is none.
    pub chance: f64,
    /// Whether it is believed, among all that were judged.
    pub believed: bool,
}

impl Hotspot {
    /// By how much it grew, 0 to 1.
    pub fn growth(&self) -> f64 {
        self.own - self.before.unwrap_or(self.own)
    }

    /// Whether it grew, and enough to be told.
    pub fn has_grown(&self) -> bool {
        self.verdict.is_some_and(|verdict| verdict.believed) && self.growth() >= LEAST_GROWTH
    }

    /// It in words; nothing where it has no verdict.
    pub fn words(&self) -> Option<String> {
        let Self { frame, own, all, before, verdict } = self;
        let Verdict { error, chance, believed: _ } = (*verdict)?;
        let (own, before, all) = (own * 100.0, (*before)? * 100.0, all * 100.0);
        let (points, error) = (self.growth() * 100.0, error * 100.0);
        let chance = if chance < 0.0001 { "below 0.0001".to_owned() } else { format!("{chance:.4}") };
        let name = &frame.name;
        Some(format!(
            "{name} grew by {points:.1} ± {error:.1} points, from {before:.1} % to {own:.1} % \
             (with what it calls {all:.1} %; chance of noise {chance})"
        ))
    }
}

/// Functions of now beside their baseline.
#[derive(Clone, Debug, PartialEq)]
pub struct Hotspots {
    /// Every function that something ends in, those that take most first.
    pub functions: Vec<Hotspot>,
    /// Windows of the baseline that something was seen in.
    pub windows: usize,
}

impl Hotspots {
    /// Those that grew, those that grew most first; absent where the baseline has too few windows to tell.
    pub fn grown(&self) -> Option<Vec<&Hotspot>> {
        let mut grown: Vec<&Hotspot> = self.functions.iter().filter(|spot| spot.has_grown()).collect();
        grown.sort_by(|a, b| b.growth().total_cmp(&a.growth()).then_with(|| a.frame.cmp(&b.frame)));
        (self.windows >= FEWEST_WINDOWS).then_some(grown)
    }
}

/// The windows before, added up for the functions of now.
#[derive(Debug)]
pub struct Baseline<'a> {
    now: Shares<'a>,
    before: HashMap<&'a Frame, Before, RandomState>,
    windows: usize,
    total: Sum,
    /// Sum of the windows' mean draws; none when one of them is not known.
    draws: Option<f64>,
}

/// What ends in one function in the windows before.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    own: Sum,
    /// Sum of its shares of each window, and of their squares.
    shares: f64,
    squares: f64,
}

impl<'a> Baseline<'a> {
    /// Of a profile, without a window yet.
    pub fn of(now: &'a Profile) -> Self {
        let now = Shares::of(now);
        let ends = now.functions.iter().filter(|(_, function)| function.own.value > 0.0);
        let before = ends.map(|(frame, _)| (*frame, Before::default())).collect();
        Self { now, before, windows: 0, total: Sum::default(), draws: Some(0.0) }
    }

    /// Adds a window. One of nothing is left out: an idle host has no shares.
    pub fn add(&mut self, window: &Profile) {
        let window = Shares::of(window);
        if window.total.value <= 0.0 {
            return;
        }
        for (frame, function) in &window.functions {
            if let Some(before) = self.before.get_mut(*frame) {
                let share = function.own.value / window.total.value;
                before.own.add(function.own);
                before.shares += share;
                before.squares += share * share;
            }
        }
        self.windows += 1;
        self.total.add(window.total);
        self.draws = self.draws.zip(window.draw).map(|(sum, draw)| sum + draw);
    }

    /// The functions of now, judged.
    pub fn judge(self) -> Hotspots {
        let mut functions: Vec<Hotspot> = self.before.iter().map(|(frame, before)| self.spot(frame, before)).collect();
        // In one order whatever the order of the table.
        functions.sort_by(|a, b| b.own.total_cmp(&a.own).then_with(|| a.frame.cmp(&b.frame)));
        let verdicts = || functions.iter().filter_map(|spot| spot.verdict);
        let mut believed = believed(&verdicts().map(|verdict| verdict.chance).collect::<Vec<f64>>()).into_iter();
        for verdict in functions.iter_mut().filter_map(|spot| spot.verdict.as_mut()) {
            verdict.believed = believed.next() == Some(true);
        }
        Hotspots { functions, windows: self.windows }
    }

    #[expect(clippy::cast_precision_loss, reason = "a few hundred windows")]
    fn spot(&self, frame: &Frame, before: &Before) -> Hotspot {
        let k = self.windows as f64;
        let function = self.now.get(frame);
        let now = self.now.share(function.own);
        let draw = self.draws.filter(|_| self.windows > 0).map(|sum| sum / k);
        let pooled = Shares { functions: HashMap::default(), total: self.total, draw };
        let earlier = pooled.share(before.own);
        // What the profiler itself says is no function that could be made faster.
        let is_judged = self.windows >= FEWEST_WINDOWS && frame.origin != Origin::Note;
        let sampling = now.variance.zip(earlier.variance).map(|(a, b)| a + b).filter(|_| is_judged);
        Hotspot {
            frame: frame.clone(),
            own: now.share,
            all: self.now.share(function.all).share,
            before: (self.windows > 0).then_some(earlier.share),
            verdict: sampling.map(|sampling| verdict(now, earlier, sampling, before, k)),
        }
    }
}

fn verdict(now: Share, earlier: Share, sampling: f64, before: &Before, k: f64) -> Verdict {
    let spread = (before.squares - before.shares * before.shares / k).max(0.0) / (k - 1.0);
    let between = spread * (1.0 + 1.0 / k);
    let growth = now.share - earlier.share;
    let (error, z) = if between > sampling {
        (between.sqrt(), t_to_z(growth / between.sqrt(), k - 1.0))
    } else {
        (sampling.sqrt(), growth / sampling.sqrt())
    };
    Verdict { error, chance: chance(z), believed: false }
}
