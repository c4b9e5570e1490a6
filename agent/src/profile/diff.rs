//! Differences: two profiles of one kind in; what grew and what shrank out, as shares of each profile, so that a busier
//! hour is not taken for a slower function. A difference that chance explains is never called growth.
//!
//! For each function `d = p₂ − p₁`, its share after minus its share before, and `z = d / √(v₁ + v₂)` with the variances of
//! `shares`. Of all functions those are believed that the procedure of `noise` leaves, at a false discovery rate of 5 %.

mod graph;
mod text;

use std::collections::BTreeSet;

use super::model::{Builder, Frame, Owner, Profile};
use super::noise::{believed, chance};
use super::shares::{Share, Shares, Sum};
use crate::aggregate::lost::Lost;

pub use graph::{Base, diff_svg};
pub use text::diff_text;

/// Fewest samples of a function on both sides together for it to be compared.
const FEWEST_SAMPLES: f64 = 5.0;

/// What two profiles differ in.
#[derive(Clone, Debug)]
pub struct Diff {
    /// Before and after.
    pub sides: [Side; 2],
    /// Functions, those that grew most first; believed ones and others.
    pub functions: Vec<Change>,
    /// Stacks of both: before in `samples`, after in `weight`, in the unit of the kind.
    pub(super) stacks: Profile,
}

/// One of the profiles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Side {
    /// Sum of its values.
    pub total: u64,
    /// Samples behind it; 0 when that is not known.
    pub samples: u64,
    /// How long it was, seconds; 0 when that is not known.
    pub seconds: f64,
    /// What was lost meanwhile.
    pub lost: Lost,
}

/// What became of a function.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The function.
    pub frame: Frame,
    /// Stacks that end in it.
    pub own: Step,
    /// Stacks that contain it.
    pub all: Step,
}

/// A share before and after.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Share of the whole before, 0 to 1.
    pub before: f64,
    /// Share of the whole after.
    pub after: f64,
    /// Standard error of the difference, where it is known.
    pub error: Option<f64>,
    /// Whether the difference is more than chance explains; `None` where that cannot be told.
    pub believed: Option<bool>,
}

impl Step {
    /// Growth of the share.
    pub fn growth(&self) -> f64 {
        self.after - self.before
    }

    fn new(before: Share, after: Share) -> Self {
        let error = before.variance.zip(after.variance).map(|(a, b)| (a + b).sqrt());
        Self { before: before.share, after: after.share, error, believed: None }
    }

    /// Chance of such a difference when there is none.
    fn chance(&self) -> Option<f64> {
        self.error.filter(|error| *error > 0.0).map(|error| chance(self.growth() / error))
    }
}

/// Compares two profiles of one kind. Threads are compared by name: two processes of one program are alike.
pub fn diff(before: &Profile, after: &Profile) -> Diff {
    let shares = [Shares::of(before), Shares::of(after)];
    let names: BTreeSet<&Frame> = shares.iter().flat_map(|side| side.functions.keys().copied()).collect();
    let mut functions = Vec::with_capacity(names.len());
    for frame in names {
        let [a, b] = [shares[0].get(frame), shares[1].get(frame)];
        let step = |a: Sum, b: Sum| Step::new(shares[0].share(a), shares[1].share(b));
        functions.push((
            Change { frame: frame.clone(), own: step(a.own, b.own), all: step(a.all, b.all) },
            [enough(&shares, a.own, b.own), enough(&shares, a.all, b.all)],
        ));
    }
    judge(&mut functions, |change| &mut change.own, 0);
    judge(&mut functions, |change| &mut change.all, 1);
    let mut functions: Vec<Change> = functions.into_iter().map(|(change, _)| change).collect();
    functions.sort_by(|a, b| {
        (b.own.growth().total_cmp(&a.own.growth()))
            .then(b.all.growth().total_cmp(&a.all.growth()))
            .then_with(|| a.frame.cmp(&b.frame))
    });
    Diff { sides: [side(before), side(after)], functions, stacks: both(before, after) }
}

/// Whether a function was seen often enough for a difference to mean something. It looks at both sides together, and so
/// never favours one.
fn enough(shares: &[Shares<'_>; 2], a: Sum, b: Sum) -> bool {
    let seen = |side: &Shares<'_>, sum: Sum| side.draw.map_or(f64::INFINITY, |draw| sum.value / draw);
    a.value + b.value > 0.0 && seen(&shares[0], a) + seen(&shares[1], b) >= FEWEST_SAMPLES
}

fn judge(functions: &mut [(Change, [bool; 2])], step: impl Fn(&mut Change) -> &mut Step, which: usize) {
    let compared: Vec<(usize, f64)> = functions
        .iter_mut()
        .enumerate()
        .filter(|(_, (_, enough))| enough[which])
        .filter_map(|(at, (change, _))| Some((at, step(change).chance()?)))
        .collect();
    let chances: Vec<f64> = compared.iter().map(|(_, chance)| *chance).collect();
    for (change, _) in functions.iter_mut() {
        let step = step(change);
        step.believed = step.error.map(|_| false);
    }
    for ((at, _), yes) in compared.into_iter().zip(believed(&chances)) {
        step(&mut functions[at].0).believed = Some(yes);
    }
}

fn side(profile: &Profile) -> Side {
    Side {
        total: profile.total(),
        samples: profile.samples(),
        seconds: profile.end.since(profile.start).as_secs_f64(),
        lost: profile.lost,
    }
}

fn both(before: &Profile, after: &Profile) -> Profile {
    let mut builder = Builder::default();
    for (side, profile) in [before, after].into_iter().enumerate() {
        let owners: Vec<u32> =
            profile.owners.iter().map(|owner| builder.owner(Owner::named(owner.comm.clone()))).collect();
        let frames: Vec<u32> = profile.frames.iter().map(|frame| builder.frame(&frame.name, frame.origin)).collect();
        let mut path = Vec::new();
        for stack in &profile.stacks {
            let Some(owner) = owners.get(stack.owner as usize) else { continue };
            path.clear();
            path.extend(stack.frames.iter().filter_map(|frame| frames.get(*frame as usize)));
            let value = stack.value(profile.kind);
            let [a, b] = if side == 0 { [value, 0] } else { [0, value] };
            builder.add(*owner, &path, a, b);
        }
    }
    builder.finish(after.kind, before.start, after.end, after.lost)
}
