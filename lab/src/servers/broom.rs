//! Sweeps after a server, whatever became of the process that started it: waits for the end of its own standard input,
//! which is that process's life, makes sure that the server is dead, and removes the folder. Removes nothing else.

use std::fs;
use std::io::{self, BufRead};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tidegate_client::{Nanos, clock};

use crate::cli::BroomArgs;
use crate::parent::take_name;
use crate::time::sleep;

/// A server whose starter has died has been told so by a signal, and ends by itself within this.
const ENDING: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };
/// Helpers of the server may still write a file or two.
const PATIENCE: Nanos = Nanos::from_millis(5_000);

pub(crate) fn run(args: &BroomArgs) -> Result<()> {
    take_name("lab-broom");
    let mut server = None;
    for line in io::stdin().lock().lines() {
        let line = line.context("read standard input")?;
        server = line.trim().parse().ok().and_then(Pid::from_raw).map(|pid| pidfd_open(pid, PidfdFlags::empty()));
    }
    // One that could not be opened is dead already.
    if let Some(Ok(server)) = server {
        outlast(&server)?;
    }
    sweep(&args.folder)
}

/// Waits for the end of a process, and makes one.
fn outlast(server: &OwnedFd) -> Result<()> {
    let mut fds = [PollFd::from_borrowed_fd(server.as_fd(), PollFlags::IN)];
    if poll(&mut fds, Some(&ENDING)).context("wait for the server's end")? == 0 {
        // It may end just now.
        pidfd_send_signal(server, Signal::KILL).ok();
        poll(&mut fds, Some(&ENDING)).context("wait for the server's end")?;
    }
    Ok(())
}

fn sweep(folder: &Path) -> Result<()> {
    let end = clock::monotonic() + PATIENCE;
    loop {
        match fs::remove_dir_all(folder) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) if clock::monotonic() >= end => {
                return Err(e).with_context(|| format!("remove {} (remove it by hand)", folder.display()));
            }
            Err(_) => sleep(Nanos::from_millis(50)),
        }
    }
}
