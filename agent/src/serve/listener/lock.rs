//! Who may set up a socket: its path goes in, the right to be the only one at it comes out. Never waits for another.
//!
//! The lock lies on a file of its own beside the socket, which only its owner may open. On the directory anybody who may
//! read it could take a lock too, and keep every agent from starting.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::{BindError, failed};

const LOCK_MODE: u32 = 0o600;
/// A lock file that goes between its opening and its locking is an agent that is just done: the next one is tried.
const TRIES: u32 = 16;

/// The right to set up a socket, until it is dropped. The kernel takes it back however the process ends.
#[derive(Debug)]
pub(super) struct SetupLock {
    path: PathBuf,
    /// Locked as long as it is open.
    _file: File,
}

impl SetupLock {
    /// Takes the lock of the socket at `path`.
    pub(super) fn take(path: &Path) -> Result<Self, BindError> {
        let socket = path;
        let mut name = std::ffi::OsString::from(".");
        name.push(socket.file_name().unwrap_or_default());
        name.push(".lock");
        let path = socket.with_file_name(name);
        for _ in 0..TRIES {
            let file = open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => break,
                Err(TryLockError::Error(cause)) => return Err(failed("lock", &path, cause)),
            }
            if is_at(&file, &path)? {
                return Ok(Self { path, _file: file });
            }
        }
        let cause = format!("another process is setting it up, it holds {} (try again)", path.display());
        Err(BindError::Path { path: socket.to_owned(), cause })
    }
}

impl Drop for SetupLock {
    fn drop(&mut self) {
        // Still locked: whoever has opened this file finds it gone and takes the next.
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a lock file could not be removed");
        }
    }
}

fn open(path: &Path) -> Result<File, BindError> {
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0);
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(LOCK_MODE)
        .custom_flags(flags)
        .open(path)
        .map_err(|e| failed("open lock", path, e))
}

/// Whether `path` still names `file`.
fn is_at(file: &File, path: &Path) -> Result<bool, BindError> {
    let ours = file.metadata().map_err(|e| failed("look at lock", path, e))?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(failed("look at lock", path, e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_sets_a_socket_up_at_a_time_and_nothing_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("api.sock");
        let first = SetupLock::take(&path).unwrap();
        assert_eq!(fs::metadata(&first.path).unwrap().mode() & 0o777, LOCK_MODE);
        let told = SetupLock::take(&path).unwrap_err().to_string();
        assert!(told.contains("api.sock: another process") && told.contains("try again"), "{told}");
        let waiting = open(&first.path).unwrap();
        drop(first);
        waiting.try_lock().unwrap();
        assert!(!is_at(&waiting, &directory.path().join(".api.sock.lock")).unwrap());
        drop(SetupLock::take(&path).unwrap());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
