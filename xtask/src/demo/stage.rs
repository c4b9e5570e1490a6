//! The run itself, as root: folder, agent, laboratory, watcher, and their end. Everything that it starts hangs on a
//! value that ends it when dropped, so that an error or a signal anywhere leaves nothing behind.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags};

use super::report::Report;
use super::room::{Room, User};
use super::watcher::{Flame, Watcher};
use super::{Afterwards, verdict};
use crate::leash::{self, Leash, poll};
use crate::shell::Workspace;
use crate::ui;

/// Rates of the phases, records a second: all three regimes and the steps between them.
const RATES: [u32; 6] = [300, 5_000, 55_000, 300, 20_000, 55_000];
/// Seconds of a phase that the promises are about.
const FULL_PHASE: u32 = 8;
/// How long the agent may take to open its socket: it loads its probes first.
const AGENT_PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn run(workspace: &Workspace, built: &Built, seconds: u32, afterwards: Afterwards) -> Result<()> {
    let results = workspace.root.join("demo");
    std::fs::create_dir_all(&results).with_context(|| format!("create {}", results.display()))?;
    let user = User::ordinary()?;
    let room = Room::make(user)?;
    let agent = start_agent(built, &room, &[])?;
    ui::line(format_args!(
        "demo: agent {} on {}; the laboratory runs as user {}",
        agent.id(),
        room.socket().display(),
        user.uid
    ));

    let flame = Flame {
        tidegate: built.tidegate.clone(),
        file: results.join("flame.svg"),
        // In the last phase, so that all of them are in the picture.
        after: Duration::from_secs(u64::from(seconds)) * RATES.len().try_into().unwrap_or(1) * 9 / 10,
    };
    let watcher = Watcher::start(room.socket(), flame)?;
    let lab = start_lab(built, &room, user, seconds)?;
    let status = lab.wait()?;
    let witness = watcher.finish()?;
    if leash::is_called_off() {
        bail!("interrupted");
    }
    if !status.success() {
        bail!("the laboratory failed ({status}); the agent said:\n{}", tail(&room.agent_log()));
    }
    let report = results.join("report.json");
    std::fs::copy(room.of_lab().join("report.json"), &report)
        .with_context(|| format!("copy the laboratory's report to {}", report.display()))?;
    hand_over(&results)?;

    verdict::decisions(&witness);
    verdict::flame(&witness, &workspace.root);
    verdict::print(&Report::read(&report)?, &witness);
    if seconds < FULL_PHASE {
        ui::line(format_args!(
            "the promises are about phases of {FULL_PHASE} s: in shorter ones a queue has less time to grow"
        ));
    }
    ui::line(format_args!("report: {}", report.display()));
    let name = witness.pipelines.last().map_or("ingest", |seen| seen.pipeline.name.as_str());
    match afterwards {
        Afterwards::End => {
            drop(agent);
            verdict::curl(Path::new("/run/tidegate/api.sock"), name);
            ui::line("they need an agent: `cargo xtask demo --keep` leaves one running, or start one:");
            ui::line(format_args!("  sudo {} agent --socket /run/tidegate/api.sock", built.tidegate.display()));
        }
        Afterwards::Keep => {
            let socket = room.socket();
            let (pid, folder) = (agent.release(), room.keep());
            verdict::curl(&socket, name);
            ui::line(format_args!(
                "the agent is still running; to end it: sudo kill {pid} && sudo rm -r {}",
                folder.display()
            ));
        }
    }
    Ok(())
}

/// Binaries of the release build.
pub(crate) struct Built {
    pub(crate) tidegate: PathBuf,
    pub(crate) lab: PathBuf,
}

/// Starts the agent in `room`, with further words on its command line, and waits for its socket.
pub(crate) fn start_agent(built: &Built, room: &Room, more: &[OsString]) -> Result<Leash> {
    let log = room.create_agent_log()?;
    let mut command = Command::new(&built.tidegate);
    command.arg("agent").arg("--socket").arg(room.socket()).current_dir(room.path());
    // Nothing that this machine's own configuration says.
    command.arg("--config").arg(room.create_empty_config()?).args(more);
    command.stdin(Stdio::null()).stdout(log.try_clone().context("share the log")?).stderr(log);
    let agent = Leash::start(&mut command)?;
    let ready = poll(AGENT_PATIENCE, || {
        if leash::is_called_off() || agent.has_ended()? {
            bail!("the agent ended before it opened its socket; it said:\n{}", tail(&room.agent_log()));
        }
        Ok(UnixStream::connect(room.socket()).is_ok())
    })?;
    if !ready {
        bail!(
            "the agent opened no socket within {} s; it said:\n{}",
            AGENT_PATIENCE.as_secs(),
            tail(&room.agent_log())
        );
    }
    Ok(agent)
}

/// A command that is ready to start, and the open file that it is started by.
pub(crate) struct AsUser {
    pub(crate) command: Command,
    /// Held until the command has started.
    _binary: OwnedFd,
}

/// `binary` as an ordinary user, in a folder of theirs. The clone may lie where that user cannot go, so it is handed the
/// open binary instead of a path; the laboratory starts its own children by `/proc/self/exe`.
pub(crate) fn as_user(binary: &Path, name: &str, user: User, folder: &Path) -> Result<AsUser> {
    let open = rustix::fs::open(binary, OFlags::RDONLY, Mode::empty())
        .with_context(|| format!("open {}", binary.display()))?;
    let mut command = Command::new(PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd())));
    command.arg0(name).uid(user.uid).gid(user.gid).current_dir(folder).stdin(Stdio::null());
    command.env("HOME", folder).env("TMPDIR", folder);
    Ok(AsUser { command, _binary: open })
}

fn start_lab(built: &Built, room: &Room, user: User, seconds: u32) -> Result<Leash> {
    let mut lab = as_user(&built.lab, "tidegate-lab", user, &room.of_lab())?;
    lab.command.arg("compare").arg("--dir").arg(room.of_lab());
    lab.command.arg("--socket").arg(room.socket()).arg("--json").arg(room.of_lab().join("report.json"));
    let phases: Vec<String> = RATES.iter().map(|rate| format!("{rate}x{seconds}s")).collect();
    lab.command.args(["--phases", &phases.join(",")]);
    Leash::start(&mut lab.command)
}

/// Gives the results to whoever called `sudo`: the clone is theirs.
fn hand_over(results: &Path) -> Result<()> {
    let metadata = std::fs::metadata(results.parent().unwrap_or(results)).context("look at the clone")?;
    let owner = User {
        uid: std::os::unix::fs::MetadataExt::uid(&metadata),
        gid: std::os::unix::fs::MetadataExt::gid(&metadata),
    };
    owner.own(results)?;
    for entry in std::fs::read_dir(results).with_context(|| format!("read {}", results.display()))? {
        owner.own(&entry.context("read demo/")?.path())?;
    }
    Ok(())
}

/// The last lines of a log, for an error.
pub(crate) fn tail(log: &Path) -> String {
    let text = File::open(log).and_then(std::io::read_to_string).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
