//! The folder of one server and the ordinary user that it runs as. Made new, owned by that user alone, and removed by a
//! process that outlives this one; never one that was there before.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::unistd::User;
use rustix::process::Signal;

use crate::cli::ServerKind;

/// Whom a server runs as when this process is root's: PostgreSQL refuses root, and neither needs it.
const ORDINARY: &str = "nobody";

/// A server's folder.
pub(crate) struct Room {
    pub(super) folder: PathBuf,
    user: Option<User>,
    broom: Child,
    /// When it closes, the broom sweeps.
    line: Option<ChildStdin>,
}

impl Room {
    pub(super) fn open(parent: &Path, kind: ServerKind) -> Result<Self> {
        let folder = std::path::absolute(parent)
            .with_context(|| format!("--dir {}", parent.display()))?
            .join(format!("tidegate-lab-{kind}-{}", std::process::id()));
        let user = if rustix::process::geteuid().is_root() {
            let user = User::from_name(ORDINARY).with_context(|| format!("look up the user {ORDINARY}"))?;
            let Some(user) = user else {
                bail!("there is no user {ORDINARY} to run the server as: run this as an ordinary user")
            };
            Some(user)
        } else {
            None
        };
        DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("create {} (name a directory of yours with --dir)", folder.display()))?;
        // From here on the folder goes, whatever fails.
        let mut broom = this_program()
            .arg("broom")
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .context("start the process that removes the folder")?;
        let line = broom.stdin.take();
        let room = Self { folder, user, broom, line };
        if let Some(user) = &room.user {
            chown(&room.folder, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
                .with_context(|| format!("give {} to {}", room.folder.display(), user.name))?;
        }
        Ok(room)
    }

    /// `program`, to be run in the folder as the ordinary user, called `name`, and to end by `death` when this process
    /// dies. Its words go to the file `log` in the folder.
    pub(super) fn command(&self, program: &Path, name: &OsStr, death: Signal, log: &str) -> Result<Command> {
        let said = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join(log))
            .with_context(|| format!("open {} in {}", log, self.folder.display()))?;
        let mut command = this_program();
        command.args(["--parent", &std::process::id().to_string(), "servant"]);
        command.arg("--dir").arg(&self.folder).args(["--death-signal", &death.as_raw().to_string()]);
        if let Some(user) = &self.user {
            command.args(["--uid", &user.uid.to_string(), "--gid", &user.gid.to_string()]);
        }
        command.arg("--name").arg(name).arg("--").arg(program);
        // Nothing of the caller's surroundings may change the server.
        command.env_clear().env("LC_ALL", "C").env("PATH", "/usr/bin:/bin");
        command.stdin(Stdio::null()).stdout(said.try_clone().context("share a log")?).stderr(said).process_group(0);
        Ok(command)
    }

    /// The folder is removed only when this process has ended.
    pub(super) fn watch(&mut self, server: &Child) -> Result<()> {
        let line = self.line.as_mut().context("a room that is still open")?;
        writeln!(line, "{}", server.id()).context("tell the process that removes the folder whom to wait for")
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        drop(self.line.take());
        // It says itself what it could not do.
        self.broom.wait().ok();
    }
}

/// This very program, also where the path of its file is out of reach.
fn this_program() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("tidegate-lab");
    command
}
