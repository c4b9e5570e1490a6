//! Becomes a server: gives up the rights of root, ties its life to the process that started it, and runs the server's
//! program in its own place. Never returns unless that fails.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use crate::cli::ServantArgs;
use crate::stop::Stop;

pub(crate) fn run(args: &ServantArgs) -> Result<()> {
    Stop::let_be()?;
    let starter = getppid();
    if let (Some(uid), Some(gid)) = (args.uid, args.gid) {
        setgroups(&[])
            .and_then(|()| setgid(Gid::from_raw(gid)))
            .and_then(|()| setuid(Uid::from_raw(uid)))
            .with_context(|| {
                format!("become user {uid} (this needs root, or run as an ordinary user from the start)")
            })?;
    }
    std::env::set_current_dir(&args.dir).with_context(|| {
        format!(
            "enter {} as user {} (name a directory with --dir that everybody may pass through, like /tmp)",
            args.dir.display(),
            rustix::process::geteuid().as_raw()
        )
    })?;
    // After the change of user, which forgets it.
    let signal = Signal::from_named_raw(args.death_signal).context("a signal by its number")?;
    set_parent_process_death_signal(Some(signal)).context("ask for the parent's death signal")?;
    if getppid() != starter {
        bail!("the process that started this one is gone");
    }
    let Some((program, rest)) = args.command.split_first() else { bail!("no program to run") };
    Err(Command::new(program).arg0(&args.name).args(rest).exec())
        .with_context(|| format!("run {}", program.to_string_lossy()))
}
