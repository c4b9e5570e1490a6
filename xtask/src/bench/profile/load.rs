//! The load that is profiled, and how much of it is done in a span of time.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::shell;

const SOURCE: &str = include_str!("load.c");

/// Compiles the load, without frame pointers.
pub(super) fn build(folder: &Path) -> Result<PathBuf> {
    let (source, program) = (folder.join("load.c"), folder.join("load"));
    std::fs::write(&source, SOURCE).with_context(|| format!("write {}", source.display()))?;
    let mut gcc = Command::new("gcc");
    gcc.args(["-O2", "-g", "-fomit-frame-pointer", "-pthread", "-o"]).arg(&program).arg(&source);
    shell::must("compile the load", &mut gcc)?;
    Ok(program)
}

/// Where the load stands at one instant.
#[derive(Clone, Copy, Debug)]
struct Mark {
    time_ns: u64,
    work: u64,
    cpu_ns: u64,
}

/// What was done in a span.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    /// Units of work a second of wall time.
    pub(super) per_second: f64,
    /// CPU time a unit, ns.
    pub(super) cpu_ns_per_unit: f64,
}

/// A running load; it ends with this value.
pub(super) struct Load {
    child: Child,
    marks: Arc<Mutex<Vec<Mark>>>,
}

impl Load {
    pub(super) fn start(program: &Path, args: &[String]) -> Result<Self> {
        let mut command = Command::new(program);
        let mut child = command.args(args).stdout(Stdio::piped()).spawn().context("start the load")?;
        let said = BufReader::new(child.stdout.take().context("the load has no output")?);
        let marks: Arc<Mutex<Vec<Mark>>> = Arc::default();
        let kept = Arc::clone(&marks);
        std::thread::Builder::new().name("load".to_owned()).spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                let mut numbers = line.split(' ').filter_map(|n| n.parse().ok());
                if let (Some(time_ns), Some(work), Some(cpu_ns)) = (numbers.next(), numbers.next(), numbers.next()) {
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(Mark { time_ns, work, cpu_ns });
                }
            }
        })?;
        Ok(Self { child, marks })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it run for `span` and says what was done meanwhile.
    #[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
    pub(super) fn observe(&self, span: Duration) -> Result<Done> {
        let newest = || self.marks.lock().unwrap_or_else(PoisonError::into_inner).last().copied();
        let first = newest().context("the load says nothing")?;
        super::rest(span);
        let last = newest().context("the load says nothing")?;
        ensure!(last.time_ns > first.time_ns && last.work > first.work, "the load stands still");
        let (span_ns, work) = ((last.time_ns - first.time_ns) as f64, (last.work - first.work) as f64);
        Ok(Done { per_second: work * 1e9 / span_ns, cpu_ns_per_unit: (last.cpu_ns - first.cpu_ns) as f64 / work })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // One that has ended needs no ending.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
