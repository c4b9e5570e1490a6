//! The symbolizer: a process of its own that reads what others have built. Questions with descriptors in, names out; it
//! opens nothing, and whatever a hostile file makes of it can do no more than answer wrongly or die.
//!
//! It lets go of memory by ending: at once when it has grown, else when nobody has asked for a while. The agent starts
//! another one when it needs it, which takes a few milliseconds.

mod demangle;
mod elf;
mod image;
mod perf_map;
mod probe;
mod sandbox;
mod symbols;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub use probe::{Attempt, attempt};

use self::elf::{Beside, Elf, Opened};
use self::perf_map::PerfMap;
use self::sandbox::Layers;
use super::names::clean;
use super::wire::{Answer, Ask, Companion, FULL_PACKET, FileKey, Found, MOST_PLACES, receive, send};

/// Debug information beyond this is done without, whoever asks; the symbol tables still name functions.
const MOST_DEBUG: u64 = 384 << 20;
/// Above this it ends as soon as nobody asks, and below only after a while.
const GROWN: u64 = 8 << 20;
/// Above this it ends before the next question, or above what one file may take if that is less.
const FULL: u64 = 256 << 20;
/// Files that are kept open, each with its debug file: there may be no more descriptors than the sandbox allows.
const MOST_FILES: usize = 12;
/// Silence after which one that has grown ends.
const SHORT_SILENCE: i64 = 2;
/// Silence after which any ends.
const LONG_SILENCE: i64 = 30;

/// Answers on `socket` until the other side goes or it is time to end.
pub fn serve(socket: impl AsFd) -> io::Result<()> {
    let socket = socket.as_fd();
    // Its words would go nowhere, and looking for their cause would open files.
    std::panic::set_hook(Box::new(|_| {}));
    match sandbox::enter(Layers::All) {
        Ok(confinement) => send(socket, &Answer::Ready(confinement), &[])?,
        Err(why) => return send(socket, &Answer::Failed(why.to_string()), &[]),
    }
    let mut symbolizer = Symbolizer { files: Vec::new(), maps: HashMap::new(), weight: 0, full: FULL };
    while symbolizer.weight < symbolizer.full && asked_in_time(socket, symbolizer.weight)? {
        let Some((ask, passed)) = receive::<Ask>(socket)? else { break };
        symbolizer.answer(socket, ask, passed)?;
    }
    Ok(())
}

fn asked_in_time(socket: BorrowedFd<'_>, weight: u64) -> io::Result<bool> {
    let tv_sec = if weight > GROWN { SHORT_SILENCE } else { LONG_SILENCE };
    let mut ready = [PollFd::from_borrowed_fd(socket, PollFlags::IN)];
    Ok(poll(&mut ready, Some(&Timespec { tv_sec, tv_nsec: 0 }))? > 0)
}

struct Symbolizer {
    /// The one asked about last is the last.
    files: Vec<(FileKey, Box<Elf>)>,
    maps: HashMap<FileKey, PerfMap>,
    /// Bytes that were read and are still held.
    weight: u64,
    /// Above this it ends before the next question.
    full: u64,
}

impl Symbolizer {
    fn answer(&mut self, socket: BorrowedFd<'_>, ask: Ask, passed: Vec<OwnedFd>) -> io::Result<()> {
        // A library that gives up by panicking gives up this file, not this process.
        let answered = catch_unwind(AssertUnwindSafe(|| match ask {
            Ask::Elf { key, debug, shared, most_debug, offsets } => {
                self.elf(key, [debug, shared], most_debug, &offsets, passed)
            }
            Ask::PerfMap { key, addresses } => self.perf_map(key, &addresses, passed),
        }));
        let failed = |why: &str| Reply::Short(Answer::Failed(clean(why)));
        match answered.unwrap_or_else(|_panic| failed("reading it panicked")) {
            Reply::Short(answer) => send(socket, &answer, &[]),
            Reply::Names(found, why) => send_names(socket, found, why),
        }
    }

    fn elf(
        &mut self,
        key: FileKey,
        beside: [Companion; 2],
        most_debug: u64,
        offsets: &[u64],
        passed: Vec<OwnedFd>,
    ) -> Reply {
        self.full = most_debug.clamp(GROWN, FULL);
        let known = self.files.iter().position(|(known, _)| *known == key);
        if let Some(known) = known {
            let file = self.files.remove(known);
            self.files.push(file);
        } else {
            let mut passed = passed.into_iter();
            let Some(file) = passed.next() else { return Reply::failed("no descriptor came with it") };
            let [debug, shared] = beside.map(|companion| match companion {
                Companion::Unasked => Beside::Unasked,
                Companion::Absent => Beside::Absent,
                Companion::Passed => passed.next().map_or(Beside::Absent, |fd| Beside::There(File::from(fd))),
            });
            match Elf::open(File::from(file), debug, shared, most_debug.min(MOST_DEBUG)) {
                Ok(Opened::Ready(elf)) => {
                    self.weight += elf.weight;
                    if self.files.len() >= MOST_FILES {
                        self.files.remove(0);
                    }
                    self.files.push((key, elf));
                }
                Ok(Opened::WantsDebug(wish)) => return Reply::Short(Answer::WantsDebug(wish)),
                Ok(Opened::WantsShared(wish)) => return Reply::Short(Answer::WantsShared(wish)),
                Err(why) => return Reply::failed(&why),
            }
        }
        let Some((_, elf)) = self.files.last() else { return Reply::failed("it was not kept") };
        let offsets = offsets.get(..MOST_PLACES).unwrap_or(offsets);
        Reply::Names(elf.find(offsets), elf.without.clone())
    }

    fn perf_map(&mut self, key: FileKey, addresses: &[u64], passed: Vec<OwnedFd>) -> Reply {
        if !self.maps.contains_key(&key) {
            let Some(file) = passed.into_iter().next() else { return Reply::failed("no descriptor came with it") };
            // A map that has grown has another key: what was read of it before goes.
            let old = |k: &FileKey| (k.dev, k.inode) == (key.dev, key.inode);
            let gone = self.maps.extract_if(|k, _| old(k)).map(|(_, map)| map.weight()).sum::<u64>();
            self.weight -= gone.min(self.weight);
            let map = PerfMap::read(&File::from(file), key.size);
            self.weight += map.weight();
            self.maps.insert(key, map);
        }
        let Some(map) = self.maps.get(&key) else { return Reply::failed("it was not kept") };
        Reply::Names(addresses.iter().take(MOST_PLACES).map(|address| map.find(*address)).collect(), None)
    }
}

enum Reply {
    Short(Answer),
    Names(Vec<Found>, Option<String>),
}

impl Reply {
    fn failed(why: &str) -> Self {
        Self::Short(Answer::Failed(clean(why)))
    }
}

fn send_names(socket: BorrowedFd<'_>, found: Vec<Found>, why: Option<String>) -> io::Result<()> {
    let (mut part, mut bytes) = (Vec::new(), 0);
    for mut one in found {
        for name in &mut one.names {
            *name = clean(name);
        }
        bytes += 64 + one.names.iter().map(String::len).sum::<usize>();
        part.push(one);
        if bytes > FULL_PACKET {
            send(socket, &Answer::Part(std::mem::take(&mut part)), &[])?;
            bytes = 0;
        }
    }
    send(socket, &Answer::Done(part, why.map(|why| clean(&why))), &[])
}
