//! SIGINT and SIGTERM as something to wait for, so that nothing has to happen inside a signal handler.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tidegate_client::{Nanos, clock};

/// The wish to stop. Take it before the first thread is started: threads inherit the mask.
pub(crate) struct Stop {
    signals: SignalFd,
}

impl Stop {
    /// From here on the two signals no longer end the process.
    pub(crate) fn listen() -> Result<Self> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGINT);
        set.add(Signal::SIGTERM);
        set.thread_block().context("block SIGINT and SIGTERM")?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).context("signalfd")?;
        Ok(Self { signals })
    }

    /// The two signals end the process again, also when its parent had blocked them.
    pub(crate) fn let_be() -> Result<()> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGINT);
        set.add(Signal::SIGTERM);
        set.thread_unblock().context("unblock SIGINT and SIGTERM")
    }

    /// Waits until `until`; `true` when a stop is wanted.
    pub(crate) fn wait_until(&self, until: Nanos) -> Result<bool> {
        loop {
            let now = clock::monotonic();
            if self.wait_or(None, Some(until - now))? == Woken::Stop {
                return Ok(true);
            }
            if clock::monotonic() >= until {
                return Ok(false);
            }
        }
    }

    /// Waits for a stop, for `other` to become readable, or for `span` to pass.
    pub(crate) fn wait_or(&self, other: Option<BorrowedFd<'_>>, span: Option<Nanos>) -> Result<Woken> {
        let span = span.map(|s| Timespec {
            tv_sec: i64::try_from(s.0 / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(s.0 % 1_000_000_000).unwrap_or(0),
        });
        let mut fds = vec![PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN)];
        fds.extend(other.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        match poll(&mut fds, span.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).context("wait for a signal"),
        }
        if self.signals.read_signal().context("read a signal")?.is_some() {
            return Ok(Woken::Stop);
        }
        let readable = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        Ok(if readable { Woken::Other } else { Woken::Time })
    }
}

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// A stop is wanted.
    Stop,
    /// The other descriptor is readable, or closed at its far end.
    Other,
    /// The time has passed.
    Time,
}
