//! What share of a profile each function has: a profile in; of each function its own and its total value out, each with
//! what is needed to tell a change from noise.
//!
//! A stack that was sampled `s` times for a value of `v` is taken for `s` independent draws of `v/s` each, so that the
//! variance of its sum is `v²/s` (Poisson). It holds for equal weights (CPU samples: `v = s`, variance `v`) and for
//! durations. Independence is an idealization: work that comes in bursts varies more, and a comparison of single windows
//! cannot know how much; where several windows are there, `hotspots` measures it.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::model::{Frame, Profile};

/// A sum with its variance.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sum {
    /// The value, in the unit of the profile's kind.
    pub value: f64,
    /// Variance of it; not known when how many samples there were is not.
    pub variance: f64,
}

/// Values of one function.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Function {
    /// Of stacks that end in it.
    pub own: Sum,
    /// Of stacks that contain it, once however often they do.
    pub all: Sum,
}

/// Shares of all functions of a profile.
#[derive(Clone, Debug, Default)]
pub struct Shares<'a> {
    /// By function.
    pub functions: HashMap<&'a Frame, Function, RandomState>,
    /// The whole.
    pub total: Sum,
    /// Value of a mean draw; none when the number of samples is not known.
    pub draw: Option<f64>,
}

/// A share of a profile, and its standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// 0 to 1.
    pub share: f64,
    /// Variance of it, where it is known.
    pub variance: Option<f64>,
}

impl<'a> Shares<'a> {
    /// Adds up a profile.
    #[expect(clippy::cast_precision_loss, reason = "shares are shown with four digits")]
    pub fn of(profile: &'a Profile) -> Self {
        let mut functions = vec![Function::default(); profile.frames.len()];
        // For each function the last stack that counted for it: recursion counts once.
        let mut counted = vec![usize::MAX; profile.frames.len()];
        let mut total = Sum::default();
        let (mut samples, mut known) = (0_u64, true);
        for (number, stack) in profile.stacks.iter().enumerate() {
            let value = stack.value(profile.kind) as f64;
            known &= stack.samples > 0 || value == 0.0;
            samples = samples.saturating_add(stack.samples);
            let sum = Sum { value, variance: value * value / stack.samples.max(1) as f64 };
            total.add(sum);
            for frame in &stack.frames {
                let at = *frame as usize;
                if counted.get(at).is_some_and(|last| *last != number) {
                    counted[at] = number;
                    functions[at].all.add(sum);
                }
            }
            if let Some(last) = stack.frames.last().and_then(|at| functions.get_mut(*at as usize)) {
                last.own.add(sum);
            }
        }
        let draw = (known && samples > 0).then(|| total.value / samples as f64);
        let functions = profile.frames.iter().zip(functions).filter(|(_, f)| f.all.value > 0.0).collect();
        Self { functions, total, draw }
    }

    /// A function's values; nothing for one that never appeared.
    pub fn get(&self, frame: &Frame) -> Function {
        self.functions.get(frame).copied().unwrap_or_default()
    }

    /// The share that a sum is of the whole. One draw is added on either side before the variance is taken: a function
    /// that was never seen may still run.
    pub fn share(&self, sum: Sum) -> Share {
        if self.total.value <= 0.0 {
            return Share { share: 0.0, variance: None };
        }
        let share = sum.value / self.total.value;
        let variance = self.draw.map(|draw| {
            let square = draw * draw;
            let inside = sum.variance + square;
            let outside = (self.total.variance - sum.variance).max(0.0) + square;
            let whole = self.total.value + 2.0 * draw;
            let p = (sum.value + draw) / whole;
            ((1.0 - p) * (1.0 - p) * inside + p * p * outside) / (whole * whole)
        });
        Share { share, variance }
    }
}

impl Sum {
    pub(super) fn add(&mut self, other: Self) {
        self.value += other.value;
        self.variance += other.variance;
    }
}
