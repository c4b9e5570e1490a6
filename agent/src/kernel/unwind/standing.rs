//! The user stack of a thread that stands still: its registers and its memory in, return addresses and the reason for the
//! end out. It goes by the same tables as all other stacks; it never writes and never stops the thread.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use agent_common::{MAX_FRAMES, UnwindEnd};

use super::resume::{Resumed, Words};
use super::tracker::Tracker;
use super::walk::{Registers, walk};
use crate::units::Nanos;

const PAGE: u64 = 4096;

/// The memory of a process, page by page.
struct Memory {
    file: File,
    pages: HashMap<u64, Option<Box<[u8]>>>,
}

impl Words for Memory {
    fn word(&mut self, address: u64) -> Option<u64> {
        let (page, place) = (address & !(PAGE - 1), address & (PAGE - 1));
        if place > PAGE - 8 {
            return None; // No stack is aligned so.
        }
        let file = &self.file;
        let bytes = self.pages.entry(page).or_insert_with(|| {
            let mut bytes = vec![0; usize::try_from(PAGE).ok()?].into_boxed_slice();
            file.read_exact_at(&mut bytes, page).ok().map(|()| bytes)
        });
        Some(u64::from_ne_bytes(*bytes.as_ref()?.get(usize::try_from(place).ok()?..)?.first_chunk()?))
    }
}

impl Tracker {
    /// The frames of a thread of `pid` that entered the kernel with these registers and has not returned since `time`.
    pub fn standing(&mut self, pid: u32, time: Nanos, now: Nanos, registers: Registers) -> Resumed {
        let ip = registers.ip;
        if !self.spaces.knows(pid) {
            self.scan(pid, now);
        }
        let Ok(file) = File::open(format!("/proc/{pid}/mem")) else {
            return Resumed::Done(vec![ip], UnwindEnd::BadRead);
        };
        let Some(mut then) = self.then(pid, time, Memory { file, pages: HashMap::new() }) else {
            return Resumed::Done(vec![ip], UnwindEnd::NoMapping);
        };
        let mut frames = Vec::new();
        let end = walk(&mut then, registers, MAX_FRAMES, &mut frames);
        if then.waits { Resumed::Wait } else { Resumed::Done(frames, end) }
    }
}
