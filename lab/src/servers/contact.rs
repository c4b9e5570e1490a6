//! How to reach a database: a folder, a socket or words in; an open connection out. Never starts a server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use postgres::{Client, Config, NoTls};
use tidegate_client::{Nanos, clock};

use crate::time::sleep;

/// A server that takes longer for one statement or one pipeline is connected to anew.
const PATIENCE: Duration = Duration::from_secs(30);
const RETRY: Nanos = Nanos::from_millis(50);

/// Where a PostgreSQL server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PostgresAt {
    /// A folder with its socket: a server of `tidegate-lab serve`.
    Folder(PathBuf),
    /// `host=… user=… dbname=…`, as PostgreSQL's own programs take it.
    Words(String),
}

impl PostgresAt {
    pub(crate) fn parse(text: &str) -> Self {
        if text.contains('=') { Self::Words(text.to_owned()) } else { Self::Folder(text.into()) }
    }

    pub(crate) fn connect(&self) -> Result<Client> {
        let mut config = match self {
            Self::Folder(folder) => {
                let mut config = Config::new();
                config.host_path(folder).user("postgres").dbname("postgres");
                config
            }
            Self::Words(words) => words.parse().with_context(|| format!("PostgreSQL at {words:?}"))?,
        };
        if config.get_options().is_none() {
            config.options(&format!("-c statement_timeout={}", PATIENCE.as_millis()));
        }
        config.connect(NoTls).with_context(|| format!("connect to PostgreSQL at {} (is it running?)", self.shown()))
    }

    /// Tries again for a while: the server may still be starting.
    pub(crate) fn connect_patiently(&self, patience: Nanos) -> Result<Client> {
        patiently(patience, || self.connect())
    }

    fn shown(&self) -> String {
        match self {
            Self::Folder(folder) => folder.display().to_string(),
            // The words may hold a password.
            Self::Words(_) => "the server that was named".to_owned(),
        }
    }
}

/// Connects to Redis at its socket, trying again for a while.
pub(crate) fn connect_redis(socket: &Path, patience: Nanos) -> Result<redis::Connection> {
    let at = redis::ConnectionAddr::Unix(socket.to_owned());
    let connect = || -> Result<redis::Connection> {
        let connection = redis::Client::open(at.clone())?.get_connection()?;
        connection.set_read_timeout(Some(PATIENCE))?;
        connection.set_write_timeout(Some(PATIENCE))?;
        Ok(connection)
    };
    patiently(patience, || {
        connect().with_context(|| format!("connect to Redis at {} (is it running?)", socket.display()))
    })
}

fn patiently<T>(patience: Nanos, mut connect: impl FnMut() -> Result<T>) -> Result<T> {
    let end = clock::monotonic() + patience;
    loop {
        match connect() {
            Err(_) if clock::monotonic() < end => sleep(RETRY),
            other => return other,
        }
    }
}
