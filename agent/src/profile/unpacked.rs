//! A packed profile as it lies in its bytes: plain bytes in; names as slices of them and stacks as what each does not share
//! with the one before it out, all of it checked. Makes no allocation for a stack or a name.

use std::sync::Arc;

use super::model::{Frame, Origin, Owner, Profile, Stack};
use super::packed::BadPacked;
use crate::aggregate::lost::Lost;
use crate::units::{Nanos, Pid, ProfileKind};

/// What the bytes say. Every index is in its table.
#[derive(Debug, Default)]
pub(super) struct Unpacked<'a> {
    pub(super) lost: Lost,
    pub(super) frames: Vec<(Origin, &'a str)>,
    pub(super) owners: Vec<Owner>,
    pub(super) steps: Vec<Step>,
    /// Frames that the stacks do not share with those before them, one stack's behind the other's.
    pub(super) fresh: Vec<u32>,
}

/// A stack, from the one before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) owner: u32,
    /// Frames that it shares with the one before.
    pub(super) same: u32,
    /// Frames that follow.
    pub(super) fresh: u32,
    pub(super) samples: u64,
    pub(super) weight: u64,
}

impl<'a> Unpacked<'a> {
    pub(super) fn read(plain: &'a [u8]) -> Result<Self, BadPacked> {
        let mut from = Reader { rest: plain };
        let mut to = Self { lost: from.lost()?, frames: from.frames()?, owners: from.owners()?, ..Self::default() };
        from.stacks(&mut to)?;
        Ok(to)
    }

    /// Every stack with its path.
    pub(super) fn walk(&self, mut visit: impl FnMut(&Step, &[u32])) {
        let (mut path, mut rest) = (Vec::new(), self.fresh.as_slice());
        for step in &self.steps {
            let (fresh, after) = rest.split_at_checked(step.fresh as usize).unwrap_or((rest, &[]));
            rest = after;
            path.truncate(step.same as usize);
            path.extend_from_slice(fresh);
            visit(step, &path);
        }
    }

    /// Of each frame, whether a stack has it whose owner `keep` says yes to.
    pub(super) fn used(&self, keep: impl Fn(u32) -> bool) -> Vec<bool> {
        let mut used = vec![false; self.frames.len()];
        let mut marked = 0;
        self.walk(|step, path| {
            marked = marked.min(step.same as usize);
            if keep(step.owner) {
                path[marked..].iter().for_each(|frame| used[*frame as usize] = true);
                marked = path.len();
            }
        });
        used
    }

    pub(super) fn profile(&self, kind: ProfileKind, start: Nanos, end: Nanos) -> Profile {
        let frame = |(origin, name): &(Origin, &str)| Frame { name: (*name).into(), origin: *origin };
        let frames = self.frames.iter().map(frame).collect();
        let mut stacks = Vec::with_capacity(self.steps.len());
        self.walk(|step, path| {
            stacks.push(Stack { owner: step.owner, frames: path.into(), samples: step.samples, weight: step.weight });
        });
        Profile { kind, start, end, frames, owners: self.owners.clone(), stacks, lost: self.lost }
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn lost(&mut self) -> Result<Lost, BadPacked> {
        let mut lost = Lost::default();
        for _ in 0..self.count("losses")? {
            let (reason, count) = (self.text()?, self.number()?);
            // A reason that this version does not know is of no use to it.
            lost.set_named(reason, count);
        }
        Ok(lost)
    }

    fn frames(&mut self) -> Result<Vec<(Origin, &'a str)>, BadPacked> {
        let count = self.count("frames")?;
        let mut frames = Vec::with_capacity(count);
        for _ in 0..count {
            let origin = match self.number()? {
                0 => Origin::User,
                1 => Origin::Kernel,
                2 => Origin::Note,
                _ => return Err(BadPacked::Damaged("frames")),
            };
            frames.push((origin, self.text()?));
        }
        Ok(frames)
    }

    fn owners(&mut self) -> Result<Vec<Owner>, BadPacked> {
        let count = self.count("owners")?;
        let mut owners = Vec::with_capacity(count);
        for _ in 0..count {
            owners.push(Owner {
                pid: self.one_less()?.map(Pid),
                uid: self.one_less()?,
                comm: self.text()?.into(),
                cgroup: self.maybe()?,
                container: self.maybe()?,
            });
        }
        Ok(owners)
    }

    /// Stacks of the frames and owners that are there already.
    fn stacks(&mut self, to: &mut Unpacked<'a>) -> Result<(), BadPacked> {
        const BAD: BadPacked = BadPacked::Damaged("stacks");
        let count = self.count("stacks")?;
        to.steps.reserve_exact(count);
        let mut length = 0;
        for _ in 0..count {
            let owner = self.index(to.owners.len())?;
            let same = u32::try_from(self.number()?).ok().filter(|same| *same <= length).ok_or(BAD)?;
            let fresh = u32::try_from(self.count("stacks")?).map_err(|_too_large| BAD)?;
            for _ in 0..fresh {
                to.fresh.push(self.index(to.frames.len())?);
            }
            length = same.checked_add(fresh).ok_or(BAD)?;
            let (samples, weight) = (self.number()?, self.number()?);
            to.steps.push(Step { owner, same, fresh, samples, weight });
        }
        Ok(())
    }

    fn number(&mut self) -> Result<u64, BadPacked> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or(BadPacked::Damaged("end"))?;
            self.rest = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(BadPacked::Damaged("number"))
    }

    /// How many follow: each takes a byte at least, so that a number that lies asks for no memory.
    fn count(&mut self, of: &'static str) -> Result<usize, BadPacked> {
        let count = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        if count > self.rest.len() { Err(BadPacked::Damaged(of)) } else { Ok(count) }
    }

    fn index(&mut self, below: usize) -> Result<u32, BadPacked> {
        let number = self.number()?;
        let fits = usize::try_from(number).is_ok_and(|index| index < below);
        u32::try_from(number).ok().filter(|_| fits).ok_or(BadPacked::Damaged("stacks"))
    }

    fn one_less(&mut self) -> Result<Option<u32>, BadPacked> {
        match self.number()? {
            0 => Ok(None),
            more => u32::try_from(more - 1).map(Some).map_err(|_too_large| BadPacked::Damaged("owners")),
        }
    }

    fn text(&mut self) -> Result<&'a str, BadPacked> {
        let length = self.count("texts")?;
        let (text, rest) = self.rest.split_at_checked(length).ok_or(BadPacked::Damaged("texts"))?;
        self.rest = rest;
        std::str::from_utf8(text).map_err(|_not_text| BadPacked::Damaged("texts"))
    }

    fn maybe(&mut self) -> Result<Option<Arc<str>>, BadPacked> {
        match self.number()? {
            0 => Ok(None),
            1 => self.text().map(|text| Some(text.into())),
            _ => Err(BadPacked::Damaged("owners")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nonsense_with_a_good_checksum_is_refused_or_read_and_never_panics(plain in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(Unpacked::read(&plain));
            // With three of each, so that more of it makes sense.
            let owner = || Owner::named("t".into());
            let mut stacks = Unpacked { frames: vec![(Origin::User, "f"); 3], owners: vec![owner(), owner(), owner()], ..Unpacked::default() };
            if (Reader { rest: &plain }).stacks(&mut stacks).is_ok() {
                let mut builder = super::super::model::Builder::default();
                let whole = stacks.profile(ProfileKind::Cpu, Nanos(0), Nanos(1));
                builder.merge_unpacked(&[stacks], |_| true);
                let merged = builder.finish(ProfileKind::Cpu, Nanos(0), Nanos(1), Lost::default());
                prop_assert_eq!(whole.samples(), merged.samples());
            }
        }
    }
}
