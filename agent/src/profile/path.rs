//! The addresses of one stack and their names in, a path of frames out, outermost first.
//!
//! What the probe itself put on the kernel's stack is left out: a wait is charged to the call that blocked, not to the
//! scheduler or to the program that looked.

use std::collections::HashMap;
use std::ops::Range;

use agent_common::SampleKind;
use foldhash::fast::RandomState;

use super::builder::Builder;
use super::model::Origin;
use super::times::reason_name;
use crate::aggregate::stacks::{StackKey, Waker};
use crate::symbolize::names::clean;
use crate::symbolize::resolver::place;
use crate::symbolize::{Names, Space};

/// A path under construction; used again for the next stack.
#[derive(Debug)]
pub(super) struct Path<'a> {
    names: &'a Names,
    frames: Vec<u32>,
    known: Known,
}

/// Frames of the addresses that were met before: looking a name up costs more than everything else here.
#[derive(Debug, Default)]
struct Known {
    places: HashMap<(Space, u64), Range<u32>, RandomState>,
    frames: Vec<u32>,
}

/// How far in the frames of a probe reach.
const PROBE_FRAMES: usize = 8;
/// What a thread sleeps in: whoever called it is what waits.
const SLEEPS: &str = "__schedule";
/// What lies between a tracepoint and the program that looks there; which of them there are depends on the kernel and on
/// how many look.
const PROBES: [&str; 5] = ["bpf_prog_", "bpf_trace_run", "bpf_trampoline_", "__bpf_trace_", "__traceiter_"];

impl<'a> Path<'a> {
    pub(super) fn new(names: &'a Names) -> Self {
        Self { names, frames: Vec::new(), known: Known::default() }
    }

    /// Forgets the stack before.
    pub(super) fn begin(&mut self) {
        self.frames.clear();
    }

    /// The path so far.
    pub(super) fn frames(&self) -> &[u32] {
        &self.frames
    }

    /// Adds a note.
    pub(super) fn note(&mut self, builder: &mut Builder, text: &str) {
        self.frames.push(builder.frame(text, Origin::Note));
    }

    /// Adds the stacks of `key`: the user's, then the kernel's that it called.
    pub(super) fn stacks(&mut self, builder: &mut Builder, key: &StackKey) {
        let innermost = match key.kind {
            SampleKind::Cpu => 0,
            SampleKind::OffCpu | SampleKind::RunQueue => self.after_sleep(&key.kernel),
            // Alone, it is the waker's; with a waker, the sleeper's.
            SampleKind::Wakeup if key.waker.is_some() => self.after_sleep(&key.kernel),
            SampleKind::Wakeup | SampleKind::Socket => self.after_probe(&key.kernel),
        };
        self.add(builder, &key.user, 0, Space::User(key.pid));
        self.add(builder, &key.kernel, innermost, Space::Kernel);
    }

    /// Adds the waker of `key` above its own stack, innermost first: the two meet where the wakeup was.
    pub(super) fn waker(&mut self, builder: &mut Builder, key: &StackKey) {
        let Some(waker) = &key.waker else {
            self.note(builder, "[waker, its sleeper was not sampled]");
            return;
        };
        self.note(builder, &format!("[blocked: {}]", reason_name(key.reason)));
        let Waker { pid, comm, kernel, user } = &**waker;
        let innermost = self.after_probe(kernel);
        let entry = (innermost..kernel.len()).find(|at| self.is_interrupt(*at, kernel[*at]));
        let from = self.frames.len();
        if let Some(entry) = entry {
            // Whom an interrupt found on the CPU has nothing to do with it.
            self.add(builder, &kernel[..=entry], innermost, Space::Kernel);
        } else {
            self.add(builder, user, 0, Space::User(*pid));
            self.add(builder, kernel, innermost, Space::Kernel);
        }
        self.frames[from..].reverse();
        let who = if entry.is_some() { "an interrupt".to_owned() } else { clean(&comm.to_text()) };
        let note = builder.frame(&format!("[woken by {who}]"), Origin::Note);
        self.frames.insert(from, note);
    }

    /// Adds frames from the outermost to number `innermost`.
    fn add(&mut self, builder: &mut Builder, stack: &[u64], innermost: usize, space: Space) {
        let Self { names, frames, known } = self;
        for (at, address) in stack.iter().enumerate().skip(innermost).rev() {
            if let Some((space, address)) = place(at, *address, space) {
                known.append(builder, names, space, address, frames);
            }
        }
    }

    /// Number of the frame that called the scheduler, or the probe where that is not found.
    fn after_sleep(&self, kernel: &[u64]) -> usize {
        self.after(kernel, |name| name == SLEEPS).max(self.after_probe(kernel))
    }

    /// Number of the frame that holds the tracepoint.
    fn after_probe(&self, kernel: &[u64]) -> usize {
        self.after(kernel, |name| PROBES.iter().any(|probe| name.starts_with(probe)))
    }

    /// Number of the frame that called the outermost such function near the innermost frame; else of the innermost.
    fn after(&self, kernel: &[u64], is: impl Fn(&str) -> bool) -> usize {
        let near = kernel.get(..PROBE_FRAMES.min(kernel.len())).unwrap_or_default();
        let is_at = |(at, address): (usize, &u64)| self.names_at(at, *address).any(&is);
        (0..near.len()).rev().find(|at| is_at((*at, &near[*at]))).map_or(0, |at| at + 1)
    }

    fn is_interrupt(&self, at: usize, address: u64) -> bool {
        let entries = ["asm_sysvec_", "asm_common_interrupt", "common_interrupt", "sysvec_"];
        self.names_at(at, address).any(|name| entries.iter().any(|entry| name.starts_with(entry)))
    }

    /// Names of frame number `at` of a kernel stack.
    fn names_at(&self, at: usize, address: u64) -> impl Iterator<Item = &str> {
        let found = place(at, address, Space::Kernel).and_then(|(space, address)| self.names.get(space, address));
        found.into_iter().flatten().map(|name| &**name)
    }
}

impl Known {
    /// Appends the frames at an address, outermost first.
    fn append(&mut self, builder: &mut Builder, names: &Names, space: Space, address: u64, path: &mut Vec<u32>) {
        let place = self.places.entry((space, address)).or_insert_with(|| {
            let start = self.frames.len();
            add_frames(builder, names, space, address, &mut self.frames);
            index(start)..index(self.frames.len())
        });
        path.extend_from_slice(&self.frames[place.start as usize..place.end as usize]);
    }
}

fn index(at: usize) -> u32 {
    u32::try_from(at).expect("fewer than 2^32 frames fit into memory")
}

fn add_frames(builder: &mut Builder, names: &Names, space: Space, address: u64, to: &mut Vec<u32>) {
    let origin = if space == Space::Kernel { Origin::Kernel } else { Origin::User };
    match names.get(space, address) {
        Some(found) => to.extend(found.iter().map(|name| builder.frame(name, origin))),
        None if origin == Origin::Kernel => to.push(builder.frame("vmlinux+0x?", origin)),
        None => to.push(builder.frame(&format!("unnamed+{address:#x}"), origin)),
    }
}
