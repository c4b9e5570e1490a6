//! What the proof promised against what it measured: digests in, one line a promise out, with the reason where a figure is
//! missed. Pure; a promise that was not measured is neither kept nor missed.

use std::fmt::{self, Write};

use serde::Serialize;

use super::plans::{BUSY_CAP, Stage};
use super::{Done, Proof};
use crate::compare::digest::{ALL, Figure, TAIL_FEWEST, Weighting};
use crate::compare::plan::Part;
use crate::stats::Ratio;

/// Whether a promise is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Holds {
    Yes,
    No,
    /// Too little was measured to say.
    Unknown,
}

impl fmt::Display for Holds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Padded where a width is asked for.
        f.pad(match self {
            Self::Yes => "holds",
            Self::No => "MISSED",
            Self::Unknown => "not shown",
        })
    }
}

/// One promise.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Verdict {
    /// Under which sink and load.
    pub(crate) of: String,
    pub(crate) asked: String,
    pub(crate) measured: String,
    pub(crate) holds: Holds,
    /// Why it was missed, or what is missing.
    pub(crate) remark: String,
}

const OURS: &str = "model";
const WEIGHTINGS: [(Weighting, &str); 2] = [(Weighting::Event, "events"), (Weighting::Time, "seconds")];

/// Every promise that the proof is about.
pub(crate) fn all(proof: &Proof) -> Vec<Verdict> {
    let mut all = Vec::new();
    for done in &proof.studies {
        if done.stage == Stage::FixedBuffer {
            all.extend(against_fixed(done));
            continue;
        }
        all.extend(against_oracle(done));
        all.extend(against_regime(done));
        all.extend(against_greedy(done));
        all.extend(transitions(done));
    }
    all.extend(against_default(proof));
    all
}

fn show(ratio: Option<Ratio>) -> String {
    let Some(ratio) = ratio else { return "not measured".to_owned() };
    match ratio.interval {
        Some(i) => format!("{:.3} ({:.3} to {:.3})", ratio.median, i.low, i.high),
        None => format!("{:.3} (too few blocks for an interval: {})", ratio.median, ratio.blocks),
    }
}

fn judge(kept: Option<bool>) -> Holds {
    match kept {
        Some(true) => Holds::Yes,
        Some(false) => Holds::No,
        None => Holds::Unknown,
    }
}

fn verdict(done: &Done, asked: String, measured: String, kept: Option<bool>, remark: String) -> Verdict {
    Verdict { of: done.digest.title.clone(), asked, measured, holds: judge(kept), remark }
}

/// p99 −85 %, p99.9 −92 %, mean not higher, by both weightings.
fn against_fixed(done: &Done) -> Vec<Verdict> {
    let mut all = Vec::new();
    for (weighting, by) in WEIGHTINGS {
        for (figure, name, limit) in
            [(Figure::P99, "p99", 0.15), (Figure::P999, "p99.9", 0.08), (Figure::Mean, "mean", 1.0)]
        {
            let ratio = done.digest.ratio((OURS, "fixed"), (ALL, Part::Whole, weighting), figure);
            let asked = format!("{name} over 256 KiB/250 ms, by {by}: at most {limit}");
            all.push(verdict(done, asked, show(ratio), ratio.map(|r| r.median <= limit), String::new()));
        }
    }
    all
}

/// p99 at most 1.15 of each phase's oracle once settled, by the lower bound of the interval.
fn against_oracle(done: &Done) -> Vec<Verdict> {
    if !done.digest.has("oracle") {
        return Vec::new();
    }
    let judge_phase = |phase: &String| {
        let place = (phase.as_str(), Part::Settled, Weighting::Event);
        let ratio = done.digest.ratio((OURS, "oracle"), place, Figure::P99);
        let best = done.digest.ratio(("best", "oracle"), place, Figure::P99);
        let row = |policy| done.digest.row(policy, phase, Part::Settled, Weighting::Event);
        let tail = row(OURS).map_or(0, |r| r.tail_records);
        let busy = |policy| row(policy).map_or_else(|| "?".to_owned(), |r| format!("{:.2}", r.busy));
        let mut remark = format!(
            "busy {} against {}; the best single constant: {}",
            busy(OURS),
            busy("oracle"),
            best.map_or_else(|| "not measured".to_owned(), |r| format!("{:.3}", r.median))
        );
        if tail < TAIL_FEWEST {
            write!(remark, "; only {tail} records beyond the p99, {TAIL_FEWEST} are wanted").ok();
        }
        let kept = ratio.map(|r| r.low() <= 1.15).filter(|kept| !kept || tail >= TAIL_FEWEST);
        let asked = format!("p99 over the oracle under a cap of {BUSY_CAP}, {phase}, settled: at most 1.15");
        verdict(done, asked, show(ratio), kept, remark)
    };
    done.digest.groups.iter().map(judge_phase).collect()
}

fn against_regime(done: &Done) -> Vec<Verdict> {
    if !done.digest.has("regime") {
        return Vec::new();
    }
    // The regimes know no cap: where they go beyond ours, their p99 is bought with it.
    let beyond = |phase: &String| {
        let row = done.digest.row("regime", phase, Part::Settled, Weighting::Event)?;
        (row.busy > BUSY_CAP).then(|| format!("the regimes go beyond the cap in {phase}: busy {:.2}", row.busy))
    };
    let spent: Vec<String> = done.digest.groups.iter().filter_map(beyond).collect();
    let one = |(weighting, by): (Weighting, &str)| {
        let ratio = done.digest.ratio((OURS, "regime"), (ALL, Part::Whole, weighting), Figure::P99);
        let apart = ratio.filter(|r| r.low() <= 1.0 && r.high() >= 1.0);
        let apart = apart.map(|_| "the interval holds 1: not told apart".to_owned());
        let remark = apart.into_iter().chain(spent.iter().cloned()).collect::<Vec<_>>().join("; ");
        let asked = format!("p99 over the three regimes, by {by}: below 1");
        verdict(done, asked, show(ratio), ratio.map(|r| r.median < 1.0), remark)
    };
    WEIGHTINGS.map(one).into()
}

/// At most 0.7 of greedy's flushes at a p99 of at most (1/U + 1)/2 of its own plus 5 %, and never dominated.
fn against_greedy(done: &Done) -> Vec<Verdict> {
    let mut all = Vec::new();
    if !done.digest.has("greedy") {
        return all;
    }
    let whole = |weighting| (ALL, Part::Whole, weighting);
    let ratio = |place, figure| done.digest.ratio((OURS, "greedy"), place, figure);
    // Flushes of 1,000 records weighted by records are the flushes of the run; weighted by seconds they are mostly those of
    // the slowest phase.
    let flushes = ratio(whole(Weighting::Event), Figure::Flushes);
    let by_seconds = ratio(whole(Weighting::Time), Figure::Flushes);
    for (weighting, by) in WEIGHTINGS {
        let p99 = ratio(whole(weighting), Figure::P99);
        let busy = done.digest.row(OURS, ALL, Part::Whole, weighting).map(|r| r.busy);
        let limit = busy.map(|u| f64::midpoint(1.0 / u, 1.0) * 1.05);
        let kept = flushes.zip(p99).zip(limit).map(|((f, p), limit)| f.median <= 0.7 && p.median <= limit);
        let asked = format!(
            "flushes over greedy's: at most 0.7, at a p99, by {by}, of at most {} of its own",
            limit.map_or_else(|| "(1/U + 1)/2 + 5 %".to_owned(), |l| format!("{l:.2}"))
        );
        let measured = format!("flushes {}, p99 {}", show(flushes), show(p99));
        let remark = busy.map(|u| format!("U = {u:.2} over the whole run"));
        // Of what a policy is to save there must be something.
        let greedys = done.digest.row("greedy", ALL, Part::Whole, weighting).filter(|row| row.busy < BUSY_CAP);
        let idle = greedys
            .filter(|_| kept == Some(false))
            .map(|row| format!("greedy itself is busy {:.2}, under the cap: nothing asks for fewer flushes", row.busy));
        let slow = by_seconds.map(|r| format!("flushes of 1,000 records by seconds: {}", show(Some(r))));
        let remark = remark.into_iter().chain(idle).chain(slow).collect::<Vec<_>>().join("; ");
        all.push(verdict(done, asked, measured, kept, remark));
    }
    let mut dominated = Vec::new();
    let mut seen = 0;
    for phase in &done.digest.groups {
        let place = (phase.as_str(), Part::Settled, Weighting::Event);
        if let Some((p99, cpu)) = ratio(place, Figure::P99).zip(ratio(place, Figure::Cpu)) {
            seen += 1;
            if p99.low() > 1.0 && cpu.low() > 1.0 {
                dominated.push(format!("{phase} (p99 × {:.2}, CPU × {:.2})", p99.median, cpu.median));
            }
        }
    }
    let measured = if dominated.is_empty() { format!("in none of {seen} phases") } else { dominated.join(", ") };
    let asked = "greedy has both the shorter p99 and the lower CPU: in no settled phase".to_owned();
    all.push(verdict(done, asked, measured, (seen > 0).then_some(dominated.is_empty()), String::new()));
    all
}

/// p99 of the first second at most twice the settled one, no panic flush after the grace.
fn transitions(done: &Done) -> Vec<Verdict> {
    let (mut worst, mut panics, mut seen) = ((0.0_f64, String::new()), 0, 0);
    for phase in &done.digest.groups {
        let row = |part| done.digest.row(OURS, phase, part, Weighting::Event);
        let (Some(first), Some(settled)) = (row(Part::FirstSecond), row(Part::Settled)) else { continue };
        seen += 1;
        panics += first.panics;
        let regret = first.p99_ms / settled.p99_ms;
        if regret > worst.0 {
            let from_to = format!("{:.1} ms after {:.1} ms settled, {phase}", first.p99_ms, settled.p99_ms);
            worst = (regret, from_to);
        }
    }
    if seen == 0 {
        return Vec::new();
    }
    let settling = done.digest.settling.iter().find(|s| s.policy == OURS);
    let settled = verdict(
        done,
        "settings within a quarter of their last ones a second after a change: always".to_owned(),
        settling.map_or_else(String::new, |s| format!("{} of {} changes", s.within_a_second, s.changes)),
        settling.filter(|s| s.changes > 0).map(|s| s.within_a_second == s.changes),
        settling.and_then(|s| s.worst.clone()).unwrap_or_default(),
    );
    let one = |asked: &str, measured: String, kept: bool, remark: String| {
        verdict(done, asked.to_owned(), measured, Some(kept), remark)
    };
    vec![
        settled,
        one(
            "p99 of the first second after a change over the settled one: at most 2",
            format!("{:.2}", worst.0),
            worst.0 <= 2.0,
            worst.1,
        ),
        one("panic flushes later than 200 ms after a change: none", panics.to_string(), panics == 0, String::new()),
    ]
}

/// The highest rate over the shipped default's and over the oracle's.
#[expect(clippy::cast_precision_loss, reason = "rates")]
fn against_default(proof: &Proof) -> Vec<Verdict> {
    let rate = |policy: &str| proof.highest.iter().find(|h| h.policy == policy);
    let Some(ours) = rate(OURS) else { return Vec::new() };
    let one = |other: &str, asked: &str, limit: f64| {
        let other = rate(other).filter(|h| h.rate > 0);
        let ratio = other.map(|h| ours.rate as f64 / h.rate as f64);
        let measured = match other {
            Some(h) => format!("{} over {}: {:.2}", ours.rate, h.rate, ours.rate as f64 / h.rate as f64),
            None => format!("{} over nothing: the other met it at no rate, or did not run", ours.rate),
        };
        Verdict {
            of: "highest rate with a p99 of 50 ms, TCP, 10 ms a flush".to_owned(),
            asked: asked.to_owned(),
            measured,
            holds: judge(ratio.map(|r| r >= limit)),
            remark: if ours.at_end { "the range ended before the policy did".to_owned() } else { String::new() },
        }
    };
    vec![
        one("default", "over the shipped default's: at least 1.3", 1.3),
        one("oracle", "over the oracle's: at least 0.95", 0.95),
    ]
}

/// Where tuning does not help, a sentence each.
pub(crate) fn no_help(proof: &Proof) -> Vec<String> {
    let mut all = Vec::new();
    for done in &proof.studies {
        let title = &done.digest.title;
        for phase in &done.digest.groups {
            let place = (phase.as_str(), Part::Settled, Weighting::Event);
            let ratio = |against, figure| done.digest.ratio((OURS, against), place, figure);
            if let Some(r) = ratio("best", Figure::P99).filter(|r| r.high() >= 1.0) {
                let does = if r.low() > 1.0 { "does better" } else { "is not told apart from it" };
                all.push(format!(
                    "{title}, {phase}: the best single constant {does} (the model's p99 is × {:.2}, {:.2} to {:.2}); what \
                     the model adds is that nobody has to find it.",
                    r.median,
                    r.low(),
                    r.high()
                ));
            }
            if let Some((p99, cpu)) = ratio("greedy", Figure::P99).zip(ratio("greedy", Figure::Cpu))
                && p99.low() > 1.0
                && cpu.high() >= 0.97
            {
                all.push(format!(
                    "{title}, {phase}: flushing whatever is queued has the shorter p99 (the model's is × {:.2}) and \
                     costs no more CPU (× {:.2}): tuning does not help there.",
                    p99.median, cpu.median
                ));
            }
        }
    }
    all
}

/// The verdicts for a terminal.
pub(crate) fn render(proof: &Proof) -> String {
    let mut text = String::from("\nasked / measured / holds\n");
    for Verdict { of, asked, measured, holds, remark } in &proof.verdicts {
        let remark = if remark.is_empty() { String::new() } else { format!("; {remark}") };
        writeln!(text, "{holds:>9}  {of}: {asked}\n           {measured}{remark}").ok();
    }
    for sentence in &proof.no_help {
        writeln!(text, "  no gain  {sentence}").ok();
    }
    if proof.quick {
        text.push_str("a quick run tries the plumbing: its figures are not to be quoted\n");
    }
    text
}

#[cfg(test)]
mod tests;
