//! A known number of system calls, and a known mix of reads and writes that succeed and fail. Talks by poll, readv and
//! writev only, so that its own talk is in no count of read, write, getppid or getuid.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Barrier;
use std::thread;

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use serde::Serialize;
use tidegate_client::clock;

use crate::cli::{Call, SyscallLoadArgs};

#[derive(Serialize)]
struct Ready {
    pid: u32,
}

#[derive(Serialize)]
struct Done {
    pid: u32,
    syscall: &'static str,
    calls: u64,
    threads: u64,
    elapsed_ns: u64,
    ns_per_call: f64,
}

#[derive(Default, Serialize)]
struct MixDone {
    pid: u32,
    reads: u64,
    read_errors: u64,
    read_bytes: u64,
    writes: u64,
    write_errors: u64,
    write_bytes: u64,
    elapsed_ns: u64,
}

/// Says who it is, waits for the word, works, says what it did.
pub(crate) fn run(args: &SyscallLoadArgs) -> Result<()> {
    if args.threads == 0 {
        bail!("--threads 0: want at least 1");
    }
    let pid = std::process::id();
    say(&Ready { pid })?;
    if !args.go {
        await_word()?;
    }
    if args.mix {
        say(&mix(args.calls)?)?;
    } else {
        say(&calls(args)?)?;
    }
    if args.hold { await_word() } else { Ok(()) }
}

/// Makes exactly `args.calls` calls. The threads end together, so that they are alive side by side throughout.
#[expect(clippy::cast_precision_loss, reason = "a mean of nanoseconds")]
fn calls(args: &SyscallLoadArgs) -> Result<Done> {
    let SyscallLoadArgs { calls, threads, syscall, .. } = *args;
    let together = Barrier::new(usize::try_from(threads).context("--threads")?);
    let begin = clock::monotonic();
    thread::scope(|scope| {
        for i in 0..threads {
            let share = calls / threads + u64::from(i < calls % threads);
            let together = &together;
            thread::Builder::new().name(format!("lab-calls-{i}")).spawn_scoped(scope, move || {
                together.wait();
                match syscall {
                    Call::Getppid => repeat_getppid(share),
                    Call::Getuid => repeat_getuid(share),
                }
                together.wait();
            })?;
        }
        anyhow::Ok(())
    })?;
    let elapsed_ns = (clock::monotonic() - begin).0;
    Ok(Done {
        pid: std::process::id(),
        syscall: match syscall {
            Call::Getppid => "getppid",
            Call::Getuid => "getuid",
        },
        calls,
        threads,
        elapsed_ns,
        ns_per_call: elapsed_ns as f64 * threads as f64 / calls.max(1) as f64,
    })
}

#[inline(never)]
fn repeat_getppid(times: u64) {
    for _ in 0..times {
        std::hint::black_box(rustix::process::getppid());
    }
}

#[inline(never)]
fn repeat_getuid(times: u64) {
    for _ in 0..times {
        std::hint::black_box(rustix::process::getuid());
    }
}

/// A round: write 100 bytes, read 60, read the other 40, read a directory (fails), write to a descriptor that is open
/// for reading only (fails).
fn mix(rounds: u64) -> Result<MixDone> {
    let (from, to) = rustix::pipe::pipe().context("make a pipe")?;
    let directory = open("/", OFlags::DIRECTORY)?;
    let read_only = open("/dev/null", OFlags::empty())?;
    let mut done = MixDone { pid: std::process::id(), ..MixDone::default() };
    let mut buffer = [0; 128];
    let begin = clock::monotonic();
    for _ in 0..rounds {
        let results = [rustix::io::write(&to, &buffer[..100]), rustix::io::write(&read_only, &buffer[..8])];
        for result in results {
            done.writes += 1;
            done.write_errors += u64::from(result.is_err());
            done.write_bytes += result.unwrap_or(0) as u64;
        }
        let results = [
            rustix::io::read(&from, &mut buffer[..60]),
            rustix::io::read(&from, &mut buffer),
            rustix::io::read(&directory, &mut buffer),
        ];
        for result in results {
            done.reads += 1;
            done.read_errors += u64::from(result.is_err());
            done.read_bytes += result.unwrap_or(0) as u64;
        }
    }
    done.elapsed_ns = (clock::monotonic() - begin).0;
    if done.read_errors != rounds || done.write_errors != rounds || done.read_bytes != done.write_bytes {
        bail!("the mix did not come out as meant: another kernel's rules for read and write?");
    }
    Ok(done)
}

fn open(path: &str, flags: OFlags) -> Result<OwnedFd> {
    openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC | flags, Mode::empty()).with_context(|| format!("open {path}"))
}

pub(super) fn say(value: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(value).context("write JSON")?;
    line.push(b'\n');
    let mut rest = &line[..];
    while !rest.is_empty() {
        let n = rustix::io::writev(std::io::stdout().as_fd(), &[IoSlice::new(rest)]).context("standard output")?;
        rest = &rest[n..];
    }
    Ok(())
}

/// Waits until standard input says something or ends.
pub(crate) fn await_word() -> Result<()> {
    let stdin = std::io::stdin();
    let mut fds = [PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN)];
    while poll(&mut fds, None).is_err_and(|e| e == rustix::io::Errno::INTR) {}
    let mut line = [0; 256];
    rustix::io::readv(stdin.as_fd(), &mut [IoSliceMut::new(&mut line)]).context("standard input")?;
    Ok(())
}
