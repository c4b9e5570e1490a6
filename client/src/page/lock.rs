//! Who may write a page: a path goes in, the right to be its only writer comes out. Never waits for another writer.
//!
//! The lock lies on a file of its own beside the page, which only its owner may open. On the page itself anybody who may
//! read it could take a lock too, and keep the next agent from it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::{PageError, file_id};

const LOCK_MODE: u32 = 0o600;
/// A lock file that goes between its opening and its locking is a writer that just ended: the next one is tried.
const TRIES: u32 = 16;

/// The right to write one page, until it is dropped. The kernel takes it back however the process ends.
#[derive(Debug)]
pub(super) struct WriterLock {
    path: PathBuf,
    /// Locked as long as it is open.
    _file: File,
}

impl WriterLock {
    /// Takes the lock of `page`, or says who holds it.
    pub(super) fn take(page: &Path) -> Result<Self, PageError> {
        let name = page.file_name().and_then(|n| n.to_str()).unwrap_or("page");
        let path = page.with_file_name(format!(".{name}.lock"));
        for _ in 0..TRIES {
            let file = open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => break,
                Err(TryLockError::Error(cause)) => return Err(PageError::io("lock", &path, cause)),
            }
            if is_at(&file, &path)? {
                return Ok(Self { path, _file: file });
            }
        }
        Err(PageError::InUse { path: page.into() })
    }
}

impl Drop for WriterLock {
    fn drop(&mut self) {
        // Still locked: whoever waits at this file finds it gone and takes the next. One that stays does no harm.
        fs::remove_file(&self.path).ok();
    }
}

fn open(path: &Path) -> Result<File, PageError> {
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0);
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(LOCK_MODE)
        .custom_flags(flags)
        .open(path)
        .map_err(|e| PageError::io("open lock of", path, e))
}

/// Whether `path` still names `file`.
fn is_at(file: &File, path: &Path) -> Result<bool, PageError> {
    let ours = file.metadata().map_err(|e| PageError::io("stat lock of", path, e))?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok(file_id(&there) == file_id(&ours)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(PageError::io("stat lock of", path, e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_on_a_file_that_has_gone_is_no_right_to_write() {
        let dir = tempfile::tempdir().unwrap();
        let page = dir.path().join("page");
        let first = WriterLock::take(&page).unwrap();
        let waiting = open(&first.path).unwrap();
        assert!(matches!(WriterLock::take(&page), Err(PageError::InUse { .. })));
        let path = first.path.clone();
        drop(first);
        waiting.try_lock().unwrap();
        assert!(!is_at(&waiting, &path).unwrap());
        let _second = WriterLock::take(&page).unwrap();
        assert!(!is_at(&waiting, &path).unwrap());
    }
}
