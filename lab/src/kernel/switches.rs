//! Pairs of threads that hand a byte to and fro: each hand-over is a switch. At a set rate, or as fast as they can; then
//! the time per switch is what a look at every switch makes longer.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::Serialize;
use tidegate_client::{Nanos, clock};

use super::syscalls::{await_word, say};
use crate::cli::SwitchLoadArgs;
use crate::time::{sleep, sleep_until};

#[derive(Serialize)]
struct Ready {
    pid: u32,
}

#[derive(Serialize)]
struct Done {
    pid: u32,
    threads: u64,
    rounds: u64,
    switches: u64,
    elapsed_ns: u64,
    cpu_ns: u64,
    switches_per_s: f64,
    /// Of the whole process: what a switch costs with all that belongs to it.
    cpu_ns_per_switch: f64,
    /// Only where the pairs go as fast as they can does time passed say anything.
    ns_per_round: f64,
}

/// Says who it is, waits for the word, works, says what it did.
#[expect(clippy::cast_precision_loss, reason = "means of nanoseconds")]
pub(crate) fn run(args: &SwitchLoadArgs) -> Result<()> {
    let pid = std::process::id();
    let pairs = args.pairs.max(1);
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let (stop, rounds) = (&stop, &rounds);
        say(&Ready { pid })?;
        if !args.go {
            await_word()?;
        }
        for number in 0..pairs {
            pair(scope, args, number, stop, rounds)?;
        }
        // Threads come to life before the count begins.
        sleep(Nanos::from_millis(300));
        let before = (clock::monotonic(), usage()?, rounds.load(Ordering::Relaxed));
        sleep(Nanos::from_millis(args.seconds.saturating_mul(1000)));
        let after = (clock::monotonic(), usage()?, rounds.load(Ordering::Relaxed));
        stop.store(true, Ordering::Relaxed);
        let elapsed_ns = (after.0 - before.0).0;
        let (switches, cpu_ns, rounds) = (after.1.0 - before.1.0, after.1.1 - before.1.1, after.2 - before.2);
        say(&Done {
            pid,
            threads: 2 * pairs,
            rounds,
            switches,
            elapsed_ns,
            cpu_ns,
            switches_per_s: switches as f64 * 1e9 / elapsed_ns as f64,
            cpu_ns_per_switch: cpu_ns as f64 / switches.max(1) as f64,
            ns_per_round: elapsed_ns as f64 * pairs as f64 / rounds.max(1) as f64,
        })
    })
}

/// Switches and CPU time of this process so far.
fn usage() -> Result<(u64, u64)> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).context("getrusage")?;
    let switches = usage.voluntary_context_switches() + usage.involuntary_context_switches();
    let cpu = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok((u64::try_from(switches).unwrap_or(0), u64::try_from(cpu).unwrap_or(0) * 1000))
}

/// A pair shares a CPU: then each hand-over is one switch, and none is a wakeup of an idle CPU.
fn pair<'s>(
    scope: &'s thread::Scope<'s, '_>,
    args: &SwitchLoadArgs,
    number: u64,
    stop: &'s AtomicBool,
    rounds: &'s AtomicU64,
) -> Result<()> {
    let (to_echo, from_first) = pipe()?;
    let (to_first, from_echo) = pipe()?;
    let cpus = thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let pinned = move || {
        let mut cpu = CpuSet::new();
        cpu.set(usize::try_from(number % cpus).unwrap_or(0));
        // Where it may not be pinned it still works, with more wakeups.
        let _pinned = sched_setaffinity(None, &cpu);
    };
    let echo = move || {
        pinned();
        let mut byte = [0];
        while rustix::io::read(&to_echo, &mut byte).is_ok_and(|n| n == 1) {
            if rustix::io::write(&from_echo, &byte).is_err() {
                return;
            }
        }
    };
    // A round is two hand-overs, and a paced one sleeps and wakes besides.
    let span = Nanos((4_000_000_000 * args.pairs.max(1)).checked_div(args.rate).unwrap_or(0));
    let start = clock::monotonic() + Nanos(span.0 / args.pairs.max(1) * number);
    let first = move || {
        pinned();
        let mut due = start;
        let mut byte = [0];
        while !stop.load(Ordering::Relaxed) {
            if span.0 > 0 {
                due = due + span;
                sleep_until(due);
            }
            let sent = rustix::io::write(&from_first, &[1]).is_ok();
            if !sent || rustix::io::read(&to_first, &mut byte).is_err() {
                return;
            }
            rounds.fetch_add(1, Ordering::Relaxed);
        }
    };
    thread::Builder::new().name(format!("lab-echo-{number}")).spawn_scoped(scope, echo).context("start a thread")?;
    thread::Builder::new().name(format!("lab-first-{number}")).spawn_scoped(scope, first).context("start a thread")?;
    Ok(())
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe().context("make a pipe")
}
