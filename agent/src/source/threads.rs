//! What the scheduler's own books say of a process: how often its threads were put on a CPU, how long they waited for one.
//! Read from /proc, so that the process pays nothing: a perf event on each thread costs it a microsecond and more a switch.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;

use agent_common::NOT_TOLD;
use rustix::io::Errno;

use crate::units::Pid;

/// Threads of one process that are read: each is a file, ten times a second.
const MOST_THREADS: usize = 64;

/// The books of watched processes.
#[derive(Debug, Default)]
pub struct Threads {
    watched: HashMap<Pid, Account>,
}

/// Sums since the process was first watched, threads that have ended included as far as they were read.
#[derive(Debug, Default)]
struct Account {
    threads: HashMap<u32, Books>,
    sum: Books,
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
        wanted
            .iter()
            .filter_map(|pid| {
                let seen = self.watched.entry(*pid).or_default().read(*pid);
                if seen.is_none() {
                    self.watched.remove(pid);
                }
                Some((*pid, seen?))
            })
            .collect()
    }
}

impl Account {
    fn read(&mut self, pid: Pid) -> Option<Scheduled> {
        let entries = fs::read_dir(format!("/proc/{}/task", pid.0)).ok()?;
        let tids: Vec<u32> = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
        let threads = u32::try_from(tids.len()).unwrap_or(u32::MAX);
        let untold = Scheduled { threads, switches: NOT_TOLD, delay_ns: NOT_TOLD };
        if tids.len() > MOST_THREADS {
            return Some(untold);
        }
        let mut now = HashMap::with_capacity(tids.len());
        for tid in tids {
            let text = match fs::read_to_string(format!("/proc/{}/task/{tid}/schedstat", pid.0)) {
                Ok(text) => text,
                // It has just ended, and keeps what was read of it.
                Err(error) if has_ended(&error) => continue,
                // A thread that is left out would be counted from its birth when it comes back.
                Err(_) => return Some(untold),
            };
            let Some(books) = Books::parse(&text) else { return Some(untold) };
            now.insert(tid, books);
        }
        // A kernel that keeps no books has no such file, or nothing but zeros in it.
        if now.values().all(|books| books.switches == 0) {
            return Some(untold);
        }
        for (tid, books) in &now {
            let before = self.threads.get(tid).copied().unwrap_or_default();
            self.sum.add(books, &before);
        }
        self.threads = now;
        Some(Scheduled { threads, switches: self.sum.switches, delay_ns: self.sum.delay_ns })
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
    fn one_that_has_gone_is_not_in_the_answer_and_hostile_books_are_not_told() {
        assert!(Threads::default().read(&[Pid(u32::MAX)].into()).is_empty());
        assert_eq!(Books::parse("12 34 56\n"), Some(Books { switches: 56, delay_ns: 34 }));
        for bad in ["", "12", "12 34", "1 x 3", "1 2 -3"] {
            assert_eq!(Books::parse(bad), None, "{bad:?}");
        }
    }
}
