//! The profilers that are compared: how each is started for the whole host, and how many stacks it delivers whole.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::super::with_tracefs;
use super::meter;
use super::{MEASURE, SETTLE};
use crate::leash::Leash;
use crate::shell::{self, which};

/// Functions that a whole stack of the load leads to.
const ENTRIES: [&str; 3] = ["compute", "read_and_wait", "main"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tool {
    Tidegate,
    TidegateAll,
    PerfFramePointers,
    PerfDwarf,
    ProfileBee,
}

impl Tool {
    pub(super) const ALL: [Self; 5] =
        [Self::Tidegate, Self::PerfFramePointers, Self::PerfDwarf, Self::ProfileBee, Self::TidegateAll];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tidegate => "tidegate agent",
            Self::TidegateAll => "tidegate agent, every kind",
            Self::PerfFramePointers => "perf record -g",
            Self::PerfDwarf => "perf record --call-graph dwarf",
            Self::ProfileBee => "profile-bee --dwarf",
        }
    }

    /// Why it cannot be compared with here.
    pub(super) fn absent(self) -> Option<&'static str> {
        match self {
            Self::Tidegate | Self::TidegateAll => None,
            Self::PerfFramePointers | Self::PerfDwarf => {
                which("perf").is_none().then_some("no `perf`: install Debian's linux-perf")
            }
            Self::ProfileBee => which("probee")
                .is_none()
                .then_some("no `probee`: cargo install profile-bee --locked --no-default-features"),
        }
    }

    pub(super) fn is_ours(self) -> bool {
        matches!(self, Self::Tidegate | Self::TidegateAll)
    }
}

/// Programs and a folder to work in.
pub(super) struct Tools {
    pub(super) tidegate: PathBuf,
    pub(super) folder: PathBuf,
}

/// What came of a recording.
pub(super) struct Delivered {
    /// Stacks that reach the entry of their thread, and all of them; none where it says nothing.
    pub(super) whole: Option<(u64, u64)>,
    /// CPU time after the recording, until there are stacks with names.
    pub(super) after_ns: u64,
}

impl Tools {
    fn data(&self) -> PathBuf {
        self.folder.join("perf.data")
    }

    fn collapsed(&self) -> PathBuf {
        self.folder.join("bee.folded")
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("run").join("api.sock")
    }

    pub(super) fn start(&self, tool: Tool) -> Result<Leash> {
        let mut command = match tool {
            Tool::Tidegate | Tool::TidegateAll => {
                let config = self.folder.join("tidegate.toml");
                let mut text = format!("state = '{}'\n", self.folder.join("state").display());
                if tool == Tool::TidegateAll {
                    text.push_str("[profiles]\nkinds = [\"cpu\", \"offcpu\", \"runq\", \"wakeup\", \"sock\"]\n");
                }
                std::fs::write(&config, text).context("write the agent's configuration")?;
                let mut agent = Command::new(&self.tidegate);
                agent.args(["agent", "--hz", "97", "--config"]).arg(config).arg("--socket").arg(self.socket());
                agent
            }
            Tool::PerfFramePointers | Tool::PerfDwarf => {
                let how = if tool == Tool::PerfDwarf { "dwarf" } else { "fp" };
                let mut perf = Command::new("perf");
                perf.args(["record", "-q", "-a", "-F", "97", "--call-graph", how, "-o"]).arg(self.data());
                perf
            }
            Tool::ProfileBee => {
                // It tells only when its own time is up.
                let length = (SETTLE + MEASURE + Duration::from_secs(2)).as_millis().to_string();
                let mut bee = with_tracefs(Path::new("probee"));
                bee.args(["--dwarf", "true", "-f", "97", "-t", &length, "-o"]).arg(self.collapsed());
                bee
            }
        };
        let log = std::fs::File::create(self.folder.join("tool.log")).context("make a log")?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Leash::start(&mut command)
    }

    /// What the tool delivers of process `pid`, and what it costs to make stacks of what was recorded. Takes the running
    /// tool, because most tell only at their end.
    pub(super) fn deliver(&self, tool: Tool, running: Leash, pid: u32) -> Result<Delivered> {
        let used = meter::read(running.id()).cpu_ns;
        let before = meter::of_ended()?;
        let whole = self.whole(tool, running, pid)?;
        // Ours has its stacks when it is asked: what it costs to make them is in its own CPU time.
        let after_ns = if tool.is_ours() { 0 } else { (meter::of_ended()? - before).saturating_sub(used) };
        Ok(Delivered { whole, after_ns })
    }

    fn whole(&self, tool: Tool, running: Leash, pid: u32) -> Result<Option<(u64, u64)>> {
        match tool {
            Tool::Tidegate | Tool::TidegateAll => {
                let mut ask = Command::new(&self.tidegate);
                ask.args(["flame", "--format", "folded", "-o", "-", "--from", "-10s", "--pid", &pid.to_string()]);
                let text = shell::capture(ask.arg("--socket").arg(self.socket()))?;
                drop(running);
                Ok(Some(of_folded(&text, None)))
            }
            Tool::PerfFramePointers | Tool::PerfDwarf => {
                drop(running);
                let mut script = Command::new("perf");
                // Without looking for debug files elsewhere, and without inlined frames, which would start a program for each address.
                script
                    .env("DEBUGINFOD_URLS", "")
                    .args(["script", "--no-inline", "-F", "pid,ip,sym", "-i"])
                    .arg(self.data());
                Ok(Some(of_script(&shell::capture(&mut script)?, pid)))
            }
            Tool::ProfileBee => {
                running.wait()?;
                let text = read_if_there(&self.collapsed())?;
                Ok(text.map(|text| of_folded(&text, Some("load"))))
            }
        }
    }
}

fn read_if_there(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// Counts folded lines, of those that begin with `comm` if it is given.
fn of_folded(text: &str, comm: Option<&str>) -> (u64, u64) {
    let (mut whole, mut all) = (0, 0);
    for line in text.lines().filter(|line| comm.is_none_or(|comm| line.starts_with(comm))) {
        let Some((stack, count)) = line.rsplit_once(' ') else { continue };
        let count: u64 = count.parse().unwrap_or(0);
        all += count;
        if stack.split(';').any(is_entry) {
            whole += count;
        }
    }
    (whole, all)
}

/// Counts what `perf script` printed of a process: a paragraph a sample.
fn of_script(text: &str, pid: u32) -> (u64, u64) {
    let (mut whole, mut all) = (0, 0);
    let is_of = |sample: &&str| sample.split_whitespace().next().and_then(|first| first.parse().ok()) == Some(pid);
    for sample in text.split("\n\n").filter(is_of) {
        all += 1;
        if sample.lines().skip(1).any(|line| line.trim().split(' ').nth(1).is_some_and(is_entry)) {
            whole += 1;
        }
    }
    (whole, all)
}

fn is_entry(name: &str) -> bool {
    let name = name.split('+').next().unwrap_or(name).trim_end_matches("_[k]");
    ENTRIES.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_is_whole_when_it_leads_to_the_entry_of_its_thread() {
        let folded = "load;clone3;compute;leaf 7\nload;leaf 2\nperf;main 5\nload;computed 1\n";
        assert_eq!(of_folded(folded, Some("load")), (7, 10));
        let script = "7 \n\t  55d leaf\n\t 66d compute\n\n7 \n\t 77d leaf\n\n8 \n\t 66d compute\n\n";
        assert_eq!(of_script(script, 7), (1, 2));
    }
}
