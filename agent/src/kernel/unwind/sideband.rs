//! The kernel's own account of processes: births, ends, changes of program, and mappings of executable code.
//!
//! Perf rings in, one a CPU; facts out, in the order in which they happened. It never looks at a process: what it tells
//! holds also of processes that have ended by the time it is read.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd};

use perf_event_open_sys::bindings as sys;
use perf_event_open_sys::perf_event_open;
use rustix::event::epoll;

use super::ring::Ring;
use crate::units::Nanos;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    /// A process was born; it shares everything that its parent had mapped.
    Fork {
        /// The new process.
        pid: u32,
        /// Its parent.
        parent: u32,
    },
    /// A process replaced its program: its mappings are gone.
    Exec {
        /// Which.
        pid: u32,
    },
    /// The first thread of a process ended, and mostly with it the process.
    Exit {
        /// Which.
        pid: u32,
    },
    /// Code was mapped.
    Map(Box<Mapped>),
}

/// Code that was mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapped {
    /// Process.
    pub(super) pid: u32,
    /// First address.
    pub(super) begin: u64,
    /// Address after the last.
    pub(super) end: u64,
    /// Offset in the file.
    pub(super) offset: u64,
    /// Device of the file: major, minor.
    pub(super) device: (u32, u32),
    /// Inode of the file; 0 when there is no file.
    pub(super) inode: u64,
    /// Path in the process's own view, or a name such as `[vdso]`.
    pub(super) name: Vec<u8>,
}

/// The rings of all CPUs.
#[derive(Debug)]
pub(super) struct Sideband {
    rings: Vec<Ring>,
    /// Readable when a ring has something.
    poll: OwnedFd,
    /// Facts that are newer than the last look's begin: another CPU may still be writing something older.
    held: Vec<(Nanos, Fact)>,
    scratch: Vec<u8>,
}

/// What a look at the rings brought.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// What happened, in order.
    pub(super) facts: Vec<(Nanos, Fact)>,
    /// Whether the kernel found a ring full: something happened that is not told.
    pub(super) gap: bool,
}

impl Sideband {
    /// Opens a ring on each of `cpus`.
    pub(super) fn open(cpus: &[u32]) -> io::Result<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut rings = Vec::new();
        for cpu in cpus {
            let ring = Ring::map(open_event(*cpu)?)?;
            epoll::add(&poll, &ring, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
            rings.push(ring);
        }
        Ok(Self { rings, poll, held: Vec::new(), scratch: Vec::new() })
    }

    /// Tells what happened before `now`.
    pub(super) fn look(&mut self, now: Nanos) -> Look {
        // Resets the readiness; what comes from here on makes it ready again.
        let mut ready = [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; 64];
        if let Err(errno) =
            epoll::wait(&self.poll, &mut ready[..], Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 }))
        {
            tracing::debug!(%errno, "poll the rings of the sideband");
        }
        let mut look = Look::default();
        let mut facts = std::mem::take(&mut self.held);
        for ring in &mut self.rings {
            self.scratch.clear();
            ring.read(&mut self.scratch);
            look.gap |= parse(&self.scratch, &mut facts);
        }
        facts.sort_by_key(|(time, _)| *time);
        let ripe = facts.partition_point(|(time, _)| *time <= now);
        self.held = facts.split_off(ripe);
        look.facts = facts;
        look
    }
}

impl AsFd for Sideband {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poll.as_fd()
    }
}

fn open_event(cpu: u32) -> io::Result<File> {
    let mut attr = sys::perf_event_attr {
        type_: sys::PERF_TYPE_SOFTWARE,
        size: u32::try_from(size_of::<sys::perf_event_attr>()).unwrap_or(0),
        config: u64::from(sys::PERF_COUNT_SW_DUMMY),
        sample_type: u64::from(sys::PERF_SAMPLE_TIME),
        clockid: rustix::time::ClockId::Monotonic as i32,
        ..Default::default()
    };
    attr.set_mmap(1);
    attr.set_mmap2(1);
    attr.set_comm(1);
    attr.set_comm_exec(1);
    attr.set_task(1);
    attr.set_sample_id_all(1);
    attr.set_use_clockid(1);
    attr.set_exclude_kernel(1);
    // Ready at the first record, not when the ring is half full.
    attr.set_watermark(1);
    attr.__bindgen_anon_2.wakeup_watermark = 1;
    let cpu = i32::try_from(cpu).map_err(io::Error::other)?;
    // SAFETY: `attr` is a whole structure of the size that it states.
    let fd = unsafe { perf_event_open(&raw mut attr, -1, cpu, -1, sys::PERF_FLAG_FD_CLOEXEC.into()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just made it, and nobody else has it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Reads records into facts; true when the kernel says that it lost some. A record that is cut short ends the reading.
fn parse(mut bytes: &[u8], facts: &mut Vec<(Nanos, Fact)>) -> bool {
    let mut gap = false;
    while let Some((kind, misc, size)) = header(bytes) {
        let Some(record) = bytes.get(8..size) else { break };
        bytes = bytes.get(size..).unwrap_or_default();
        match kind {
            sys::PERF_RECORD_LOST => gap = true,
            _ => facts.extend(fact(kind, misc, record)),
        }
    }
    gap
}

fn header(bytes: &[u8]) -> Option<(u32, u16, usize)> {
    let kind = u32_at(bytes, 0)?;
    let misc = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let size = usize::from(u16::from_ne_bytes(*bytes.get(6..)?.first_chunk()?));
    (size >= 8).then_some((kind, misc, size))
}

fn fact(kind: u32, misc: u16, record: &[u8]) -> Option<(Nanos, Fact)> {
    // The time stands at the end of each record, after a text of any length.
    let (body, time) = record.split_last_chunk::<8>()?;
    let time = Nanos(u64::from_ne_bytes(*time));
    let pid = u32_at(body, 0)?;
    let fact = match kind {
        sys::PERF_RECORD_FORK => {
            let parent = u32_at(body, 4)?;
            (pid != parent).then_some(Fact::Fork { pid, parent })?
        }
        sys::PERF_RECORD_EXIT => (u32_at(body, 8)? == pid).then_some(Fact::Exit { pid })?,
        sys::PERF_RECORD_COMM => {
            (u32::from(misc) & sys::PERF_RECORD_MISC_COMM_EXEC != 0).then_some(Fact::Exec { pid })?
        }
        sys::PERF_RECORD_MMAP2 => {
            let (begin, len) = (u64_at(body, 8)?, u64_at(body, 16)?);
            let name = body.get(64..)?;
            let name = name.split(|b| *b == 0).next().unwrap_or_default().to_vec();
            Fact::Map(Box::new(Mapped {
                pid,
                begin,
                end: begin.checked_add(len)?,
                offset: u64_at(body, 24)?,
                device: (u32_at(body, 32)?, u32_at(body, 36)?),
                inode: u64_at(body, 40)?,
                name,
            }))
        }
        _ => return None,
    };
    Some((time, fact))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(kind: u32, misc: u16, body: &[u8], time: u64) -> Vec<u8> {
        let mut bytes = kind.to_ne_bytes().to_vec();
        bytes.extend(misc.to_ne_bytes());
        bytes.extend(u16::try_from(16 + body.len()).unwrap().to_ne_bytes());
        bytes.extend(body);
        bytes.extend(time.to_ne_bytes());
        bytes
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|w| w.to_ne_bytes()).collect()
    }

    #[test]
    fn births_of_threads_and_ends_of_threads_are_no_facts() {
        let mut bytes = record(sys::PERF_RECORD_FORK, 0, &words(&[7, 7, 8, 7, 0, 0]), 1);
        bytes.extend(record(sys::PERF_RECORD_FORK, 0, &words(&[9, 7, 9, 7, 0, 0]), 2));
        bytes.extend(record(sys::PERF_RECORD_EXIT, 0, &words(&[7, 7, 8, 7, 0, 0]), 3));
        bytes.extend(record(sys::PERF_RECORD_EXIT, 0, &words(&[9, 7, 9, 7, 0, 0]), 4));
        bytes.extend(record(sys::PERF_RECORD_COMM, 0, &words(&[7, 7, 0, 0]), 5));
        bytes.extend(record(sys::PERF_RECORD_COMM, 1 << 13, &words(&[7, 7, 0, 0]), 6));
        let mut facts = Vec::new();
        assert!(!parse(&bytes, &mut facts));
        let expected = [
            (Nanos(2), Fact::Fork { pid: 9, parent: 7 }),
            (Nanos(4), Fact::Exit { pid: 9 }),
            (Nanos(6), Fact::Exec { pid: 7 }),
        ];
        assert_eq!(facts, expected);
    }

    #[test]
    fn a_mapping_is_read_with_its_file() {
        let mut body = words(&[7, 8]);
        for word in [0x1000_u64, 0x2000, 0x3000] {
            body.extend(word.to_ne_bytes());
        }
        body.extend(words(&[8, 1]));
        for word in [42_u64, 1] {
            body.extend(word.to_ne_bytes());
        }
        body.extend(words(&[5, 2]));
        body.extend(b"/bin/cat\0\0\0\0\0\0\0\0");
        let mut facts = Vec::new();
        parse(&record(sys::PERF_RECORD_MMAP2, 2, &body, 11), &mut facts);
        let mapped = Mapped {
            pid: 7,
            begin: 0x1000,
            end: 0x3000,
            offset: 0x3000,
            device: (8, 1),
            inode: 42,
            name: b"/bin/cat".to_vec(),
        };
        assert_eq!(facts, [(Nanos(11), Fact::Map(Box::new(mapped)))]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_facts_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
            parse(&bytes, &mut Vec::new());
        }
    }
}
