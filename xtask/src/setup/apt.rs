//! Debian packages: whether one can be had, and getting it. Asks for root only when something has to be installed,
//! and never refreshes the package lists while they already know what is wanted.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use super::{Intent, State, parse};
use crate::shell::{self, which};

#[derive(Default)]
pub(crate) struct Apt {
    lists: Lists,
}

/// How fresh the package lists are.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Lists {
    #[default]
    AsFound,
    Refreshed,
}

impl Apt {
    /// Whether a package is installed.
    pub(crate) fn has(package: &str) -> bool {
        let mut query = Command::new("dpkg-query");
        query.args(["-W", "-f", "${db:Status-Status}", package]);
        shell::capture(&mut query).is_ok_and(|status| status == "installed")
    }

    /// Whether a package is installed or could be; refreshes the lists once when they do not know it.
    pub(crate) fn can_have(&mut self, package: &str, intent: Intent) -> bool {
        if Self::has(package) || Self::candidate(package) {
            return true;
        }
        intent == Intent::Mend && self.refresh().is_ok() && Self::candidate(package)
    }

    /// Installs packages without what they merely recommend.
    pub(crate) fn install(&mut self, packages: &[&str]) -> Result<()> {
        if !packages.iter().all(|package| Self::candidate(package)) {
            self.refresh()?;
        }
        let what = format!("install {}", packages.join(", "));
        let first = shell::must(&what, &mut as_root(&install_line(packages))?);
        if first.is_err() && self.lists == Lists::AsFound {
            // Old lists name files that the mirror no longer has.
            self.refresh()?;
            return shell::must(&what, &mut as_root(&install_line(packages))?);
        }
        first
    }

    /// A package that only one feature needs: its absence is told, not fatal.
    pub(crate) fn optional(&mut self, package: &str, program: &str, lost: &str, intent: Intent) -> State {
        if let Some(file) = which(program) {
            return State::Ready(file.display().to_string());
        }
        let line = install_line(&[package]).join(" ");
        if intent == Intent::Look {
            return State::Missing(format!("`{line}`"));
        }
        match self.install(&[package]) {
            Ok(()) => State::Mended(line),
            Err(error) => State::Without(format!("{lost}: {error:#}")),
        }
    }

    fn candidate(package: &str) -> bool {
        let policy = shell::capture(Command::new("apt-cache").args(["policy", package]));
        policy.is_ok_and(|text| parse::candidate(&text).is_some())
    }

    fn refresh(&mut self) -> Result<()> {
        if self.lists == Lists::Refreshed {
            return Ok(());
        }
        self.lists = Lists::Refreshed;
        shell::must("refresh the package lists", &mut as_root(&["apt-get", "update"])?)
    }
}

/// The line that installs packages, as an administrator would type it.
pub(crate) fn install_line<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    ["apt-get", "install", "-y", "--no-install-recommends"].iter().chain(packages).copied().collect()
}

/// A command with the rights of root: as it is for root, else by sudo when that asks for no password.
pub(super) fn as_root(line: &[&str]) -> Result<Command> {
    let shown = line.join(" ");
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!("this machine has no apt-get: install what these packages hold by hand, then run again: {shown}");
    }
    let mut command = if rustix::process::geteuid().is_root() {
        Command::new(line[0])
    } else if Command::new("sudo").args(["-n", "true"]).output().is_ok_and(|output| output.status.success()) {
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", "DEBIAN_FRONTEND=noninteractive", line[0]]);
        sudo
    } else {
        bail!("root is needed and `sudo -n` is refused: run `sudo {shown}`, then run this again");
    };
    command.args(&line[1..]).env("DEBIAN_FRONTEND", "noninteractive").stdin(std::process::Stdio::null());
    Ok(command)
}
