//! The folder under `/tmp` that the demo lives in, and the ordinary user that loads and measures there. Gives paths;
//! takes the whole folder away when it is dropped.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

/// Who may pass through to a name that he knows, and list nothing.
const PASS_THROUGH: u32 = 0o711;
const OWNER_ONLY: u32 = 0o700;

/// An ordinary user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl User {
    /// The user behind `sudo`, or `nobody` when root runs the demo as root.
    pub(crate) fn ordinary() -> Result<Self> {
        let from_sudo = |name| std::env::var(name).ok().and_then(|id| id.parse().ok()).filter(|id| *id != 0);
        if let (Some(uid), Some(gid)) = (from_sudo("SUDO_UID"), from_sudo("SUDO_GID")) {
            return Ok(Self { uid, gid });
        }
        let passwd = fs::read_to_string("/etc/passwd").context("read /etc/passwd")?;
        Self::named("nobody", &passwd).context("find the user nobody in /etc/passwd: run the demo with sudo instead")
    }

    fn named(name: &str, passwd: &str) -> Option<Self> {
        let fields: Vec<&str> = passwd.lines().map(|l| l.split(':').collect::<Vec<_>>()).find(|f| f[0] == name)?;
        Some(Self { uid: fields.get(2)?.parse().ok()?, gid: fields.get(3)?.parse().ok()? })
    }

    /// Gives a file or folder to this user.
    pub(crate) fn own(self, path: &Path) -> Result<()> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
            .with_context(|| format!("give {} to user {}", path.display(), self.uid))
    }
}

/// The folder. Its name cannot be guessed, root owns it, and others can only pass through.
pub(crate) struct Room {
    folder: TempDir,
}

impl Room {
    pub(crate) fn make(user: User) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("tidegate-demo-").tempdir().context("make a folder under /tmp")?;
        let room = Self { folder };
        set_mode(room.folder.path(), PASS_THROUGH)?;
        fs::create_dir(room.of_agent()).context("make the agent's folder")?;
        set_mode(&room.of_agent(), PASS_THROUGH)?;
        fs::create_dir(room.of_lab()).context("make the laboratory's folder")?;
        set_mode(&room.of_lab(), OWNER_ONLY)?;
        user.own(&room.of_lab())?;
        Ok(room)
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Where the agent, as root, keeps its socket and its pages.
    pub(crate) fn of_agent(&self) -> PathBuf {
        self.folder.path().join("agent")
    }

    /// Where the ordinary user may write.
    pub(crate) fn of_lab(&self) -> PathBuf {
        self.folder.path().join("lab")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.of_agent().join("api.sock")
    }

    /// What the agent says on standard error.
    pub(crate) fn agent_log(&self) -> PathBuf {
        self.folder.path().join("agent.log")
    }

    pub(crate) fn create_agent_log(&self) -> Result<File> {
        File::create(self.agent_log()).with_context(|| format!("create {}", self.agent_log().display()))
    }

    /// A configuration that says nothing.
    pub(crate) fn create_empty_config(&self) -> Result<PathBuf> {
        let file = self.folder.path().join("agent.toml");
        File::create(&file).with_context(|| format!("create {}", file.display()))?;
        Ok(file)
    }

    /// Lets the folder stay.
    pub(crate) fn keep(self) -> PathBuf {
        self.folder.keep()
    }
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
        .with_context(|| format!("set the mode of {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_read_by_name() {
        let passwd = "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65533:nobody:/nonexistent:/usr/sbin/nologin\n";
        assert_eq!(User::named("nobody", passwd), Some(User { uid: 65534, gid: 65533 }));
        assert_eq!(User::named("nobod", passwd), None);
    }
}
