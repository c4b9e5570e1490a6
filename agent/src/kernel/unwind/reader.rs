//! Reads the stacks of other processes, on a thread of its own and never for longer than a deadline: what lies at an address
//! may be a file of somebody's own file system, which answers when it likes. A request in, a copy out; while a read does
//! not come back there are no others.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// Bytes of a stack that are read: as deep as most stacks are.
const MOST_BYTES: usize = 64 << 10;
/// A page that is in memory is there in a microsecond; one that is swapped out is not waited for.
const DEADLINE: Duration = Duration::from_millis(20);

/// A thread, and where it entered the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) pid: u32,
    pub(super) tid: u32,
    pub(super) ip: u64,
    pub(super) sp: u64,
}

/// What is to be read, and which request it is.
type Request = (u64, Place);
/// The number of a request, and the stack from `sp` on; nothing when the thread is elsewhere by now.
type Answer = (u64, Option<Vec<u8>>);

/// The thread that reads.
#[derive(Debug)]
pub(super) struct Reader {
    requests: SyncSender<Request>,
    answers: Receiver<Answer>,
    asked: u64,
    answered: u64,
}

impl Reader {
    /// Starts it.
    pub(super) fn start() -> io::Result<Self> {
        let (requests, inbox) = sync_channel::<Request>(1);
        let (outbox, answers) = sync_channel(1);
        std::thread::Builder::new().name("tidegate-reader".to_owned()).spawn(move || {
            while let Ok((number, place)) = inbox.recv() {
                if outbox.send((number, read(place))).is_err() {
                    return; // Nobody wants it any more.
                }
            }
        })?;
        Ok(Self { requests, answers, asked: 0, answered: 0 })
    }

    /// The stack of a thread from its stack pointer on; none when it has gone on, or cannot be read in time.
    pub(super) fn stack(&mut self, place: Place) -> Option<Vec<u8>> {
        // One that was given up comes back first, or it has not come back yet.
        while self.answered < self.asked {
            (self.answered, _) = self.answers.try_recv().ok()?;
        }
        self.asked += 1;
        self.requests.try_send((self.asked, place)).ok()?;
        match self.answers.recv_timeout(DEADLINE) {
            Ok((number, stack)) => {
                self.answered = number;
                stack
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
        }
    }
}

fn read(place: Place) -> Option<Vec<u8>> {
    let Place { pid, tid, sp, .. } = place;
    let memory = File::open(format!("/proc/{pid}/task/{tid}/mem")).ok()?;
    let mut bytes = vec![0; MOST_BYTES];
    // The kernel copies as far as there is something: behind the stack lies nothing, or what is not to be read.
    let got = memory.read_at(&mut bytes, sp).unwrap_or(0);
    bytes.truncate(got);
    // Looked at last: a thread that stands there still has not touched its callers' frames meanwhile.
    stands(place).then_some(bytes)
}

/// Whether a thread is still in the system call that it was in.
fn stands(place: Place) -> bool {
    let Place { pid, tid, ip, sp } = place;
    fs::read_to_string(format!("/proc/{pid}/task/{tid}/syscall")).is_ok_and(|text| is_at(&text, ip, sp))
}

/// Whether a line of `/proc/PID/task/TID/syscall` tells of these registers. Of one that waits for a CPU it tells nothing.
fn is_at(line: &str, ip: u64, sp: u64) -> bool {
    let register = |word: Option<&str>| u64::from_str_radix(word?.strip_prefix("0x")?, 16).ok();
    let mut words = line.split_whitespace().rev();
    let (pc, stack) = (register(words.next()), register(words.next()));
    line.trim_end() == "running" || (pc == Some(ip) && stack == Some(sp))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_has_gone_on_is_told_from_one_that_stands() {
        let line = "202 0x55d0 0x80 0x0 0x0 0x0 0x0 0x7ffd0010 0x7f00aa\n";
        assert!(is_at(line, 0x7f_00aa, 0x7ffd_0010));
        assert!(!is_at(line, 0x7f_00ab, 0x7ffd_0010) && !is_at(line, 0x7f_00aa, 0x7ffd_0018));
        assert!(is_at("running\n", 1, 2) && !is_at("-1 0x1 0x2\n", 1, 2) && !is_at("", 1, 2));
    }

    #[test]
    fn a_stack_is_read_where_the_thread_stands_and_not_where_it_does_not() {
        let (tell, told) = sync_channel(1);
        let (end, wait) = sync_channel::<()>(1);
        let thread = std::thread::spawn(move || {
            tell.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
            assert!(wait.recv().is_err());
        });
        let (pid, tid) = (std::process::id(), u32::try_from(told.recv().unwrap()).unwrap());
        let number = |word: &str| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok();
        let (ip, sp) = loop {
            let text = fs::read_to_string(format!("/proc/{pid}/task/{tid}/syscall")).unwrap();
            let mut words = text.split_whitespace().rev();
            if let (Some(ip), Some(sp)) = (words.next().and_then(number), words.next().and_then(number)) {
                break (ip, sp);
            }
        };
        let mut reader = Reader::start().unwrap();
        let place = Place { pid, tid, ip, sp };
        assert!(reader.stack(place).is_some_and(|stack| stack.len() >= 256));
        assert!(reader.stack(Place { sp: sp + 16, ..place }).is_none(), "it stands elsewhere");
        assert!(reader.stack(Place { pid: u32::MAX, ..place }).is_none(), "there is no such process");
        assert!(reader.stack(place).is_some());
        drop(end);
        thread.join().unwrap();
    }
}
