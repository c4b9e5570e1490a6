//! The oracle: a plan in, the best constant of each of its phases and the best single constant out. Exhaustive over a
//! geometric grid of interval and batch, by successive halving over real runs, under the plan's cap on the busy share.
//!
//! One lane a group of phases holds its rate and switches from candidate to candidate; the first second of each is left
//! out. What is found here is never reported as a figure: the least of many noisy figures lies below all of them. The
//! winners run again in the blocks.

use anyhow::{Result, bail};
use fastrand::Rng;
use serde::Serialize;
use tidegate_client::Nanos;

use super::job::{Downstream, Job};
use super::lane::Outcome;
use super::plan::{Contender, Plan, divide};
use super::runner::Runner;
use super::turns::{Counted, counted, turns_job};
use crate::load::schedule::Phase;
use crate::out::note;
use crate::pipeline::policy::{Constant, Policy};
use crate::sink::delay::Steps;
use crate::stats::{Pool, Weighted};

/// A busy share is measured over seconds: so much above the cap is within it.
const TOLERANCE: f64 = 0.02;

/// What is tried.
#[derive(Clone, Debug)]
pub(crate) struct Grid {
    pub(crate) intervals_us: Vec<u64>,
    pub(crate) batches: Vec<u64>,
    /// Seconds measured of a candidate in each round, and how many go on to the next.
    pub(crate) rounds: Vec<Round>,
}

/// One round of the halving.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    /// Seconds measured of each candidate.
    pub(crate) seconds: u64,
    /// Candidates that take part, of each group of phases.
    pub(crate) candidates: usize,
}

impl Grid {
    /// Steps of √2 in the interval: for sinks that bear several lanes at once.
    pub(crate) fn fine() -> Self {
        let intervals_us =
            [1_000, 1_414, 2_000, 2_828, 4_000, 5_657, 8_000, 11_314, 16_000, 22_627, 32_000, 64_000, 128_000, 250_000];
        let rounds = [(1, usize::MAX), (3, 12), (6, 5)];
        Self::new(&intervals_us, &[32 << 10, 128 << 10, 512 << 10], &rounds)
    }

    /// Steps of 2 and three rounds.
    pub(crate) fn coarse() -> Self {
        let intervals_us = [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 250_000];
        Self::new(&intervals_us, &[64 << 10, 512 << 10], &[(1, usize::MAX), (2, 5), (4, 4)])
    }

    /// Steps of 2 and two rounds: for sinks that bear one lane at a time.
    pub(crate) fn short() -> Self {
        let intervals_us = [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000];
        Self::new(&intervals_us, &[64 << 10, 512 << 10], &[(1, usize::MAX), (2, 4)])
    }

    /// Steps of 2 and no more than one repetition, to try the plumbing by.
    pub(crate) fn quick() -> Self {
        let intervals_us = [1_000, 2_000, 4_000, 8_000, 16_000];
        Self::new(&intervals_us, &[512 << 10], &[(1, usize::MAX), (2, 2)])
    }

    fn new(intervals_us: &[u64], batches: &[u64], rounds: &[(u64, usize)]) -> Self {
        let rounds = rounds.iter().map(|(seconds, candidates)| Round { seconds: *seconds, candidates: *candidates });
        Self { intervals_us: intervals_us.to_vec(), batches: batches.to_vec(), rounds: rounds.collect() }
    }

    fn all(&self) -> Vec<Constant> {
        let mut all = Vec::new();
        for interval_us in &self.intervals_us {
            all.extend(self.batches.iter().map(|b| Constant { batch_bytes: *b, interval_us: *interval_us }));
        }
        all
    }
}

/// What is known of a candidate at one rate.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Tried {
    pub(crate) constant: String,
    pub(crate) busy: f64,
    pub(crate) p99_ms: f64,
    #[serde(skip)]
    of: Constant,
    #[serde(skip)]
    sum: Counted,
}

/// What the search found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Found {
    /// Best constant of each phase of the plan, in order.
    #[serde(skip)]
    pub(crate) per_phase: Vec<Constant>,
    /// Best single constant over all phases.
    #[serde(skip)]
    pub(crate) best: Constant,
    /// Everything that was tried, by group of phases.
    pub(crate) tried: Vec<(String, Vec<Tried>)>,
    /// Cap on the busy share.
    pub(crate) cap: f64,
}

/// Searches, and adds what was found to the contenders: the best single constant as `best`, the constants of the phases
/// as `oracle`.
pub(crate) fn add_oracle(runner: &Runner<'_>, plan: &mut Plan, grid: &Grid, cap: f64) -> Result<Found> {
    let found = search(runner, plan, grid, cap)?;
    note(&format!("{}: best single constant {}", plan.title, found.best));
    let contender = |label: &str, policy, constants| Contender { label: label.to_owned(), policy, constants };
    plan.contenders.push(contender("best", Policy::Static(found.best), Vec::new()));
    plan.contenders.push(contender("oracle", Policy::Schedule, found.per_phase.clone()));
    Ok(found)
}

/// Searches by real runs.
fn search(runner: &Runner<'_>, plan: &Plan, grid: &Grid, cap: f64) -> Result<Found> {
    let groups = plan.groups();
    let mut random = Rng::with_seed(plan.seed ^ 0x5eac);
    let mut tried: Vec<Vec<Tried>> = groups.iter().map(|_| Vec::new()).collect();
    for (i, round) in grid.rounds.iter().enumerate() {
        let mut jobs = Vec::new();
        for (group, tried) in groups.iter().zip(&mut tried) {
            rank(tried, cap);
            let mut candidates = if i == 0 { grid.all() } else { next(tried, round.candidates) };
            if i + 1 == grid.rounds.len() && i > 0 {
                candidates.extend(neighbours(&candidates));
            }
            random.shuffle(&mut candidates);
            jobs.push((job(plan, group.phases[0], &candidates, round.seconds), candidates));
        }
        note(&format!("{}: search, round {} of {}", plan.title, i + 1, grid.rounds.len()));
        let indices: Vec<usize> = (0..jobs.len()).collect();
        for together in divide(&indices, plan.lanes_at_once()) {
            let running: Vec<Job> = together.iter().map(|j| jobs[*j].0.clone()).collect();
            for (j, outcome) in together.iter().zip(runner.together(&running)?.outcomes) {
                for (at, candidate) in jobs[*j].1.iter().enumerate() {
                    note_result(&mut tried[*j], *candidate, &outcome, at, round.seconds);
                }
            }
        }
    }
    for tried in &mut tried {
        rank(tried, cap);
    }
    let mut per_phase = vec![None; plan.phases.0.len()];
    for (group, tried) in groups.iter().zip(&tried) {
        for phase in &group.phases {
            per_phase[*phase] = tried.first().map(|t| t.of);
        }
    }
    let Some(per_phase) = per_phase.into_iter().collect::<Option<Vec<Constant>>>() else {
        bail!("search: a phase without a candidate");
    };
    let shares: Vec<(f64, f64)> = groups.iter().map(|group| shares(plan, &group.phases)).collect();
    let best = best_single(&grid.all(), &tried, &shares, cap);
    let tried = groups.into_iter().map(|g| g.name).zip(tried).collect();
    Ok(Found { per_phase, best, tried, cap })
}

/// Candidates within the cap by their tails, then the others by their busy share.
fn rank(tried: &mut [Tried], cap: f64) {
    tried.sort_by(|a, b| {
        let over = |t: &Tried| t.busy > cap + TOLERANCE;
        match (over(a), over(b)) {
            (false, false) => a.p99_ms.total_cmp(&b.p99_ms),
            (true, true) => a.busy.total_cmp(&b.busy),
            (a, b) => a.cmp(&b),
        }
    });
}

fn next(tried: &[Tried], candidates: usize) -> Vec<Constant> {
    tried.iter().take(candidates).map(|t| t.of).collect()
}

/// Between the points of the grid, around the best of them.
fn neighbours(candidates: &[Constant]) -> Vec<Constant> {
    let Some(best) = candidates.first() else { return Vec::new() };
    [(21, 25), (23, 25), (27, 25), (30, 25)]
        .map(|(n, d)| Constant { interval_us: (best.interval_us * n / d).max(1_000), ..*best })
        .into_iter()
        .filter(|c| !candidates.contains(c))
        .collect()
}

/// The candidates in turn, at the rate and on the plant of `phase`.
fn job(plan: &Plan, phase: usize, candidates: &[Constant], seconds: u64) -> Job {
    let begin: Nanos = plan.phases.0[..phase].iter().fold(Nanos(0), |sum, p| sum + p.span);
    let downstream = match &plan.downstream {
        Downstream::Tcp { delay, steps } => {
            let step = steps.0.iter().rev().find(|s| s.from <= begin);
            Downstream::Tcp { delay: step.map_or(*delay, |s| s.fixed), steps: Steps::default() }
        }
        other => other.clone(),
    };
    let at = plan.phases.0[phase];
    turns_job(format!("search-{}", at.rate), downstream, at, plan.record_bytes, candidates, seconds)
}

/// Adds what turn `at` of a lane says about `candidate`.
fn note_result(tried: &mut Vec<Tried>, candidate: Constant, lane: &Outcome, at: usize, seconds: u64) {
    let Some(counted) = counted(lane, at, seconds) else { return };
    let index = tried.iter().position(|t| t.of == candidate).unwrap_or_else(|| {
        let (constant, sum) = (candidate.to_string(), Counted::default());
        tried.push(Tried { constant, busy: 0.0, p99_ms: f64::INFINITY, of: candidate, sum });
        tried.len() - 1
    });
    let entry = &mut tried[index];
    entry.sum.add(counted);
    (entry.busy, entry.p99_ms) = (entry.sum.busy(), entry.sum.p99_ms());
}

impl Tried {
    #[expect(clippy::cast_precision_loss, reason = "records of a search")]
    fn weighted(&self, share: f64) -> Weighted<'_> {
        let records: u64 = self.sum.counts.iter().map(|(_, n)| n).sum();
        Weighted { weight: share / records.max(1) as f64, counts: &self.sum.counts, sum_ns: 0 }
    }
}

/// Shares of a group in all records and in all time.
#[expect(clippy::cast_precision_loss, reason = "records and spans of a plan")]
fn shares(plan: &Plan, phases: &[usize]) -> (f64, f64) {
    let sum = |of: &dyn Fn(&Phase) -> u64| phases.iter().map(|i| of(&plan.phases.0[*i])).sum::<u64>() as f64;
    (sum(&Phase::records), sum(&|p| p.span.0))
}

/// The constant that is best over all phases at once, by both weightings alike; within the cap in every phase, or as
/// little above it as can be.
fn best_single(all: &[Constant], tried: &[Vec<Tried>], shares: &[(f64, f64)], cap: f64) -> Constant {
    let score = |constant: &Constant| -> Option<(bool, f64)> {
        let found: Vec<&Tried> =
            tried.iter().map(|t| t.iter().find(|t| t.of == *constant)).collect::<Option<Vec<_>>>()?;
        let busiest = found.iter().map(|t| t.busy).fold(0.0, f64::max);
        if busiest > cap + TOLERANCE {
            return Some((true, busiest));
        }
        let p99 = |share: &dyn Fn(&(f64, f64)) -> f64| {
            let slices = found.iter().zip(shares).map(|(t, s)| t.weighted(share(s))).collect();
            Pool::new(&[slices]).quantile(0.99, &[0]).unwrap_or(f64::INFINITY)
        };
        Some((false, p99(&|s| s.0).sqrt() * p99(&|s| s.1).sqrt()))
    };
    let scored = all.iter().filter_map(|c| Some((score(c)?, *c)));
    let best = scored.min_by(|(a, _), (b, _)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    best.map_or(all[0], |(_, constant)| constant)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(interval_us: u64, busy: f64, p99_ms: u64) -> Tried {
        let of = Constant { batch_bytes: 1 << 16, interval_us };
        let sum = Counted { counts: vec![(p99_ms * 1_000, 100)], ..Counted::default() };
        #[expect(clippy::cast_precision_loss, reason = "a test")]
        let p99 = p99_ms as f64;
        Tried { constant: of.to_string(), busy, p99_ms: p99, of, sum }
    }

    #[test]
    fn a_short_tail_above_the_cap_does_not_win() {
        let mut all = [tried(1_000, 0.9, 2), tried(4_000, 0.61, 5), tried(8_000, 0.3, 9), tried(2_000, 0.8, 3)];
        rank(&mut all, 0.6);
        assert_eq!(all.map(|t| t.of.interval_us), [4_000, 8_000, 2_000, 1_000]);
    }

    #[test]
    fn the_best_single_constant_keeps_the_cap_everywhere() {
        let constants: Vec<Constant> =
            [1_000, 4_000, 16_000].map(|interval_us| Constant { batch_bytes: 1 << 16, interval_us }).into();
        let quiet = vec![tried(1_000, 0.2, 2), tried(4_000, 0.1, 5), tried(16_000, 0.1, 17)];
        let busy = vec![tried(1_000, 0.9, 2), tried(4_000, 0.5, 5), tried(16_000, 0.2, 17)];
        let best = |cap| best_single(&constants, &[quiet.clone(), busy.clone()], &[(1.0, 1.0), (9.0, 1.0)], cap);
        assert_eq!(best(0.6).interval_us, 4_000);
        assert_eq!(best(1.0).interval_us, 1_000);
        assert_eq!(best(0.05).interval_us, 16_000, "none keeps it: the least busy one");
    }

    #[test]
    fn neighbours_lie_between_the_points_of_the_grid() {
        let at = |interval_us| Constant { batch_bytes: 1, interval_us };
        let near: Vec<u64> = neighbours(&[at(8_000), at(11_314)]).iter().map(|c| c.interval_us).collect();
        assert_eq!(near, [6_720, 7_360, 8_640, 9_600]);
    }
}
