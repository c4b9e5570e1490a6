//! What the scheduler's own books say of a process: how often its threads were put on a CPU, how long they waited for one.
//! Read from /proc, so that the process pays nothing: a perf event on each thread costs it a microsecond and more a switch.
//! The files stay open, and the threads are listed anew when their number has changed or one has ended.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;

use agent_common::NOT_TOLD;
use rustix::io::Errno;

use super::reread::{LONGEST, Reread};
use crate::units::Pid;

/// Threads of one process that are read: each is a file, ten times a second.
const MOST_THREADS: usize = 64;
/// Descriptors that are kept open; the files of further processes are opened at each tick.
const MOST_KEPT: usize = 256;

/// The books of watched processes.
#[derive(Debug, Default)]
pub struct Threads {
    watched: HashMap<Pid, Account>,
}

/// Sums since the process was first watched, threads that have ended included as far as they were read.
#[derive(Debug, Default)]
struct Account {
    /// Its folder of threads, by which their number is told.
    folder: Option<File>,
    threads: HashMap<u32, Thread>,
    sum: Books,
}

/// One thread.
#[derive(Debug, Default)]
struct Thread {
    /// Its book, while it is kept open.
    book: Option<Reread>,
    /// What was read in it last.
    read: Books,
}

/// What a round of reading came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    /// Every thread was read.
    All,
    /// One has ended.
    Fewer,
    /// One could not be read.
    Untold,
}

/// How often, and how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Books {
    switches: u64,
    delay_ns: u64,
}

/// What is known of a process now. [`NOT_TOLD`] where this host keeps no such books, or the threads are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheduled {
    /// Threads.
    pub threads: u32,
    /// How often one of them was put on a CPU: its context switches.
    pub switches: u64,
    /// How long they waited in run queues, ns.
    pub delay_ns: u64,
}

impl Threads {
    /// Reads the books of `wanted`; those who have gone are not in the answer.
    pub fn read(&mut self, wanted: &BTreeSet<Pid>) -> BTreeMap<Pid, Scheduled> {
        self.watched.retain(|pid, _| wanted.contains(pid));
        let mut room = [0; LONGEST];
        let (mut told, mut kept) = (BTreeMap::new(), 0);
        for pid in wanted {
            let account = self.watched.entry(*pid).or_default();
            match account.read(*pid, &mut room) {
                Ok(scheduled) => {
                    told.insert(*pid, scheduled);
                }
                Err(error) if has_ended(&error) => {
                    self.watched.remove(pid);
                    continue;
                }
                // Nothing is told of it this time; what was read of it stays.
                Err(error) => tracing::debug!(%error, pid = pid.0, "read the books of a process"),
            }
            kept += 1 + account.threads.len();
            if kept > MOST_KEPT {
                account.close();
            }
        }
        told
    }
}

impl Account {
    fn read(&mut self, pid: Pid, room: &mut [u8; LONGEST]) -> io::Result<Scheduled> {
        let folder = match self.folder.take() {
            Some(folder) => folder,
            None => File::open(format!("/proc/{}/task", pid.0))?,
        };
        // A folder has a link for itself, one for its parent and one for each folder in it.
        let count = usize::try_from(folder.metadata()?.nlink().saturating_sub(2)).unwrap_or(usize::MAX);
        self.folder = Some(folder);
        if count == 0 {
            return Err(Errno::SRCH.into());
        }
        let threads = u32::try_from(count).unwrap_or(u32::MAX);
        let untold = Scheduled { threads, switches: NOT_TOLD, delay_ns: NOT_TOLD };
        if count > MOST_THREADS {
            return Ok(untold);
        }
        // Where one has ended another may have been born, and the number is the same.
        let is_same = self.threads.len() == count;
        let mut told = if is_same { self.turn_pages(pid, room) } else { Told::Fewer };
        if told == Told::Fewer {
            self.list(pid)?;
            told = self.turn_pages(pid, room);
        }
        // A kernel that keeps no books has no such file, or nothing but zeros in it.
        if told == Told::Untold || self.threads.values().all(|thread| thread.read.switches == 0) {
            return Ok(untold);
        }
        Ok(Scheduled { threads, switches: self.sum.switches, delay_ns: self.sum.delay_ns })
    }

    /// Takes up new threads and lets go of ended ones.
    fn list(&mut self, pid: Pid) -> io::Result<()> {
        let entries = fs::read_dir(format!("/proc/{}/task", pid.0))?;
        let tids: BTreeSet<u32> = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
        self.threads.retain(|tid, _| tids.contains(tid));
        for tid in tids {
            self.threads.entry(tid).or_default();
        }
        Ok(())
    }

    /// Reads every book, and adds what is new to the sum.
    fn turn_pages(&mut self, pid: Pid, room: &mut [u8; LONGEST]) -> Told {
        let before = self.threads.len();
        let (sum, mut is_untold) = (&mut self.sum, false);
        self.threads.retain(|tid, thread| {
            match thread.text(pid, *tid, room).map(Books::parse) {
                Ok(Some(books)) => {
                    sum.add(&books, &thread.read);
                    thread.read = books;
                }
                // It has just ended, and keeps what was read of it.
                Err(error) if has_ended(&error) => return false,
                // A thread that is left out would be counted from its birth when it comes back.
                Ok(None) | Err(_) => is_untold = true,
            }
            true
        });
        match (is_untold, self.threads.len() < before) {
            (true, _) => Told::Untold,
            (false, true) => Told::Fewer,
            (false, false) => Told::All,
        }
    }

    /// Closes its files; what was read stays.
    fn close(&mut self) {
        self.folder = None;
        for thread in self.threads.values_mut() {
            thread.book = None;
        }
    }
}

impl Thread {
    fn text<'a>(&mut self, pid: Pid, tid: u32, room: &'a mut [u8; LONGEST]) -> io::Result<&'a str> {
        let book = match self.book.take() {
            Some(book) => book,
            None => Reread::open(format!("/proc/{}/task/{tid}/schedstat", pid.0))?,
        };
        self.book.insert(book).text(room)
    }
}

fn has_ended(error: &std::io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::SRCH))
}

impl Books {
    /// Adds what came since `before`.
    fn add(&mut self, now: &Self, before: &Self) {
        let since = |now: u64, before: u64| now.saturating_sub(before);
        self.switches = self.switches.saturating_add(since(now.switches, before.switches));
        self.delay_ns = self.delay_ns.saturating_add(since(now.delay_ns, before.delay_ns));
    }

    /// `RUN_NS DELAY_NS SLICES`.
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace().skip(1).map(str::parse);
        let (delay_ns, switches) = (words.next()?.ok()?, words.next()?.ok()?);
        Some(Self { switches, delay_ns })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;
    use std::thread;

    use super::*;

    #[test]
    fn the_books_of_a_thread_that_has_ended_stay_in_the_sum() {
        let me = Pid(std::process::id());
        let wanted = BTreeSet::from([me]);
        let mut books = Threads::default();
        let begin = books.read(&wanted)[&me];
        let (go, wait) = sync_channel::<()>(1);
        let (answer, told) = sync_channel(1);
        let other = thread::spawn(move || {
            while wait.recv().is_ok() {
                answer.send(()).unwrap();
            }
        });
        for _ in 0..100 {
            go.send(()).unwrap();
            told.recv().unwrap();
        }
        let busy = books.read(&wanted)[&me];
        assert!(busy.switches >= begin.switches + 50, "{begin:?} {busy:?}");
        drop(go);
        other.join().unwrap();
        let after = books.read(&wanted)[&me];
        assert!(after.switches >= busy.switches && after.delay_ns >= busy.delay_ns, "{busy:?} {after:?}");
    }

    #[test]
    fn a_thread_that_takes_the_place_of_another_is_counted() {
        let me = Pid(std::process::id());
        let (wanted, mut books) = (BTreeSet::from([me]), Threads::default());
        // It stays until it is told to end, and has slept as often as it says by then.
        let start = || {
            let (go, wait) = sync_channel::<()>(0);
            let (answer, told) = sync_channel(0);
            let thread = thread::spawn(move || {
                while wait.recv().is_ok() {
                    answer.send(()).unwrap();
                }
            });
            (go, told, thread)
        };
        let (go, _told, first) = start();
        books.read(&wanted);
        drop(go);
        first.join().unwrap();
        let (go, told, second) = start();
        for _ in 0..100 {
            go.send(()).unwrap();
            told.recv().unwrap();
        }
        let before = books.read(&wanted)[&me];
        assert!(books.watched[&me].threads.values().any(|thread| thread.read.switches >= 100), "{before:?}");
        drop(go);
        second.join().unwrap();
        // What is not kept open is read all the same.
        for account in books.watched.values_mut() {
            account.close();
        }
        let after = books.read(&wanted)[&me];
        assert!(after.switches >= before.switches && after.delay_ns >= before.delay_ns, "{before:?} {after:?}");
    }

    #[test]
    fn one_that_has_gone_is_not_in_the_answer_and_hostile_books_are_not_told() {
        assert!(Threads::default().read(&[Pid(u32::MAX)].into()).is_empty());
        assert_eq!(Books::parse("12 34 56\n"), Some(Books { switches: 56, delay_ns: 34 }));
        for bad in ["", "12", "12 34", "1 x 3", "1 2 -3"] {
            assert_eq!(Books::parse(bad), None, "{bad:?}");
        }
    }
}
