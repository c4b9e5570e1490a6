//! What the flusher sleeps on: a timer that any thread can set. A sender that brings the first event sets it to when that
//! event is due, and the flusher sleeps on; with a condition variable it had to be woken to begin to wait. Never decides when.

use std::io;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use rustix::io::{Errno, read};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::units::Nanos;

/// How often a flusher looks whose timer has been taken from it.
const WITHOUT_TIMER: Duration = Duration::from_millis(1);

/// An alarm; it rings once, at the time that it was last set to.
#[derive(Debug)]
pub(super) struct Alarm {
    timer: OwnedFd,
}

impl Alarm {
    /// An alarm that is not set. Fails where the process may have no further file.
    pub(super) fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)
            .map_err(|e| io::Error::new(io::Error::from(e).kind(), format!("no timer for the flusher: {e}")))?;
        Ok(Self { timer })
    }

    /// Sets it to an instant of the monotonic clock, in place of the one before; an instant that has passed rings now.
    pub(super) fn set(&self, at: Nanos) {
        // Zero would switch it off.
        let at = at.0.max(1);
        let (seconds, nanos) = (at / 1_000_000_000, at % 1_000_000_000);
        let value = Timespec { tv_sec: seconds.try_into().unwrap_or(i64::MAX), tv_nsec: nanos.try_into().unwrap_or(0) };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        // An instant is always one that the kernel takes; a timer that somebody closed shows itself at the next `sleep`.
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &once).ok();
    }

    /// Sleeps until it rings. May return early, so ask again what there is to do.
    pub(super) fn sleep(&self) {
        match read(&self.timer, &mut [0; 8]) {
            Ok(_) | Err(Errno::INTR) => {}
            // A program that closes files it did not open has closed this one, too: look often instead.
            Err(_) => thread::park_timeout(WITHOUT_TIMER),
        }
    }
}
