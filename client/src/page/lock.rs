//! Who may set something up at a path: the path goes in, the right to be the only one at it comes out. Never waits.
//!
//! The lock lies on a file of its own beside the path, which only its owner may open. On the thing itself, or on its
//! directory, anybody who may read it could take a lock too, and keep the next agent from it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::file_id;

const LOCK_MODE: u32 = 0o600;
/// A lock file that goes between its opening and its locking is a holder that just ended: the next one is tried.
const TRIES: u32 = 16;

/// The right to be the only one at a path, until it is dropped. The kernel takes it back however the process ends.
#[derive(Debug)]
pub struct OwnerLock {
    path: PathBuf,
    /// Locked as long as it is open.
    _file: File,
}

/// Why a lock was not taken.
#[derive(Debug)]
pub enum LockError {
    /// Somebody holds it.
    Held {
        /// The lock file.
        lock: PathBuf,
    },
    /// The lock file cannot be used.
    Io {
        /// What was tried.
        what: &'static str,
        /// The lock file.
        lock: PathBuf,
        /// Why it failed.
        cause: io::Error,
    },
}

impl OwnerLock {
    /// Takes the lock of `path`, which is `.NAME.lock` beside it.
    pub fn take(path: &Path) -> Result<Self, LockError> {
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(".lock");
        let path = path.with_file_name(name);
        let failed = |what, cause| LockError::Io { what, lock: path.clone(), cause };
        for _ in 0..TRIES {
            let file = open(&path).map_err(|cause| failed("open lock", cause))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => break,
                Err(TryLockError::Error(cause)) => return Err(failed("lock", cause)),
            }
            if is_at(&file, &path).map_err(|cause| failed("stat lock", cause))? {
                return Ok(Self { path, _file: file });
            }
        }
        Err(LockError::Held { lock: path })
    }
}

impl Drop for OwnerLock {
    fn drop(&mut self) {
        // Still locked: whoever waits at this file finds it gone and takes the next. One that stays does no harm.
        fs::remove_file(&self.path).ok();
    }
}

fn open(path: &Path) -> io::Result<File> {
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0);
    OpenOptions::new().write(true).create(true).truncate(false).mode(LOCK_MODE).custom_flags(flags).open(path)
}

/// Whether `path` still names `file`.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(there) => Ok(file_id(&there) == file_id(&file.metadata()?)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_lock_on_a_file_that_has_gone_is_no_right_to_write() {
        let dir = tempfile::tempdir().unwrap();
        let page = dir.path().join("page");
        let first = OwnerLock::take(&page).unwrap();
        let waiting = open(&first.path).unwrap();
        assert!(matches!(OwnerLock::take(&page), Err(LockError::Held { .. })));
        let path = first.path.clone();
        drop(first);
        waiting.try_lock().unwrap();
        assert!(!is_at(&waiting, &path).unwrap());
        let _second = OwnerLock::take(&page).unwrap();
        assert!(!is_at(&waiting, &path).unwrap());
    }

    #[test]
    fn only_its_owner_may_open_it_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let lock = OwnerLock::take(&dir.path().join("api.sock")).unwrap();
        assert_eq!(lock.path, dir.path().join(".api.sock.lock"));
        assert_eq!(fs::metadata(&lock.path).unwrap().mode() & 0o777, LOCK_MODE);
        drop(lock);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
