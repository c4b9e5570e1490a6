//! The processes of a comparison: started through `/proc/self/exe`, which works where the path of the binary is out of
//! this user's reach, and ended by their own ids, whatever happens.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::stop::{Stop, Woken};

/// A child that speaks JSON lines. Start it from the main thread: a child follows the thread that started it.
pub(crate) struct Part {
    what: String,
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Part {
    /// Starts `tidegate-lab ARGS`.
    pub(crate) fn start(what: String, args: &[String]) -> Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .arg0("tidegate-lab")
            .args(["--parent", &std::process::id().to_string()])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {what}"))?;
        let lines = BufReader::new(child.stdout.take().context("a child with a piped standard output")?);
        Ok(Self { what, child, lines })
    }

    /// Its next line.
    pub(crate) fn line<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = String::new();
        self.lines.read_line(&mut line).with_context(|| format!("read from {}", self.what))?;
        if line.is_empty() {
            let status = self.child.wait().context("wait for a child")?;
            bail!("{} ended early ({status}); its own words stand above", self.what);
        }
        serde_json::from_str(&line).with_context(|| format!("read from {}: {line:?}", self.what))
    }

    /// Its next line, unless a stop is wanted first.
    pub(crate) fn line_unless<T: DeserializeOwned>(&mut self, stop: &Stop) -> Result<T> {
        while self.lines.buffer().is_empty() {
            match stop.wait_or(Some(self.lines.get_ref().as_fd()), None)? {
                Woken::Stop => bail!("interrupted"),
                Woken::Other => break,
                Woken::Time => {}
            }
        }
        self.line()
    }

    /// Asks for a line and takes it.
    pub(crate) fn ask<T: DeserializeOwned>(&mut self) -> Result<T> {
        let stdin = self.child.stdin.as_mut().context("a child with a piped standard input")?;
        stdin.write_all(b"\n").with_context(|| format!("ask {}", self.what))?;
        self.line()
    }

    /// Tells it something as a line of JSON and takes its answer.
    pub(crate) fn tell<T: DeserializeOwned>(&mut self, what: &impl Serialize) -> Result<T> {
        let mut line = serde_json::to_vec(what).context("write JSON")?;
        line.push(b'\n');
        let stdin = self.child.stdin.as_mut().context("a child with a piped standard input")?;
        stdin.write_all(&line).with_context(|| format!("tell {}", self.what))?;
        self.line()
    }

    /// Asks it to stop.
    pub(crate) fn terminate(&self) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("a child's process id")?;
        kill_process(pid, Signal::TERM).with_context(|| format!("stop {}", self.what))
    }

    /// Waits for its end; an end in failure is an error.
    pub(crate) fn wait(&mut self) -> Result<()> {
        let status = self.child.wait().with_context(|| format!("wait for {}", self.what))?;
        if status.success() { Ok(()) } else { bail!("{} failed ({status}); its own words stand above", self.what) }
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait().with_context(|| format!("look after {}", self.what))?.is_some())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // One that has ended already needs no killing, and one that was waited for is not killed again.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.child.kill().and_then(|()| self.child.wait()).ok();
        }
    }
}
