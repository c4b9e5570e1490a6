//! Redis on a socket in the room, no TCP, appending to a file that it syncs each second. A room comes in, a server that is
//! starting goes out; no configuration file of the machine is read.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use tidegate_client::Nanos;

use super::contact::connect_redis;
use super::room::Room;
use super::{Server, Setting, folder_of};

/// Debian's server and its checker are one program, which looks at the name that it is called by; the checker comes
/// without a system service.
const PROGRAMS: [&str; 2] = ["redis-server", "redis-check-rdb"];

pub(super) fn start(room: &Room, settings: &[Setting]) -> Result<Server> {
    let found: Option<PathBuf> = PROGRAMS.iter().find_map(|name| Some(folder_of(None, &[name])?.join(name)));
    let Some(program) = found else {
        bail!("no Redis server is installed: `apt-get install redis-tools` brings it (`cargo xtask setup` does)");
    };
    let socket = room.folder.join("redis.sock");
    let mut serve = room.command(&program, "redis-server".as_ref(), Signal::KILL, "log")?;
    serve.args(["--port", "0", "--unixsocket"]).arg(&socket).args(["--unixsocketperm", "700"]);
    serve.args(["--save", "", "--appendonly", "yes", "--appendfsync", "everysec", "--dir", "."]);
    for Setting { name, value } in settings {
        serve.arg(format!("--{name}")).arg(value);
    }
    Ok(Server {
        child: serve.spawn().context("start Redis")?,
        listening: socket,
        log: room.folder.join("log"),
        ending: Signal::TERM,
        answers: |socket| {
            let mut connection = connect_redis(socket, Nanos(0))?;
            redis::cmd("PING").exec(&mut connection).context("ask Redis")
        },
    })
}
