//! Database servers for the laboratory, which runs them itself, in folders of its own. What is installed here starts no
//! service and creates no cluster: a machine on which tidegate is built serves nobody a database.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::apt::{Apt, as_root, install_line};
use super::{Intent, State};
use crate::shell;

const LOST: &str = "the laboratory has no PostgreSQL to write to, and `cargo xtask bench load` no pgbench";

/// While it runs, Debian's package makes no cluster and no service is started; then both are as they were.
const QUIETLY: &str = "\
set -e
clusters=/etc/postgresql-common/createcluster.d
services=/usr/sbin/policy-rc.d
made=$clusters/tidegate.conf
if [ ! -e $services ]; then
  printf '#!/bin/sh\\nexit 101\\n' > $services
  chmod 755 $services
  made=\"$made $services\"
fi
trap 'rm -f $made' EXIT
trap 'exit 1' INT TERM HUP
mkdir -p $clusters
echo 'create_main_cluster = false' > $clusters/tidegate.conf
\"$@\"
";

/// PostgreSQL's server and pgbench.
pub(super) fn postgres(intent: Intent) -> State {
    if let Some(folder) = postgres_programs() {
        return State::Ready(folder.display().to_string());
    }
    let line = install_line(&["postgresql"]);
    let shown = line.join(" ");
    if intent == Intent::Look {
        return State::Missing(format!("`{shown}`, without a cluster or a service"));
    }
    match install(&line) {
        Ok(()) => State::Mended(format!("{shown}, without a cluster or a service")),
        Err(error) => State::Without(format!("{LOST}: {error:#}")),
    }
}

/// Redis's server: Debian's tools hold it under the name of its checker, and bring no service.
pub(super) fn redis(apt: &mut Apt, intent: Intent) -> State {
    apt.optional("redis-tools", "redis-check-rdb", "the laboratory has no Redis to write to", intent)
}

fn install(line: &[&str]) -> Result<()> {
    let quietly: Vec<&str> = ["sh", "-c", QUIETLY, "sh"].iter().chain(line).copied().collect();
    shell::must("install PostgreSQL without a cluster", &mut as_root(&quietly)?)
}

/// Where PostgreSQL's programs are, when they are installed.
pub(crate) fn postgres_programs() -> Option<PathBuf> {
    installed(Path::new("/usr/lib/postgresql"))
}

/// The folder of programs of a version that has both the server and pgbench.
fn installed(versions: &Path) -> Option<PathBuf> {
    let folders = std::fs::read_dir(versions).ok()?.flatten().map(|version| version.path().join("bin"));
    let mut whole = folders.filter(|bin| ["initdb", "postgres", "pgbench"].iter().all(|p| bin.join(p).is_file()));
    whole.next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn what_keeps_an_installation_quiet_is_there_while_it_runs_and_gone_after_it() {
        let root = tempfile::tempdir().expect("a scratch folder");
        let root = root.path().display();
        std::fs::create_dir_all(format!("{root}/sbin")).expect("a folder");
        let script = QUIETLY.replace("/etc/", &format!("{root}/etc/")).replace("/usr/sbin/", &format!("{root}/sbin/"));
        let (conf, policy) =
            (format!("{root}/etc/postgresql-common/createcluster.d/tidegate.conf"), format!("{root}/sbin/policy-rc.d"));
        for (inner, code) in [("exit 0", 0), ("exit 7", 7)] {
            let during = format!("grep -q false {conf} && ! {policy} && {inner}");
            let status = Command::new("sh").args(["-c", &script, "sh", "sh", "-c", &during]).status().expect("sh runs");
            assert_eq!(status.code(), Some(code));
            assert!(!Path::new(&conf).exists() && !Path::new(&policy).exists());
        }
        std::fs::write(&policy, "theirs").expect("a file");
        let status = Command::new("sh").args(["-c", &script, "sh", "true"]).status().expect("sh runs");
        assert!(status.success() && !Path::new(&conf).exists());
        assert_eq!(std::fs::read_to_string(&policy).expect("it stays"), "theirs");
    }
}
