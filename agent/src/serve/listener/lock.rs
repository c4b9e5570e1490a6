//! Who may set up a socket: its path goes in, the right to be the only one at it comes out. Never waits for another.

use std::path::Path;

use tidegate_client::page::{LockError, OwnerLock};

use super::{BindError, failed};

/// Takes the lock of the socket at `path`.
pub(super) fn setup_lock(path: &Path) -> Result<OwnerLock, BindError> {
    OwnerLock::take(path).map_err(|error| match error {
        LockError::Io { what, lock, cause } => failed(what, &lock, cause),
        LockError::Held { lock } => {
            let cause = format!("another process is setting it up, it holds {} (try again)", lock.display());
            BindError::Path { path: path.to_owned(), cause }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn only_one_sets_a_socket_up_at_a_time_and_nothing_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("api.sock");
        let first = setup_lock(&path).unwrap();
        let lock = directory.path().join(".api.sock.lock");
        assert_eq!(fs::metadata(&lock).unwrap().mode() & 0o777, 0o600);
        let told = setup_lock(&path).unwrap_err().to_string();
        assert!(told.contains("api.sock: another process") && told.contains("try again"), "{told}");
        drop(first);
        drop(setup_lock(&path).unwrap());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
