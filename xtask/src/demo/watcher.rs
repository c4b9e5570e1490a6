//! What the agent does while the laboratory runs, seen over its socket as anybody could: its pipelines, every decision,
//! and one flame graph taken while the tuned pipeline still lives. Never asks more than twice a second.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;

use super::http;
use crate::leash::Leash;
use crate::ui::Stopwatch;

const PERIOD: Duration = Duration::from_millis(500);

/// A pipeline as the agent lists it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Pipeline {
    pub(crate) name: String,
    pub(crate) pid: u32,
    registration: Registration,
}

#[derive(Clone, Debug, Deserialize)]
struct Registration {
    knobs: Knobs,
}

#[derive(Clone, Debug, Deserialize)]
struct Knobs {
    batch_bytes: Range,
    flush_interval_us: Range,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Range {
    min: u64,
    max: u64,
}

/// A decision as the agent tells it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Decision {
    pub(crate) sequence: u64,
    pub(crate) time_ns: u64,
    pub(crate) applied: String,
    pub(crate) batch_bytes: u64,
    pub(crate) flush_interval_us: u64,
    pub(crate) from_batch_bytes: u64,
    pub(crate) from_flush_interval_us: u64,
    pub(crate) reason: String,
    pub(crate) explanation: String,
}

/// What was seen of one pipeline.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) pipeline: Pipeline,
    /// By sequence number.
    pub(crate) decisions: BTreeMap<u64, Decision>,
}

impl Seen {
    /// Decisions that left the bounds which the pipeline gave.
    pub(crate) fn out_of_bounds(&self) -> usize {
        let Knobs { batch_bytes, flush_interval_us } = &self.pipeline.registration.knobs;
        let within = |range: &Range, value| (range.min..=range.max).contains(&value);
        let fits =
            |d: &&Decision| !within(batch_bytes, d.batch_bytes) || !within(flush_interval_us, d.flush_interval_us);
        self.decisions.values().filter(fits).count()
    }
}

/// How to take the flame graph.
pub(crate) struct Flame {
    /// The agent's own binary.
    pub(crate) tidegate: PathBuf,
    pub(crate) file: PathBuf,
    /// How long the pipeline shall have lived.
    pub(crate) after: Duration,
}

/// All that was seen.
pub(crate) struct Witness {
    pub(crate) pipelines: Vec<Seen>,
    /// Where the flame graph lies, or why there is none.
    pub(crate) flame: Result<PathBuf>,
}

/// Watches in a thread of its own until it is asked what it saw.
pub(crate) struct Watcher {
    stop: SyncSender<()>,
    thread: JoinHandle<Witness>,
}

impl Watcher {
    pub(crate) fn start(socket: PathBuf, flame: Flame) -> Result<Self> {
        let (stop, stopped) = sync_channel(1);
        let watch = move || Watch { socket, flame, seen: BTreeMap::new(), taken: None }.run(&stopped);
        let thread = std::thread::Builder::new().name("watcher".to_owned()).spawn(watch).context("start a thread")?;
        Ok(Self { stop, thread })
    }

    pub(crate) fn finish(self) -> Result<Witness> {
        // A watcher that has ended by itself hears nothing, and needs not to.
        self.stop.send(()).ok();
        self.thread.join().map_err(|_panic| anyhow!("the watcher of the agent died"))
    }
}

struct Watch {
    socket: PathBuf,
    flame: Flame,
    /// By name and process: a pipeline that starts again is another one.
    seen: BTreeMap<(String, u32), (Stopwatch, Seen)>,
    taken: Option<Result<PathBuf>>,
}

impl Watch {
    fn run(mut self, stopped: &Receiver<()>) -> Witness {
        while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(PERIOD) {
            // One unanswered question is no loss: decisions are asked for by number.
            self.look().ok();
        }
        self.look().ok();
        let none = || Err(anyhow!("no tuned pipeline lived for {} s", self.flame.after.as_secs()));
        let flame = self.taken.take().unwrap_or_else(none);
        Witness { pipelines: self.seen.into_values().map(|(_, seen)| seen).collect(), flame }
    }

    fn look(&mut self) -> Result<()> {
        let pipelines: Vec<Pipeline> = serde_json::from_value(http::get(&self.socket, "/v1/pipelines")?)?;
        for pipeline in pipelines {
            let key = (pipeline.name.clone(), pipeline.pid);
            let fresh = Seen { pipeline, decisions: BTreeMap::new() };
            let (since, seen) = self.seen.entry(key).or_insert_with(|| (Stopwatch::start(), fresh));
            let after = seen.decisions.keys().next_back().map(|last| format!("?after={last}")).unwrap_or_default();
            let path = format!("/v1/pipelines/{}/decisions{after}", seen.pipeline.name);
            let news: Vec<Decision> = serde_json::from_value(http::get(&self.socket, &path)?)?;
            seen.decisions.extend(news.into_iter().map(|decision| (decision.sequence, decision)));
            let is_tuned = seen.decisions.values().any(|decision| decision.applied == "applied");
            if is_tuned && self.taken.is_none() && since.elapsed() >= self.flame.after {
                self.taken = Some(take(&self.flame, &self.socket, seen.pipeline.pid));
            }
        }
        Ok(())
    }
}

fn take(flame: &Flame, socket: &Path, pid: u32) -> Result<PathBuf> {
    let mut command = Command::new(&flame.tidegate);
    command.args(["flame", "--from", "-60s", "--pid"]).arg(pid.to_string());
    command.arg("-o").arg(&flame.file).arg("--socket").arg(socket);
    let (mut reader, writer) = std::io::pipe().context("make a pipe")?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer);
    let leash = Leash::start(&mut command)?;
    // The command holds an end of the pipe, which has to close before what was said is whole. It is said here, after
    // the end, and never amid the laboratory's table.
    drop(command);
    let mut said = String::new();
    reader.read_to_string(&mut said).context("read what `tidegate flame` says")?;
    let status = leash.wait()?;
    if !status.success() {
        return Err(anyhow!("`tidegate flame --pid {pid}` failed ({status}): {}", said.trim()));
    }
    Ok(flame.file.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_beyond_the_bounds_is_counted() {
        let knobs = serde_json::json!({
            "batch_bytes": {"min": 1, "max": 100, "default": 9}, "flush_interval_us": {"min": 5, "max": 50, "default": 9}
        });
        let listed = serde_json::json!({"name": "p", "pid": 7, "registration": {"knobs": knobs}, "more": 1});
        let decision = |sequence: u64, batch: u64, interval: u64| -> (u64, Decision) {
            let told = serde_json::json!({
                "sequence": sequence, "time_ns": 1, "applied": "applied", "batch_bytes": batch, "reason": "r",
                "flush_interval_us": interval, "from_batch_bytes": 1, "from_flush_interval_us": 1, "explanation": "e",
            });
            (sequence, serde_json::from_value(told).expect("it is whole"))
        };
        let decisions = BTreeMap::from([decision(1, 100, 5), decision(2, 101, 5), decision(3, 1, 4)]);
        let seen = Seen { pipeline: serde_json::from_value(listed).expect("it is whole"), decisions };
        assert_eq!(seen.out_of_bounds(), 2);
    }
}
