//! Programs that must not outlive this one: each is started in a process group of its own, and the whole group ends
//! with its first process, when its leash is dropped, or when a signal asks xtask to end. Never kills by name.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::shell;
use crate::ui;

/// How long a program may take to end in its own way.
const GRACE: Duration = Duration::from_secs(5);

/// Groups that are running now.
static PACK: Mutex<Pack> = Mutex::new(Pack { groups: Vec::new(), call: Call::None });

struct Pack {
    groups: Vec<Pid>,
    call: Call,
}

/// Whether somebody asked xtask to end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    None,
    End,
}

fn pack() -> MutexGuard<'static, Pack> {
    // A list of numbers is whole whatever its last holder was doing.
    PACK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on SIGINT, SIGTERM and SIGHUP end every leashed program first; xtask then ends by itself, and tidies up on
/// its way. A second signal does not wait for them.
pub(crate) fn heed_signals() -> Result<()> {
    let (mut hears, calls) = UnixStream::pair().context("make a pair of sockets")?;
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        let end = calls.try_clone().context("share a socket")?;
        signal_hook::low_level::pipe::register(signal, end).context("watch for signals")?;
    }
    let attend = move || {
        // The other end lives as long as the process: this waits for a signal.
        if hears.read_exact(&mut [0]).is_err() {
            return;
        }
        ui::note("interrupted: ending what was started");
        signal_all(Signal::TERM, Call::End);
        // Either a second signal or the end of the time that programs are given.
        let patience = hears.set_read_timeout(Some(GRACE)).and_then(|()| hears.read_exact(&mut [0]));
        drop(patience);
        signal_all(Signal::KILL, Call::End);
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(attend).context("start a thread")?;
    Ok(())
}

/// Whether a signal asked xtask to end.
pub(crate) fn is_called_off() -> bool {
    pack().call == Call::End
}

fn signal_all(signal: Signal, call: Call) {
    let mut pack = pack();
    pack.call = call;
    for group in &pack.groups {
        send(*group, signal);
    }
}

/// A group that is gone already needs no signal.
fn send(group: Pid, signal: Signal) {
    kill_process_group(group, signal).ok();
}

/// A running program and all that it starts.
pub(crate) struct Leash {
    child: Child,
    group: Pid,
    shown: String,
}

impl Leash {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let shown = shell::show(command);
        // Held while starting, so that a signal finds either no program or a leashed one.
        let mut pack = pack();
        if pack.call == Call::End {
            bail!("interrupted before `{shown}`");
        }
        let child = command.process_group(0).spawn().with_context(|| format!("run `{shown}`"))?;
        let group = Pid::from_child(&child);
        pack.groups.push(group);
        Ok(Self { child, group, shown })
    }

    /// Its standard input and output, where both are pipes.
    pub(crate) fn take_pipes(&mut self) -> Option<(ChildStdin, ChildStdout)> {
        self.child.stdin.take().zip(self.child.stdout.take())
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end; what the program started and left behind ends with it.
    pub(crate) fn wait(mut self) -> Result<ExitStatus> {
        self.await_end(WaitIdOptions::empty())?;
        self.reap()
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> Result<bool> {
        self.await_end(WaitIdOptions::NOHANG)
    }

    /// Lets it run on after xtask has ended.
    pub(crate) fn release(self) -> u32 {
        pack().groups.retain(|group| *group != self.group);
        let id = self.child.id();
        std::mem::forget(self);
        id
    }

    /// Looks without reaping: while the dead leader is kept, nobody else can get the number of its group.
    fn await_end(&self, options: WaitIdOptions) -> Result<bool> {
        loop {
            let options = options | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            match waitid(WaitId::Pid(self.group), options) {
                Ok(status) => return Ok(status.is_some()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).with_context(|| format!("wait for `{}`", self.shown)),
            }
        }
    }

    fn reap(&mut self) -> Result<ExitStatus> {
        send(self.group, Signal::KILL);
        pack().groups.retain(|group| *group != self.group);
        self.child.wait().with_context(|| format!("wait for `{}`", self.shown))
    }

    fn end(&mut self) -> Result<()> {
        if !pack().groups.contains(&self.group) {
            return Ok(());
        }
        send(self.group, Signal::TERM);
        let ended = poll(GRACE, || self.has_ended())?;
        if !ended {
            send(self.group, Signal::KILL);
        }
        self.reap().map(drop)
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            ui::note(format_args!("{error:#}"));
        }
    }
}

/// Asks every 20 ms until the answer is yes or the time is up; says which.
#[expect(clippy::disallowed_methods, reason = "waits for a real process, which sends no event")]
pub(crate) fn poll(limit: Duration, mut done: impl FnMut() -> Result<bool>) -> Result<bool> {
    let watch = ui::Stopwatch::start();
    while !done()? {
        if watch.elapsed() > limit {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    fn is_alive(pid: &str) -> bool {
        // A process that waits to be reaped by init is gone for our purposes.
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    }

    fn start(script: &str) -> (Leash, String) {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdout(Stdio::piped());
        let mut leash = Leash::start(&mut command).expect("sh runs");
        let mut pid = String::new();
        let out = leash.child.stdout.take().expect("it was asked for");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut pid).expect("sh speaks");
        (leash, pid.trim().to_owned())
    }

    #[test]
    fn what_a_program_leaves_behind_ends_with_it() {
        let (leash, grandchild) = start("sleep 60 >/dev/null & echo $!");
        assert!(leash.wait().expect("it ends").success());
        assert!(poll(GRACE, || Ok(!is_alive(&grandchild))).expect("it is polled"), "{grandchild} lives on");
    }

    #[test]
    fn a_dropped_leash_ends_the_whole_group() {
        let (leash, grandchild) = start("sleep 60 >/dev/null & echo $!; wait");
        drop(leash);
        assert!(poll(GRACE, || Ok(!is_alive(&grandchild))).expect("it is polled"), "{grandchild} lives on");
    }
}
