//! Keeps a symbolizer: questions in, answers out. Starts one when it is needed, watches its time, replaces it when it dies,
//! and remembers which file it died of. Never waits for longer than the limits say, and never believes an answer that
//! was not asked for.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{PidfdFlags, pidfd_open};

use super::stats::Stats;
use super::wire::{Answer, Ask, Confinement, FileKey, Found, MOST_PLACES, Wish, receive, send};
use crate::source::clock::monotonic;
use crate::units::{Nanos, Pid};

static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Tells once which program has the command `symbolizer`. The binary says that it is itself; whoever uses the library in
/// another program has to say which one.
pub fn set_program(program: impl Into<PathBuf>) {
    if PROGRAM.set(program.into()).is_err() {
        tracing::debug!("the program of the symbolizer was told before, and stays");
    }
}

/// What a symbolizer may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// CPU time for one question.
    pub cpu: Duration,
    /// Time for one question on the wall: a busy host is slow, and a symbolizer that sleeps uses no CPU.
    pub wall: Duration,
    /// Symbolizers that may die in a minute; afterwards there is none for the rest of it.
    pub deaths_a_minute: usize,
    /// How long a file that one died of is left alone.
    pub shun: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu: Duration::from_secs(10),
            wall: Duration::from_mins(1),
            deaths_a_minute: 10,
            shun: Duration::from_mins(10),
        }
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// None can be had now; later perhaps.
    #[error("no symbolizer: {0}")]
    NotNow(String),
    /// The file is to blame, and is left alone for a while.
    #[error("the symbolizer {0}")]
    BadFile(String),
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Names, and why debug information was done without, if it was.
    Names(Vec<Found>, Option<String>),
    /// Ask again with the debug file, or say that there is none.
    WantsDebug(Wish),
    /// Ask again with the shared debug file, or say that there is none.
    WantsShared(Wish),
}

/// Keeps a symbolizer.
#[derive(Debug)]
pub struct Keeper {
    program: Option<PathBuf>,
    limits: Limits,
    running: Option<Running>,
    deaths: VecDeque<Nanos>,
    bad: BTreeMap<FileKey, Nanos>,
    /// Why the last attempt to start one failed, and when.
    unstartable: Option<(Nanos, String)>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    socket: OwnedFd,
}

/// Files that are remembered as bad.
const MOST_BAD: usize = 4096;
/// Time for a symbolizer to start and confine itself.
const START: Duration = Duration::from_secs(10);
/// How often its CPU time is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// No time at all.
const NOTHING: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
/// Time for one that has closed its socket to be gone.
const GRACE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// After a start that failed, none is tried for so long.
const RETRY: Nanos = Nanos::from_secs(10);

impl Keeper {
    /// None is started yet.
    pub fn new(program: Option<PathBuf>, limits: Limits) -> Self {
        Self { program, limits, running: None, deaths: VecDeque::new(), bad: BTreeMap::new(), unstartable: None }
    }

    /// With the program that [`set_program`] told.
    pub fn of_this_program() -> Self {
        Self::new(PROGRAM.get().cloned(), Limits::default())
    }

    /// Process of the symbolizer, if one is running.
    pub fn pid(&self) -> Option<Pid> {
        self.running.as_ref().map(|running| Pid(running.child.id()))
    }

    /// Whether a file is left alone because a symbolizer died of it.
    pub fn shuns(&self, key: &FileKey) -> bool {
        let shun = nanos(self.limits.shun);
        self.bad.get(key).is_some_and(|since| monotonic().since(*since) < shun)
    }

    /// Lets go of one that has ended by itself.
    pub fn reap(&mut self) {
        if self.running.as_mut().is_some_and(|running| !matches!(running.child.try_wait(), Ok(None))) {
            self.running = None;
        }
    }

    /// Starts one, if none is running, and tells how it is confined.
    pub fn start(&mut self, stats: &mut Stats) -> Result<(), NoAnswer> {
        // One that ended by itself, because nobody asked or because it had grown, has left nothing undone.
        self.reap();
        if self.running.is_some() {
            return Ok(());
        }
        let now = monotonic();
        while self.deaths.front().is_some_and(|death| now.since(*death) >= Nanos::from_secs(60)) {
            self.deaths.pop_front();
        }
        if self.deaths.len() >= self.limits.deaths_a_minute {
            let why = format!("{} died in the last minute", self.deaths.len());
            return Err(NoAnswer::NotNow(why));
        }
        if let Some((at, why)) = &self.unstartable
            && now.since(*at) < RETRY
        {
            return Err(NoAnswer::NotNow(why.clone()));
        }
        match self.spawn() {
            Ok((running, confinement)) => {
                stats.started += 1;
                stats.confinement = Some(confinement);
                stats.unstartable = None;
                self.unstartable = None;
                self.running = Some(running);
                Ok(())
            }
            Err(why) => {
                tracing::warn!(%why, "user frames have no names");
                stats.unstartable = Some(why.clone());
                self.unstartable = Some((now, why.clone()));
                Err(NoAnswer::NotNow(why))
            }
        }
    }

    fn spawn(&self) -> Result<(Running, Confinement), String> {
        let program =
            self.program.as_deref().ok_or("this program cannot be its own symbolizer (use the tidegate binary)")?;
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        let (ours, theirs) = pair.map_err(|errno| format!("make its socket: {errno}"))?;
        let mut command = Command::new(program);
        command.arg("symbolizer").env_clear().current_dir("/");
        command.stdin(theirs).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|why| format!("start {}: {why}", program.display()))?;
        // Standard input of the child was moved into it; only the copy in `command` is left here.
        drop(command);
        let mut running = Running { child, socket: ours };
        match running.wait(START, START).and_then(|()| receive::<Answer>(&running.socket)) {
            Ok(Some((Answer::Ready(confinement), _))) => Ok((running, confinement)),
            Ok(Some((Answer::Failed(why), _))) => Err(format!("it could not confine itself: {why}")),
            Ok(_) => Err(format!("start {}: it ended before it was ready", program.display())),
            Err(why) => Err(format!("start {}: {why}", program.display())),
        }
    }

    /// Asks, about the file `key`, whose descriptors are `descriptors`.
    pub fn ask(
        &mut self,
        key: FileKey,
        ask: &Ask,
        descriptors: &[BorrowedFd<'_>],
        stats: &mut Stats,
    ) -> Result<Reply, NoAnswer> {
        if self.shuns(&key) {
            return Err(NoAnswer::BadFile("died of it not long ago".to_owned()));
        }
        stats.asked += 1;
        // One that ends by itself just now is replaced once without anybody being to blame.
        for last_try in [false, true] {
            self.start(stats)?;
            let Some(mut running) = self.running.take() else { break };
            match running.ask(ask, descriptors, self.limits) {
                Ok(Answered::Reply(reply)) => {
                    self.running = Some(running);
                    return Ok(reply);
                }
                Ok(Answered::Failed(why)) => {
                    self.running = Some(running);
                    stats.unreadable += 1;
                    self.note_bad(key);
                    return Err(NoAnswer::BadFile(format!("cannot read it: {why}")));
                }
                Err(cause) => {
                    let ended = running.end();
                    if ended.is_some_and(|status| status.success()) && !last_try {
                        continue;
                    }
                    let cause = ended.map_or_else(|| cause.to_string(), |status| format!("{cause} ({status})"));
                    stats.died += 1;
                    self.deaths.push_back(monotonic());
                    self.note_bad(key);
                    tracing::warn!(%cause, ?key, "the symbolizer died of a file, whose frames stay module and offset");
                    return Err(NoAnswer::BadFile(format!("died of it: {cause}")));
                }
            }
        }
        Err(NoAnswer::NotNow("it ends before it answers".to_owned()))
    }

    fn note_bad(&mut self, key: FileKey) {
        if self.bad.len() >= MOST_BAD {
            let now = monotonic();
            let shun = nanos(self.limits.shun);
            self.bad.retain(|_, since| now.since(*since) < shun);
        }
        // A host that makes thousands of bad files gets the oldest forgotten.
        if self.bad.len() >= MOST_BAD
            && let Some(oldest) = self.bad.iter().min_by_key(|(_, since)| **since).map(|(key, _)| *key)
        {
            self.bad.remove(&oldest);
        }
        self.bad.insert(key, monotonic());
    }
}

enum Answered {
    Reply(Reply),
    Failed(String),
}

impl Running {
    fn ask(&mut self, ask: &Ask, descriptors: &[BorrowedFd<'_>], limits: Limits) -> io::Result<Answered> {
        send(&self.socket, ask, descriptors)?;
        let places = match ask {
            Ask::Elf { offsets, .. } => offsets,
            Ask::PerfMap { addresses, .. } => addresses,
        };
        let (mut all, mut without): (Vec<Found>, _) = (Vec::new(), None);
        loop {
            self.wait(limits.cpu, limits.wall)?;
            let Some((answer, _)) = receive::<Answer>(&self.socket)? else {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended without an answer"));
            };
            let (found, last) = match answer {
                Answer::Part(found) => (found, false),
                Answer::Done(found, why) => {
                    without = why;
                    (found, true)
                }
                Answer::WantsDebug(wish) => return Ok(Answered::Reply(Reply::WantsDebug(wish))),
                Answer::WantsShared(wish) => return Ok(Answered::Reply(Reply::WantsShared(wish))),
                Answer::Failed(why) => return Ok(Answered::Failed(why)),
                Answer::Ready(_) => return Err(lie("it is ready twice")),
            };
            if found.is_empty() && !last {
                return Err(lie("it says nothing, and more of it"));
            }
            for one in found {
                let asked = places.get(all.len()).ok_or_else(|| lie("it answers more than was asked"))?;
                let within = (one.begin..one.end).contains(asked)
                    && one.function.is_none_or(|(begin, end)| (begin..end).contains(asked));
                if !within || all.len() >= MOST_PLACES {
                    return Err(lie("it answers what was not asked"));
                }
                all.push(one);
            }
            if last {
                return Ok(Answered::Reply(Reply::Names(all, without)));
            }
        }
    }

    /// Waits until something can be read.
    fn wait(&mut self, cpu: Duration, wall: Duration) -> io::Result<()> {
        let begun = monotonic();
        let used = self.cpu_time();
        loop {
            let mut ready = [PollFd::new(&self.socket, PollFlags::IN)];
            let look = Timespec { tv_sec: 0, tv_nsec: i64::from(LOOK.subsec_nanos()) };
            match poll(&mut ready, Some(&look)) {
                Ok(n) if n > 0 => return Ok(()),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            if self.cpu_time().saturating_sub(used) > cpu {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "it computes without end"));
            }
            if monotonic().since(begun) > nanos(wall) {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not answer"));
            }
        }
    }

    fn cpu_time(&self) -> Duration {
        let stat =
            i32::try_from(self.child.id()).ok().and_then(|pid| procfs::process::Process::new(pid).ok()?.stat().ok());
        let ticks = stat.map_or(0, |stat| stat.utime + stat.stime);
        Duration::from_millis(ticks.saturating_mul(1000) / procfs::ticks_per_second().max(1))
    }

    /// Ends it for good, and tells how it ended.
    fn end(mut self) -> Option<ExitStatus> {
        // An end of file is seen a moment before the process can be waited for; one that only closed its socket is ended.
        let process = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        let process = process.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        if let Some(process) = process {
            let mut ended = [PollFd::new(&process, PollFlags::IN)];
            let hung_up = poll(&mut [PollFd::new(&self.socket, PollFlags::HUP)], Some(&NOTHING)).is_ok_and(|n| n > 0);
            if let Err(errno) = poll(&mut ended, Some(if hung_up { &GRACE } else { &NOTHING })) {
                tracing::debug!(%errno, "wait for a symbolizer");
            }
        }
        match self.child.kill().and_then(|()| self.child.wait()) {
            Ok(status) => Some(status),
            Err(cause) => {
                tracing::debug!(%cause, "end a symbolizer");
                None
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Its socket closes with this value, too late for somebody who waits for it.
        if matches!(self.child.try_wait(), Ok(None))
            && let Err(cause) = self.child.kill().and_then(|()| self.child.wait())
        {
            tracing::debug!(%cause, "end a symbolizer");
        }
    }
}

fn lie(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn nanos(duration: Duration) -> Nanos {
    Nanos(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}
