//! PostgreSQL as a fresh cluster of its own: a socket in the room, no TCP, the server's own defaults for everything that
//! decides what a commit costs. A room comes in, a server that is starting goes out; never a cluster that was there.

use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::contact::PostgresAt;
use super::room::Room;
use super::{Server, Setting, folder_of};

pub(super) fn start(room: &Room, settings: &[Setting]) -> Result<Server> {
    let versions = Path::new("/usr/lib/postgresql");
    let Some(bin) = folder_of(Some(versions), &["initdb", "postgres"]) else {
        bail!(
            "no PostgreSQL server is installed: `apt-get install postgresql` brings it (`cargo xtask setup` does that \
             without creating a cluster)"
        );
    };
    let (initdb, postgres) = (bin.join("initdb"), bin.join("postgres"));
    let mut init = room.command(&initdb, initdb.as_os_str(), Signal::KILL, "initdb.log")?;
    init.args(["-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]);
    let status = init.status().context("run initdb")?;
    if !status.success() {
        let said = std::fs::read_to_string(room.folder.join("initdb.log")).unwrap_or_default();
        bail!("make a cluster in {} ({status}): {}", room.folder.display(), said.trim());
    }
    // On SIGQUIT the server ends at once, and takes its helpers with it.
    let mut serve = room.command(&postgres, postgres.as_os_str(), Signal::QUIT, "log")?;
    serve.args(["-D", "data", "-c", "listen_addresses=", "-c"]);
    serve.arg(format!("unix_socket_directories={}", room.folder.display()));
    for Setting { name, value } in settings {
        serve.arg("-c").arg(format!("{name}={value}"));
    }
    Ok(Server {
        child: serve.spawn().context("start PostgreSQL")?,
        listening: room.folder.clone(),
        log: room.folder.join("log"),
        ending: Signal::INT,
        answers: |folder| {
            PostgresAt::Folder(folder.to_owned()).connect()?.batch_execute("SELECT 1").context("ask PostgreSQL")
        },
    })
}
