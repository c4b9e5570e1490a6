//! A profile as few bytes and back: what is kept in memory, what the history writes. Names stand once, a stack only says
//! how it differs from the one before. Never trusts the bytes: a checksum and every length are tested before use.
//!
//! `0 magic "tgpr" | 4 version u16 | 6 kind u16 | 8 checksum of all that follows u32 | 12 unpacked length u32 |
//! 16 start u64 | 24 end u64 | 32 the rest under LZ4`, little-endian. The rest is a row of numbers (LEB128) and texts.

use super::model::{Builder, Origin, Owner, Profile, Stack};
use super::unpacked::Unpacked;
use crate::aggregate::lost::Lost;
use crate::units::{Nanos, ProfileKind};

const MAGIC: [u8; 4] = *b"tgpr";
const VERSION: u16 = 1;
const HEAD_BYTES: usize = 32;
/// What follows the checksum.
const CHECKED: usize = 12;
/// A profile is never larger than this unpacked: bytes that say so lie.
const MOST_BYTES: usize = 256 << 20;

/// A profile packed. Cheap to share.
#[derive(Clone, Debug, PartialEq)]
pub struct Packed {
    kind: ProfileKind,
    start: Nanos,
    end: Nanos,
    bytes: Box<[u8]>,
}

/// Why bytes are no packed profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPacked {
    /// Too short, or not begun as one.
    #[error("not a packed profile")]
    Foreign,
    /// Another version wrote it.
    #[error("packed by another version ({0}, this one reads {VERSION})")]
    Version(u16),
    /// The bytes have changed.
    #[error("the checksum does not fit: the bytes have changed since they were written")]
    Checksum,
    /// They make no sense for all that.
    #[error("damaged at its {0}")]
    Damaged(&'static str),
}

impl Packed {
    /// Packs a profile.
    pub fn of(profile: &Profile) -> Self {
        let plain = Writer::profile(profile);
        let mut bytes = Vec::with_capacity(HEAD_BYTES + plain.len() / 3);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&code(profile.kind).to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&u32::try_from(plain.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&profile.start.0.to_le_bytes());
        bytes.extend_from_slice(&profile.end.0.to_le_bytes());
        bytes.extend_from_slice(&lz4_flex::block::compress(&plain));
        let sum = crc32fast::hash(&bytes[CHECKED..]);
        bytes[8..CHECKED].copy_from_slice(&sum.to_le_bytes());
        Self { kind: profile.kind, start: profile.start, end: profile.end, bytes: bytes.into_boxed_slice() }
    }

    /// From bytes that were kept; their checksum is tested.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BadPacked> {
        let head = bytes.get(..HEAD_BYTES).filter(|head| head.starts_with(&MAGIC)).ok_or(BadPacked::Foreign)?;
        let version = u16::from_le_bytes([head[4], head[5]]);
        if version != VERSION {
            return Err(BadPacked::Version(version));
        }
        if crc32fast::hash(&bytes[CHECKED..]) != word(head, 8) {
            return Err(BadPacked::Checksum);
        }
        let number = u16::from_le_bytes([head[6], head[7]]);
        let kind = ProfileKind::ALL.into_iter().find(|kind| code(*kind) == number).ok_or(BadPacked::Damaged("kind"))?;
        let instant = |at: usize| Nanos(u64::from(word(head, at)) | u64::from(word(head, at + 4)) << 32);
        Ok(Self { kind, start: instant(16), end: instant(24), bytes: bytes.into() })
    }

    /// What it shows.
    pub fn kind(&self) -> ProfileKind {
        self.kind
    }

    /// First instant.
    pub fn start(&self) -> Nanos {
        self.start
    }

    /// Last instant.
    pub fn end(&self) -> Nanos {
        self.end
    }

    /// The bytes to keep.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The profile.
    pub fn unpack(&self) -> Result<Profile, BadPacked> {
        let Plain { bytes, kind, start, end } = self.plain()?;
        Ok(Unpacked::read(&bytes)?.profile(kind, start, end))
    }

    /// Its bytes without the compression, to be merged with others.
    pub fn plain(&self) -> Result<Plain, BadPacked> {
        let length = word(&self.bytes, 12) as usize;
        if length > MOST_BYTES {
            return Err(BadPacked::Damaged("length"));
        }
        let bytes = lz4_flex::block::decompress(&self.bytes[HEAD_BYTES..], length);
        let bytes = bytes.map_err(|_not_lz4| BadPacked::Damaged("compression"))?;
        Ok(Plain { bytes, kind: self.kind, start: self.start, end: self.end })
    }
}

/// A packed profile without the compression. Whether it makes sense shows when it is merged.
#[derive(Clone, Debug)]
pub struct Plain {
    bytes: Vec<u8>,
    kind: ProfileKind,
    start: Nanos,
    end: Nanos,
}

/// What of a window was merged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Merged {
    /// First instant.
    pub start: Nanos,
    /// Last instant.
    pub end: Nanos,
    /// What was lost in it.
    pub lost: Lost,
}

impl Plain {
    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Adds all stacks of windows that `keep` says yes to. Of a window that is damaged nothing is added. Many at once cost
    /// less than one after the other.
    pub fn merge(windows: &[Self], to: &mut Builder, keep: impl Fn(&Owner) -> bool) -> Vec<Result<Merged, BadPacked>> {
        let mut good = Vec::with_capacity(windows.len());
        let mut merged = Vec::with_capacity(windows.len());
        for Self { bytes, kind: _, start, end } in windows {
            merged.push(Unpacked::read(bytes).map(|window| {
                let lost = window.lost;
                good.push(window);
                Merged { start: *start, end: *end, lost }
            }));
        }
        to.merge_unpacked(&good, keep);
        merged
    }
}

/// Numbers of kinds are never reused: a history outlives versions.
fn code(kind: ProfileKind) -> u16 {
    match kind {
        ProfileKind::Cpu => 1,
        ProfileKind::Offcpu => 2,
        ProfileKind::Runq => 3,
        ProfileKind::Wall => 4,
        ProfileKind::Wakeup => 5,
        ProfileKind::Sock => 6,
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let whole = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
    whole.map_or(0, u32::from_le_bytes)
}

struct Writer {
    out: Vec<u8>,
}

impl Writer {
    fn profile(profile: &Profile) -> Vec<u8> {
        let mut to = Self { out: Vec::new() };
        let lost: Vec<_> = profile.lost.by_reason().into_iter().filter(|(_, count)| *count > 0).collect();
        to.number(lost.len() as u64);
        for (reason, count) in lost {
            to.text(reason);
            to.number(count);
        }
        to.number(profile.frames.len() as u64);
        for frame in &profile.frames {
            to.number(match frame.origin {
                Origin::User => 0,
                Origin::Kernel => 1,
                Origin::Note => 2,
            });
            to.text(&frame.name);
        }
        to.number(profile.owners.len() as u64);
        for Owner { pid, uid, comm, cgroup, container } in &profile.owners {
            // One more than the number, so that 0 is none.
            to.number(pid.map_or(0, |pid| u64::from(pid.0) + 1));
            to.number(uid.map_or(0, |uid| u64::from(uid) + 1));
            to.text(comm);
            to.maybe(cgroup.as_deref());
            to.maybe(container.as_deref());
        }
        to.number(profile.stacks.len() as u64);
        let mut before: &[u32] = &[];
        for Stack { owner, frames, samples, weight } in &profile.stacks {
            let same = before.iter().zip(frames).take_while(|(a, b)| a == b).count();
            to.number(u64::from(*owner));
            to.number(same as u64);
            to.number((frames.len() - same) as u64);
            frames[same..].iter().for_each(|frame| to.number(u64::from(*frame)));
            to.number(*samples);
            to.number(*weight);
            before = frames;
        }
        to.out
    }

    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.out.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.out.push(number.to_le_bytes()[0]);
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.out.extend_from_slice(text.as_bytes());
    }

    fn maybe(&mut self, text: Option<&str>) {
        self.number(u64::from(text.is_some()));
        if let Some(text) = text {
            self.text(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::units::Pid;
    use agent_common::LossReason;
    use proptest::prelude::*;

    fn profile(stacks: &[(u8, Vec<u8>, u64)]) -> Profile {
        let mut builder = Builder::default();
        for (owner, frames, samples) in stacks {
            let text = |n: u8| Arc::from(format!("f{n}"));
            let container = (owner % 2 == 0).then(|| text(*owner));
            let pid = (owner % 3 > 0).then_some(Pid(u32::from(*owner)));
            let uid = (owner % 5 > 0).then_some(u32::MAX - u32::from(*owner));
            let owner = builder.owner(Owner { pid, uid, comm: text(*owner), cgroup: container.clone(), container });
            let origin = |n: u8| [Origin::User, Origin::Kernel, Origin::Note][usize::from(n % 3)];
            let frames: Vec<u32> = frames.iter().map(|n| builder.frame(&text(*n), origin(*n))).collect();
            builder.add(owner, &frames, *samples, samples.wrapping_mul(10_309_278));
        }
        let mut lost = Lost::of(LossReason::RingFull, 3);
        lost[LossReason::UnwindJit] = u64::MAX;
        builder.finish(ProfileKind::Offcpu, Nanos(7), Nanos(u64::MAX), lost)
    }

    proptest! {
        #[test]
        fn what_was_packed_comes_back(stacks in proptest::collection::vec(any::<(u8, Vec<u8>, u64)>(), 0..40)) {
            let profile = profile(&stacks);
            let packed = Packed::of(&profile);
            let back = Packed::from_bytes(packed.bytes()).unwrap();
            prop_assert_eq!((back.kind(), back.start(), back.end()), (profile.kind, profile.start, profile.end));
            prop_assert_eq!(back.unpack().unwrap(), profile);
        }

        #[test]
        fn bytes_that_changed_are_told_by_their_checksum(at in any::<proptest::sample::Index>(), flip in 1_u8..) {
            let packed = Packed::of(&profile(&[(1, vec![1, 2, 3], 4), (2, vec![1, 2, 9], 5)]));
            let mut bytes = packed.bytes().to_vec();
            *at.get_mut(&mut bytes) ^= flip;
            // The kind lies before the checksum, and is one of few.
            let other = Packed::from_bytes(&bytes).is_ok_and(|p| p.kind() == packed.kind());
            prop_assert!(!other);
            let cut = at.index(packed.bytes().len());
            prop_assert!(Packed::from_bytes(&packed.bytes()[..cut]).is_err());
        }
    }

    #[test]
    fn stacks_that_share_their_callers_take_few_bytes() {
        let deep: Vec<u8> = (0..60).collect();
        let stacks: Vec<(u8, Vec<u8>, u64)> = (0..200).map(|n| (1, [&deep[..], &[n]].concat(), 1)).collect();
        let packed = Packed::of(&profile(&stacks));
        assert!(packed.bytes().len() < 200 * 20, "{} bytes", packed.bytes().len());
    }
}
