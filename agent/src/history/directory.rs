//! The state directory: a path in, a directory that is the agent's own and nobody else's out. Follows no link, and lets
//! two agents not share one.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

use super::HistoryError;

const ONLY_OURS: u32 = 0o700;
const FILE: &str = "history.db";

/// A directory that is held: the lock goes with it.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Makes it if it is missing, tests it and locks it.
    pub(super) fn hold(asked: &Path) -> Result<Self, HistoryError> {
        let failed = |cause: String| HistoryError::Directory { directory: asked.to_owned(), cause };
        let (parent, name) = asked
            .parent()
            .zip(asked.file_name())
            .ok_or_else(|| failed("want an absolute path of a directory of its own".to_owned()))?;
        // Whatever leads there may be a link; the directory itself may not.
        let parent = parent.canonicalize().map_err(|e| failed(format!("find the directory above it: {e}")))?;
        let path = parent.join(name);
        match DirBuilder::new().mode(ONLY_OURS).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(format!("make it: {error}")));
            }
            _ => {}
        }
        let nofollow = |flags: OFlags| i32::try_from((OFlags::NOFOLLOW | flags).bits()).unwrap_or_default();
        let directory = OpenOptions::new().read(true).custom_flags(nofollow(OFlags::DIRECTORY)).open(&path);
        let directory = directory.map_err(|e| failed(format!("open it, following no link: {e}")))?;
        let found = directory.metadata().map_err(|e| failed(format!("look at it: {e}")))?;
        let me = rustix::process::geteuid().as_raw();
        if found.uid() != me {
            return Err(failed(format!("it belongs to user {}, not to {me}, who runs the agent", found.uid())));
        }
        if found.mode() & 0o777 != ONLY_OURS {
            let narrow = directory.set_permissions(PermissionsExt::from_mode(ONLY_OURS));
            narrow.map_err(|e| failed(format!("make it mode 0700: {e}")))?;
        }
        let own = |file: &str| {
            let mut how = OpenOptions::new();
            how.read(true).write(true).create(true).mode(0o600).custom_flags(nofollow(OFlags::CLOEXEC));
            how.open(path.join(file)).map_err(|e| failed(format!("open {file}, following no link: {e}")))
        };
        let lock = own("lock")?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_held| failed("another agent keeps its history there".to_owned()))?;
        // SQLite would make it readable to everybody; its other files get the mode of this one.
        drop(own(FILE)?);
        Ok(Self { path, _lock: lock })
    }

    /// The database.
    pub(super) fn database(&self) -> PathBuf {
        self.path.join(FILE)
    }

    /// Puts a damaged database aside, over the one put aside before: the bound on its size holds for two, not for many.
    pub(super) fn put_aside(&self) -> io::Result<PathBuf> {
        let database = self.database();
        let aside = self.path.join("history.db.damaged");
        for ending in ["-wal", "-shm"] {
            let part = |path: &Path| PathBuf::from(format!("{}{ending}", path.display()));
            match std::fs::rename(part(&database), part(&aside)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        std::fs::rename(&database, &aside)?;
        let mut how = OpenOptions::new();
        let nofollow = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
        how.write(true).create_new(true).mode(0o600).custom_flags(nofollow).open(&database)?;
        Ok(aside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_made_for_the_agent_alone_and_held_by_one() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("state");
        let held = Directory::hold(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        assert_eq!(std::fs::metadata(held.database()).unwrap().mode() & 0o777, 0o600);
        let second = Directory::hold(&path).unwrap_err().to_string();
        assert!(second.contains("another agent") && second.contains("state"), "{second}");
        drop(held);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).unwrap();
        drop(Directory::hold(&path).unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o700, "it was open to everybody");
    }

    #[test]
    fn links_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let (real, link) = (root.path().join("real"), root.path().join("link"));
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(Directory::hold(&link).unwrap_err().to_string().contains("following no link"));
        let victim = root.path().join("victim");
        std::os::unix::fs::symlink(&victim, real.join("history.db")).unwrap();
        assert!(Directory::hold(&real).unwrap_err().to_string().contains("history.db"));
        assert!(!victim.exists(), "a file was made through a link");
    }
}
