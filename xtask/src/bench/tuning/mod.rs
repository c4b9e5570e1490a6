//! The proof of the tuner: an agent as root that records, the laboratory as an ordinary user, verdicts and a report, and
//! at the end the recording replayed against the decisions that were seen. Judges nothing but the replay.

mod decisions;

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::{Bench, Scale};
use crate::demo::room::{Room, User};
use crate::demo::stage::{self, Built};
use crate::leash::{self, Leash};
use crate::shell;
use crate::ui;
use decisions::Witness;

/// What the whole proof may take, building included.
const FULL: Duration = Duration::from_hours(1);
const QUICK: Duration = Duration::from_mins(6);
/// The report's files.
const FILES: [&str; 3] = ["tuning.json", "tuning.md", "tuning.html"];

/// Which sinks the proof is about, as the laboratory names them.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Sinks {
    /// File and fsync
    File,
    /// Planted delays over TCP, the changing plant and the highest rates
    Tcp,
    /// The database server `postgres`
    Postgres,
    /// Redis
    Redis,
    /// File and TCP: what the promises are about
    Promises,
    /// Everything
    All,
}

impl Sinks {
    fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Tcp => "tcp",
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::Promises => "promises",
            Self::All => "all",
        }
    }
}

pub(crate) fn run(bench: &Bench<'_>) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "bench tuning starts an agent that loads probes: run it as root (sudo -E env PATH=\"$PATH\" cargo xtask bench \
         tuning)"
    );
    let mut cargo = bench.workspace.cargo();
    let packages = ["build", "--release", "-p", "tidegate", "-p", "tidegate-lab"];
    shell::must("build tidegate and tidegate-lab in release", cargo.args(packages))?;
    let watch = ui::Stopwatch::start();
    let release = bench.workspace.target.join("release");
    let built = Built { tidegate: release.join("tidegate"), lab: release.join("tidegate-lab") };
    let user = User::ordinary()?;
    let room = Room::make(user)?;
    let recording = room.of_agent().join("tuning.events");
    // Profiles are no part of this proof, and would be most of the recording.
    let more: Vec<OsString> = ["--no-history", "--no-cpu", "--record"].map(OsString::from).into();
    let agent = stage::start_agent(&built, &room, &[more, vec![recording.clone().into()]].concat())?;
    let witness = Witness::start(room.socket())?;
    let lab = start_lab(bench, &built, &room, user)?;
    let status = lab.wait()?;
    let seen = witness.finish()?;
    if leash::is_called_off() {
        bail!("interrupted");
    }
    if !status.success() {
        bail!("the laboratory failed ({status}); the agent said:\n{}", stage::tail(&room.agent_log()));
    }
    // Its recording is whole once it has ended.
    drop(agent);
    let replayed = replay(&built, &recording)?;
    let verdict = decisions::compare(&seen, &replayed)?;
    ui::line(format_args!("{verdict}"));
    keep(bench, &room)?;
    let limit = if bench.scale == Scale::Quick { QUICK } else { FULL };
    let word = if watch.elapsed() <= limit { "within" } else { "BEYOND" };
    ui::line(format_args!("took {}, {word} {}", ui::span(watch.elapsed()), ui::span(limit)));
    Ok(())
}

/// Starts the laboratory as an ordinary user, by its open binary: the clone may lie where that user cannot go.
fn start_lab(bench: &Bench<'_>, built: &Built, room: &Room, user: User) -> Result<Leash> {
    let mut lab = stage::as_user(&built.lab, "tidegate-lab", user, &room.of_lab())?;
    lab.command.arg("tuning").arg("--dir").arg(room.of_lab()).arg("--out").arg(room.of_lab().join("out"));
    lab.command.arg("--socket").arg(room.socket()).args(["--sink", bench.sinks.word()]);
    if bench.scale == Scale::Quick {
        lab.command.arg("--quick");
    }
    Leash::start(&mut lab.command)
}

/// The decisions that come of the recording, JSON one a line.
fn replay(built: &Built, recording: &Path) -> Result<String> {
    let mut command = Command::new(&built.tidegate);
    command.arg("replay").arg(recording).args(["--decisions", "-"]).stdin(Stdio::null());
    let output = command.output().context("run tidegate replay")?;
    ensure!(output.status.success(), "tidegate replay: {}", String::from_utf8_lossy(&output.stderr).trim());
    String::from_utf8(output.stdout).context("tidegate replay printed no UTF-8")
}

/// Takes the report out of the room.
fn keep(bench: &Bench<'_>, room: &Room) -> Result<()> {
    let results = bench.workspace.target.join("tuning");
    std::fs::create_dir_all(&results).with_context(|| format!("create {}", results.display()))?;
    for name in FILES {
        let (from, to) = (room.of_lab().join("out").join(name), results.join(name));
        std::fs::copy(&from, &to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    }
    if let Some(file) = bench.json {
        std::fs::copy(results.join("tuning.json"), file).with_context(|| format!("write {}", file.display()))?;
    }
    ui::line(format_args!("report: {}", results.join("tuning.html").display()));
    Ok(())
}
