//! Programs that the tests open tidegate's exports with. Each is optional: a test whose reader is missing skips, and says so.

use super::apt::Apt;
use super::{Intent, State};
use crate::shell::{self, Workspace, which};

/// Debian's packages: package, program, what is not tested without it.
pub(super) const PACKAGES: [(&str, &str, &str); 4] = [
    ("golang-go", "go", "pprof exports are not opened by `go tool pprof`"),
    ("nodejs", "node", "Firefox exports are not opened by their reader"),
    ("npm", "npm", "Firefox and speedscope exports are not opened by their readers"),
    ("chromium", "chromium", "speedscope exports are not opened by speedscope"),
];

/// One of Debian's packages.
pub(super) fn package(apt: &mut Apt, (package, program, lost): (&str, &str, &str), intent: Intent) -> State {
    apt.optional(package, program, lost, intent)
}

/// The packages of `dashboards/readers`, as its lock file names them.
pub(super) fn npm(workspace: &Workspace, intent: Intent) -> State {
    let folder = workspace.root.join("dashboards/readers");
    let installed = folder.join("node_modules/.package-lock.json");
    if installed.exists() {
        return State::Ready("node_modules".to_owned());
    }
    let lost = "Firefox and speedscope exports are not opened by their readers";
    let Some(npm) = which("npm") else { return State::Without(format!("{lost}: there is no npm")) };
    let mut install = std::process::Command::new(npm);
    install.current_dir(folder).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
    if intent == Intent::Look {
        return State::Missing(format!("`{}` in dashboards/readers", shell::show(&install)));
    }
    match shell::must("install the readers", &mut install) {
        Ok(()) => State::Mended(shell::show(&install)),
        Err(error) => State::Without(format!("{lost}: {error:#}")),
    }
}
