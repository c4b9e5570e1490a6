//! A command that is watched from its first instruction: started as a process that stops itself before it becomes the
//! command, let go when the probes are in place. Its output and its exit code are its own.

use std::ffi::OsString;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus};

use anyhow::{Context as _, ensure};
use rustix::process::{Signal, WaitId, WaitIdOptions, WaitOptions, getpid, kill_process, waitid, waitpid};

use crate::units::Pid;

/// Name of the hidden command that the process runs before it becomes the one that was asked for.
pub const LAUNCHER: &str = "stop-and-exec";

/// Exit codes of shells: not found, and not executable.
const NOT_FOUND: i32 = 127;
const NOT_EXECUTABLE: i32 = 126;

/// A command, stopped or running.
#[derive(Debug)]
pub struct Launched {
    child: Child,
    name: String,
    status: Option<ExitStatus>,
}

impl Launched {
    /// Starts a process that has stopped itself when this returns.
    pub fn stopped(command: &[OsString]) -> anyhow::Result<Self> {
        let name = command.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let what = || format!("start {name}");
        let child = Command::new("/proc/self/exe").arg(LAUNCHER).arg("--").args(command).spawn().with_context(what)?;
        let launched = Self { child, name: name.clone(), status: None };
        let pid = launched.raw_pid().with_context(what)?;
        let found = waitpid(Some(pid), WaitOptions::UNTRACED).with_context(what)?;
        ensure!(found.is_some_and(|(_, status)| status.stopped()), "start {name}: it ended before it was let go");
        Ok(launched)
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid(self.child.id())
    }

    /// What it was called by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Exit code as shells give it; `None` while it runs.
    pub fn code(&self) -> Option<u8> {
        let status = self.status?;
        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal))?;
        Some(u8::try_from(code).unwrap_or(u8::MAX))
    }

    /// Lets it become the command.
    pub fn let_go(&self) -> anyhow::Result<()> {
        kill_process(self.raw_pid()?, Signal::CONT).with_context(|| format!("let {} go", self.name))
    }

    /// Whether it has ended; it stays there until it is reaped.
    pub fn has_ended(&self) -> anyhow::Result<bool> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        let found = waitid(WaitId::Pid(self.raw_pid()?), options).with_context(|| format!("wait for {}", self.name))?;
        Ok(found.is_some_and(|status| status.exited() || status.killed() || status.dumped()))
    }

    /// Takes its exit code, if it has ended.
    pub fn reap(&mut self) -> anyhow::Result<()> {
        self.status = self.child.try_wait().with_context(|| format!("wait for {}", self.name))?;
        Ok(())
    }

    fn raw_pid(&self) -> anyhow::Result<rustix::process::Pid> {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        pid.with_context(|| format!("{} has no process number", self.name))
    }
}

/// What the process does: stops, and becomes the command when it is let go. Returns the exit code of a failure.
pub fn stop_and_exec(command: &[OsString]) -> (anyhow::Error, u8) {
    let Some((name, arguments)) = command.split_first() else {
        return (anyhow::anyhow!("no command was given after --"), 2);
    };
    if let Err(errno) = kill_process(getpid(), Signal::STOP) {
        return (anyhow::anyhow!("stop before {}: {errno}", name.to_string_lossy()), 1);
    }
    let cause = Command::new(name).args(arguments).exec();
    let code = if cause.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE };
    let error = anyhow::Error::new(cause).context(format!("run {}", name.to_string_lossy()));
    (error, u8::try_from(code).unwrap_or(1))
}
