//! Mapped files: which mapping shows which file, opened once for each version of it and handed on for its table.
//!
//! A file is opened through the mapping itself, so that it is the right one also when it has been deleted or lies in
//! another mount namespace. It is checked to be a regular file before anything of it is read; nothing here parses it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fs::File;

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::elf::Segment;
use super::loader::{Job, Source};
use super::sideband::Mapped;
use super::spaces::Code;
use super::table::bias;
use crate::units::Nanos;

/// What is known of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Its table is being made.
    Pending,
    /// Its table is loaded, under this number.
    Table(u32),
    /// It is no program: what runs in it was made at run time.
    Jit,
    /// It has no table, or none that could be loaded.
    None,
}

/// Where a file lies, as its mappings say: both 0 of what is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seat {
    pub(super) device: u64,
    pub(super) inode: u64,
}

#[derive(Debug)]
struct Entry {
    name: String,
    seat: Seat,
    state: State,
    segments: Vec<Segment>,
    base: u64,
}

/// A version of a file: a file that was written anew is another one.
type Version = (u64, u64, i64, u64, i64);

/// All files that are mapped anywhere.
#[derive(Debug, Default)]
pub(super) struct Files {
    entries: HashMap<u32, Entry>,
    versions: HashMap<Version, u32>,
    /// What an inode was when it was last opened, and when that was.
    recent: HashMap<((u32, u32), u64), (u32, Nanos)>,
    jobs: VecDeque<Job>,
    vdso: Option<u32>,
    next: u32,
}

/// For so long an inode is taken to hold the file that it held.
const TRUSTED: Nanos = Nanos::SECOND;
/// Most files that are known; more have no table.
const MOST_FILES: usize = 16_384;

impl Files {
    /// What `mapped` shows. New files are queued for their tables.
    pub(super) fn identify(&mut self, mapped: &Mapped, now: Nanos) -> Code {
        if mapped.inode == 0 {
            return if mapped.name == b"[vdso]" { self.vdso() } else { Code::Anonymous };
        }
        let key = (mapped.device, mapped.inode);
        if let Some((file, at)) = self.recent.get(&key)
            && now.since(*at) < TRUSTED
        {
            return Code::File(*file);
        }
        match open(mapped) {
            Ok((file, stat)) => {
                let number = self.version(&stat, file, mapped);
                self.recent.insert(key, (number, now));
                Code::File(number)
            }
            Err(errno) => {
                // The process has ended, most likely: what the inode held last is the best that is known.
                let known = self.recent.get(&key).map(|(file, _)| *file);
                Code::File(known.unwrap_or_else(|| {
                    tracing::debug!(%errno, name = %String::from_utf8_lossy(&mapped.name), "open a mapped file");
                    self.add(mapped, State::None)
                }))
            }
        }
    }

    fn version(&mut self, stat: &Stat, file: Option<File>, mapped: &Mapped) -> u32 {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let nanos = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
        let version = (stat.st_dev, stat.st_ino, stat.st_mtime, size, nanos);
        if let Some(number) = self.versions.get(&version) {
            return *number;
        }
        let number = match file {
            Some(file) if self.entries.len() < MOST_FILES => {
                let number = self.add(mapped, State::Pending);
                self.jobs.push_back(Job { file: number, size, source: Source::File(file) });
                number
            }
            Some(_) => return self.add(mapped, State::None),
            None => self.add(mapped, State::Jit),
        };
        self.versions.insert(version, number);
        number
    }

    /// The kernel's own code in every process: the same image for all, so that ours serves.
    fn vdso(&mut self) -> Code {
        if let Some(number) = self.vdso {
            return Code::File(number);
        }
        let image = super::vdso::image();
        let state = if image.is_some() { State::Pending } else { State::None };
        let number = self.next;
        self.next += 1;
        let (name, seat) = ("[vdso]".to_owned(), Seat { device: 0, inode: 0 });
        self.entries.insert(number, Entry { name, seat, state, segments: Vec::new(), base: 0 });
        self.jobs.extend(image.map(|bytes| Job { file: number, size: 0, source: Source::Bytes(bytes) }));
        self.vdso = Some(number);
        Code::File(number)
    }

    fn add(&mut self, mapped: &Mapped, state: State) -> u32 {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let name = String::from_utf8_lossy(&mapped.name).into_owned();
        let (major, minor) = mapped.device;
        let seat = Seat { device: rustix::fs::makedev(major, minor), inode: mapped.inode };
        self.entries.insert(number, Entry { name, seat, state, segments: Vec::new(), base: 0 });
        number
    }

    /// The next file whose table is to be made, the smallest first: most processes wait for few bytes.
    pub(super) fn next_job(&mut self) -> Option<Job> {
        let (at, _) = self.jobs.iter().enumerate().min_by_key(|(_, job)| job.size)?;
        self.jobs.remove(at)
    }

    /// Puts a job back that found no taker.
    pub(super) fn put_back(&mut self, job: Job) {
        self.jobs.push_front(job);
    }

    /// What became of a file, and where its code lies.
    pub(super) fn settle(&mut self, file: u32, state: State, segments: Vec<Segment>, base: u64) {
        if let Some(entry) = self.entries.get_mut(&file) {
            (entry.state, entry.segments, entry.base) = (state, segments, base);
        }
    }

    /// What is known of a file.
    pub(super) fn state(&self, file: u32) -> &State {
        self.entries.get(&file).map_or(&State::None, |entry| &entry.state)
    }

    /// Its name, as whoever mapped it first saw it.
    pub(super) fn name(&self, file: u32) -> &str {
        self.entries.get(&file).map_or("", |entry| &entry.name)
    }

    /// Its name and where it lies; `None` when it is known no more.
    pub(super) fn seat(&self, file: u32) -> Option<(&str, Seat)> {
        self.entries.get(&file).map(|entry| (entry.name.as_str(), entry.seat))
    }

    /// What to take off an address in a mapping of `file`; `None` when the mapping shows no code of it.
    pub(super) fn bias(&self, file: u32, begin: u64, offset: u64) -> Option<u64> {
        let entry = self.entries.get(&file)?;
        bias(&entry.segments, entry.base, begin, offset)
    }

    /// Whether a table is still being made.
    pub(super) fn pending(&self) -> bool {
        self.entries.values().any(|entry| entry.state == State::Pending)
    }

    /// A file that shows table `table`.
    pub(super) fn showing(&self, table: u32) -> Option<u32> {
        self.entries.iter().find(|(_, entry)| entry.state == State::Table(table)).map(|(number, _)| *number)
    }

    /// Queues a file once more, whose table had no room; it is mapped there.
    pub(super) fn make_again(&mut self, file: u32, pid: u32, begin: u64, end: u64) {
        let exact = format!("/proc/{pid}/map_files/{begin:x}-{end:x}");
        if let Ok((Some(source), stat)) = open_checked(exact.as_ref(), |_| true) {
            let size = u64::try_from(stat.st_size).unwrap_or(0);
            self.jobs.push_back(Job { file, size, source: Source::File(source) });
        }
    }

    /// Forgets the files that are in `mapped` no more, and gives the tables that they showed. These stay loaded until others
    /// need the room.
    pub(super) fn keep(&mut self, mapped: &BTreeSet<u32>) -> Vec<u32> {
        let vdso = self.vdso;
        let mut released = Vec::new();
        self.entries.retain(|number, entry| {
            let keep = mapped.contains(number) || Some(*number) == vdso || entry.state == State::Pending;
            if let (false, State::Table(table)) = (keep, &entry.state) {
                released.push(*table);
            }
            keep
        });
        let entries = &self.entries;
        self.versions.retain(|_, number| entries.contains_key(number));
        self.recent.retain(|_, (number, _)| entries.contains_key(number));
        released
    }
}

/// Opens the file that is mapped there. `None` in the file's place when it is not a regular one.
fn open(mapped: &Mapped) -> Result<(Option<File>, Stat), Errno> {
    let Mapped { pid, begin, end, .. } = mapped;
    let exact = format!("/proc/{pid}/map_files/{begin:x}-{end:x}");
    if let Ok(found) = open_checked(exact.as_ref(), |stat| stat.st_ino == mapped.inode) {
        return Ok(found);
    }
    let same = |stat: &Stat| {
        let device = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
        stat.st_ino == mapped.inode && device == mapped.device
    };
    let path = std::str::from_utf8(&mapped.name).map_err(|_not_text| Errno::NOENT)?;
    if !path.starts_with('/') {
        return Err(Errno::NOENT);
    }
    // In its own mount namespace while it lives, else in ours: the file says whether it is the one.
    open_checked(format!("/proc/{pid}/root{path}").as_ref(), same).or_else(|_gone| open_checked(path.as_ref(), same))
}

fn open_checked(path: &std::path::Path, is_it: impl Fn(&Stat) -> bool) -> Result<(Option<File>, Stat), Errno> {
    // Not for reading at first: opening a device does things.
    let place = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let stat = rustix::fs::fstat(&place)?;
    if !is_it(&stat) {
        return Err(Errno::STALE);
    }
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok((None, stat));
    }
    let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&place));
    let file = rustix::fs::open(again, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
    Ok((Some(file.into()), stat))
}
