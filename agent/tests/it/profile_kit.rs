//! Profiles made up for tests.

use std::sync::Arc;

use tidegate::aggregate::lost::Lost;
use tidegate::profile::Profile;
use tidegate::profile::model::{Builder, Frame, Origin, Owner};
use tidegate::units::{Nanos, Pid, ProfileKind};

/// Draws numbers that are the same at every run.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// 0 to 1 (xorshift64*).
    #[expect(clippy::cast_precision_loss, reason = "53 bits are taken")]
    pub(crate) fn next(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A profile of stacks `thread;outermost;…;innermost`, each with samples and weight.
pub(crate) fn profile(kind: ProfileKind, stacks: &[(&str, u64, u64)]) -> Profile {
    let mut builder = Builder::default();
    for (path, samples, weight) in stacks {
        let mut names = path.split(';');
        let owner = Owner::named(names.next().unwrap_or_default().into());
        let owner = builder.owner(Owner { pid: Some(Pid(7)), ..owner });
        let frames = names.map(|name| match name.strip_suffix("_[k]") {
            Some(name) => Frame { name: name.into(), origin: Origin::Kernel },
            None => Frame { name: name.into(), origin: Origin::of_text(name) },
        });
        let frames: Vec<u32> = frames.map(|frame| builder.frame(&frame.name, frame.origin)).collect();
        builder.add(owner, &frames, *samples, *weight);
    }
    builder.finish(kind, Nanos(0), Nanos::SECOND, Lost::default())
}

/// A CPU profile of `samples` draws from functions `f0`, `f1` … with these chances.
pub(crate) fn drawn(dice: &mut Dice, samples: u64, chances: &[f64]) -> Profile {
    let mut counts = vec![0; chances.len()];
    let whole: f64 = chances.iter().sum();
    for _ in 0..samples {
        let mut at = dice.next() * whole;
        let hit = chances.iter().position(|chance| {
            at -= chance;
            at < 0.0
        });
        counts[hit.unwrap_or(chances.len() - 1)] += 1;
    }
    let paths: Vec<String> = (0..counts.len()).map(|n| format!("app;main;part{};f{n}", n % 7)).collect();
    let stacks: Vec<(&str, u64, u64)> =
        paths.iter().zip(counts).filter(|(_, n)| *n > 0).map(|(path, n)| (path.as_str(), n, 0)).collect();
    profile(ProfileKind::Cpu, &stacks)
}

/// A function of a program.
pub(crate) fn user(name: &str) -> Frame {
    Frame { name: Arc::from(name), origin: Origin::User }
}
