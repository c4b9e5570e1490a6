//! Stacks that the kernel side could not finish, because something was not known yet: goes on from where it stopped, on the
//! copy of the stack that came with the sample. It never reads the memory of a process, which has gone on since.

use std::sync::Arc;

use agent_common::{MAX_FRAMES, StackSample, UnwindEnd};

use super::files::{Files, State};
use super::installed::Installed;
use super::spaces::{Code, Mapping};
use super::tracker::Tracker;
use super::walk::{Ip, Mapped, Registers, Space, walk};
use crate::units::Nanos;

/// What became of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resumed {
    /// These frames follow those that the sample has; the stack ended so.
    Done(Vec<u64>, UnwindEnd),
    /// A table that it needs is being made.
    Wait,
}

/// The words of a stack.
pub(super) trait Words {
    /// The one at `address`.
    fn word(&mut self, address: u64) -> Option<u64>;
}

/// A copy of a stack.
pub(super) struct Copy<'a> {
    pub(super) begin: u64,
    pub(super) bytes: &'a [u8],
}

impl Words for Copy<'_> {
    fn word(&mut self, address: u64) -> Option<u64> {
        let at = usize::try_from(address.checked_sub(self.begin)?).ok()?;
        Some(u64::from_ne_bytes(*self.bytes.get(at..)?.first_chunk()?))
    }
}

/// An address space of a moment ago, and one stack in it.
pub(super) struct Then<'a, W> {
    mappings: Arc<Vec<Mapping>>,
    files: &'a Files,
    installed: &'a Installed,
    stack: W,
    /// Whether a table was asked for that is being made.
    pub(super) waits: bool,
    /// Whether an address was asked for that is nowhere.
    nowhere: bool,
}

impl<W: Words> Space for Then<'_, W> {
    fn find(&mut self, address: u64) -> Mapped<'_> {
        let after = self.mappings.partition_point(|m| m.begin <= address);
        let mapping = after.checked_sub(1).and_then(|at| self.mappings.get(at)).filter(|m| address < m.end);
        let Some(mapping) = mapping else {
            self.nowhere = true;
            return Mapped::Nothing;
        };
        let Code::File(file) = mapping.code else { return Mapped::Jit };
        match self.files.state(file) {
            State::Jit => Mapped::Jit,
            State::None => Mapped::NoTable,
            State::Pending => {
                self.waits = true;
                Mapped::NoTable
            }
            State::Table(number) => match self.files.bias(file, mapping.begin, mapping.offset) {
                Some(bias) => Mapped::File { rows: self.installed.rows(*number), bias },
                None => Mapped::NoTable,
            },
        }
    }

    fn word(&mut self, address: u64) -> Option<u64> {
        self.stack.word(address)
    }
}

impl Tracker {
    /// What `pid` had mapped at `time`, with a stack; `None` when the process is not known.
    pub(super) fn then<W: Words>(&self, pid: u32, time: Nanos, stack: W) -> Option<Then<'_, W>> {
        let mappings = Arc::clone(self.spaces.at(pid, time)?);
        let (files, installed) = (&self.files, &self.installed);
        (!mappings.is_empty()).then_some(Then { mappings, files, installed, stack, waits: false, nowhere: false })
    }

    /// Goes on with a stack of which `copy` is what came with the sample.
    pub fn resume(&mut self, time: Nanos, now: Nanos, sample: &StackSample, copy: &[u8]) -> Resumed {
        let first = self.go_on(time, sample, copy);
        let Some((resumed, nowhere)) = first else {
            // Nobody told of this process: it may still be there to be asked.
            return match self.scan(sample.pid, now).then(|| self.go_on(time, sample, copy)).flatten() {
                Some((resumed, _)) => resumed,
                None => Resumed::Done(vec![sample.resume_ip], UnwindEnd::NoMapping),
            };
        };
        if !nowhere {
            // It is known here and was not there: tell it once more.
            self.spaces.touch_process(sample.pid);
        }
        resumed
    }

    /// Frames, and whether an address was found nowhere; `None` when the process is not known.
    fn go_on(&self, time: Nanos, sample: &StackSample, copy: &[u8]) -> Option<(Resumed, bool)> {
        let at = if sample.resume_exact == 1 { Ip::Next } else { Ip::Return };
        let (words, copy) = copy.split_at_checked(3 * size_of::<u64>())?;
        let (words, _none) = words.as_chunks();
        let &[bx, di, begin] = words else { return None };
        let [bx, di, begin] = [bx, di, begin].map(u64::from_ne_bytes);
        let known = |word: u64| (word != 0).then_some(word);
        let (bx, di) = (known(bx), known(di));
        let registers = Registers { ip: sample.resume_ip, sp: sample.resume_sp, bp: sample.resume_bp, bx, di, at };
        let mut then = self.then(sample.pid, time, Copy { begin, bytes: copy })?;
        let mut frames = Vec::new();
        let room = MAX_FRAMES.saturating_sub(usize::try_from(sample.user_len).unwrap_or(0) / 8);
        let end = walk(&mut then, registers, room, &mut frames);
        let resumed = if then.waits { Resumed::Wait } else { Resumed::Done(frames, end) };
        Some((resumed, then.nowhere))
    }
}
