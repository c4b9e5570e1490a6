//! Database servers for as long as a measurement lasts: Debian's own programs, as an ordinary user, on a Unix socket in a
//! folder of their own. However this process ends, the server ends and the folder goes. Never touches a server, a
//! cluster or a folder that was there before.

pub(crate) mod broom;
pub(crate) mod contact;
mod postgres;
mod redis;
mod room;
pub(crate) mod servant;

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Child;

use anyhow::{Context, Result, bail};
use tidegate_client::{Nanos, clock};

use crate::cli::{ServeArgs, ServerKind};
use crate::out::{json_line, note};
use crate::parent::take_name;
use crate::sink::Listening;
use crate::stop::{Stop, Woken};
use room::Room;

/// A fresh server answers within this, on a slow disk too.
const START_PATIENCE: Nanos = Nanos::from_millis(60_000);
/// A server that is asked to stop has written what it has to write by then.
const STOP_PATIENCE: Nanos = Nanos::from_millis(20_000);
const LOOK: Nanos = Nanos::from_millis(50);
/// Of what a server that does not start has said.
const LAST_WORDS: u64 = 2_000;

/// Starts a server, says where it listens, and ends it when told to.
pub(crate) fn run(args: &ServeArgs) -> Result<()> {
    take_name("lab-serve");
    let stop = Stop::listen()?;
    let settings = args.set.iter().map(|text| Setting::parse(text)).collect::<Result<Vec<_>>>()?;
    let mut room = Room::open(&args.dir, args.server)?;
    let mut server = match args.server {
        ServerKind::Postgres => postgres::start(&room, &settings)?,
        ServerKind::Redis => redis::start(&room, &settings)?,
    };
    room.watch(&server.child)?;
    if !server.wait_until_ready(&stop)? {
        return server.end();
    }
    json_line(&Listening { listening: server.listening.display().to_string(), pid: server.child.id() })?;
    while server.child.try_wait().context("look after the server")?.is_none() {
        if stop.wait_or(None, Some(LOOK))? == Woken::Stop {
            return server.end();
        }
    }
    bail!("the server ended by itself: {}", server.last_words())
}

/// `NAME=VALUE` of the server's own configuration.
struct Setting {
    name: String,
    value: String,
}

impl Setting {
    fn parse(text: &str) -> Result<Self> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok(Self { name: name.to_owned(), value: value.to_owned() }),
            _ => bail!("--set {text:?}: want NAME=VALUE, like synchronous_commit=off"),
        }
    }
}

/// A server that was started.
struct Server {
    child: Child,
    /// What a client is given to find it.
    listening: PathBuf,
    log: PathBuf,
    /// What asks it to end in an orderly way.
    ending: rustix::process::Signal,
    /// Whether it answers.
    answers: fn(&Path) -> Result<()>,
}

impl Server {
    /// `false` when a stop is wanted first.
    fn wait_until_ready(&mut self, stop: &Stop) -> Result<bool> {
        let end = clock::monotonic() + START_PATIENCE;
        loop {
            let error = match (self.answers)(&self.listening) {
                Ok(()) => return Ok(true),
                Err(error) => error,
            };
            if let Some(status) = self.child.try_wait().context("look after the server")? {
                bail!("the server did not start ({status}): {}", self.last_words());
            }
            if clock::monotonic() >= end {
                bail!("the server does not answer ({error:#}): {}", self.last_words());
            }
            if stop.wait_or(None, Some(LOOK))? == Woken::Stop {
                return Ok(false);
            }
        }
    }

    fn last_words(&self) -> String {
        let tail = || -> std::io::Result<String> {
            let mut file = std::fs::File::open(&self.log)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
        };
        tail().unwrap_or_else(|error| format!("its log cannot be read: {error}"))
    }

    fn end(mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, self.ending).context("ask the server to stop")?;
        let end = clock::monotonic() + STOP_PATIENCE;
        while self.child.try_wait().context("wait for the server")?.is_none() {
            if clock::monotonic() >= end {
                note("tidegate-lab serve: the server does not stop in time; it is killed");
                break;
            }
            crate::time::sleep(Nanos::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended already needs no killing, and one that was waited for is not killed again.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.child.kill().and_then(|()| self.child.wait()).ok();
        }
    }
}

/// The newest of Debian's folders of versions, or a folder of the path, that holds all of `programs`.
fn folder_of(versions: Option<&Path>, programs: &[&str]) -> Option<PathBuf> {
    let versioned = versions.and_then(|root| std::fs::read_dir(root).ok()).into_iter().flatten().flatten();
    let mut versioned: Vec<(u32, PathBuf)> = versioned
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versioned.sort_unstable_by(|a, b| b.cmp(a));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let mut folders = versioned.into_iter().map(|(_, folder)| folder).chain(on_path);
    folders.find(|folder| programs.iter().all(|program| folder.join(program).is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_that_is_whole_is_taken() {
        let root = tempfile::tempdir().unwrap();
        for (version, programs) in
            [("9", &["a", "b"][..]), ("15", &["a", "b"]), ("16", &["a"]), ("common", &["a", "b"])]
        {
            let bin = root.path().join(version).join("bin");
            std::fs::create_dir_all(&bin).unwrap();
            for program in programs {
                std::fs::write(bin.join(program), "").unwrap();
            }
        }
        assert_eq!(folder_of(Some(root.path()), &["a", "b"]), Some(root.path().join("15/bin")));
        assert_eq!(folder_of(Some(root.path()), &["no such program"]), None);
    }

    #[test]
    fn a_setting_has_a_name_and_a_value_that_may_hold_anything() {
        let setting = Setting::parse("save=60 1=2").unwrap();
        assert_eq!((setting.name.as_str(), setting.value.as_str()), ("save", "60 1=2"));
        assert!(Setting::parse("=x").is_err() && Setting::parse("x").is_err());
    }
}
