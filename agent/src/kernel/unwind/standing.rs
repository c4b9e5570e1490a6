//! The user stack of a thread that stands still: its registers in, return addresses and the reason for the end out. It goes
//! by the same tables as all other stacks; it never writes and never stops the thread.

use agent_common::{MAX_FRAMES, UnwindEnd};

use super::reader::{Place, Reader};
use super::resume::{Copy, Resumed};
use super::tracker::Tracker;
use super::walk::{Registers, walk};
use crate::units::Nanos;

impl Tracker {
    /// The frames of thread `tid` of `pid`, which entered the kernel with these registers and has not returned since `time`.
    pub fn standing(&mut self, pid: u32, tid: u32, time: Nanos, now: Nanos, registers: Registers) -> Resumed {
        let Registers { ip, sp, .. } = registers;
        let cut = |end| Resumed::Done(vec![ip], end);
        // Only programs for a shorter word have their stacks so low.
        if u32::try_from(sp).is_ok() {
            return cut(UnwindEnd::Unsupported);
        }
        if !self.spaces.knows(pid) {
            self.scan(pid, now);
        }
        if self.reader.is_none() {
            self.reader =
                Reader::start().inspect_err(|error| tracing::warn!(%error, "start a thread that reads stacks")).ok();
        }
        let stack = self.reader.as_mut().and_then(|reader| reader.stack(Place { pid, tid, ip, sp }));
        let Some(bytes) = stack else { return cut(UnwindEnd::BadRead) };
        let Some(mut then) = self.then(pid, time, Copy { begin: sp, bytes: &bytes }) else {
            return cut(UnwindEnd::NoMapping);
        };
        let mut frames = Vec::new();
        let end = walk(&mut then, registers, MAX_FRAMES, &mut frames);
        if then.waits { Resumed::Wait } else { Resumed::Done(frames, end) }
    }
}
