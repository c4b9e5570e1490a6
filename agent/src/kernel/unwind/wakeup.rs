//! Waiting for the kernel's account of processes: a descriptor in, a wake-up out. It never reads what has come.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use tokio::io::unix::AsyncFd;

/// Wakes when a descriptor is readable.
#[derive(Debug)]
pub struct Wakeup(AsyncFd<OwnedFd>);

impl Wakeup {
    /// On a descriptor of its own for what `of` describes. Inside of a runtime only.
    pub fn on(of: BorrowedFd<'_>) -> io::Result<Self> {
        let descriptor = of.try_clone_to_owned()?;
        // SAFETY: the descriptor is owned by what is made here, is closed with it and never handed out before.
        let registered = unsafe { AsyncFd::register(descriptor) };
        Ok(Self(registered?))
    }

    /// Ends when there is something to read that was not there before.
    pub async fn wait(&self) -> io::Result<()> {
        self.0.readable().await?.clear_ready();
        Ok(())
    }
}
