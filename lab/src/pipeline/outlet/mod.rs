//! Where flushes go: a sink process, a file, PostgreSQL or Redis. A flush comes in, and when this returns the other side
//! has it for as long as it keeps anything: acknowledged, synced or committed. Never tries a flush a second time.

mod postgres;
mod redis;
mod stream;

use std::path::PathBuf;

use anyhow::{Result, bail};
use tidegate_client::Nanos;

use super::intake::Record;
use crate::net::Address;
use crate::servers::contact::PostgresAt;
use crate::wire::FlushHeader;
use postgres::PostgresOutlet;
use redis::RedisOutlet;
use stream::{FileOutlet, SocketOutlet};

/// Where flushes go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SinkTarget {
    /// A process that acknowledges each flush.
    Socket(Address),
    /// A file: appended to, then synced.
    File(PathBuf),
    /// A table in PostgreSQL, one transaction a flush.
    Postgres(PostgresAt, Insertion),
    /// A stream in Redis, one pipeline of commands a flush; the path is that of its socket.
    Redis(PathBuf),
}

/// How rows get into a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Insertion {
    /// `COPY … FROM STDIN (FORMAT binary)`.
    Copy,
    /// One `INSERT` of many rows.
    Insert,
}

const WANT: &str = "want HOST:PORT or unix:PATH of a sink, file:PATH, postgres:copy:DIR, postgres:insert:DIR or \
                    redis:SOCKET";

impl SinkTarget {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        match kind {
            "file" | "redis" | "postgres" if rest.is_empty() => bail!("sink {text:?}: a path is missing; {WANT}"),
            "file" => Ok(Self::File(rest.into())),
            "redis" => Ok(Self::Redis(rest.into())),
            "postgres" => match rest.split_once(':') {
                Some(("copy", at)) if !at.is_empty() => Ok(Self::Postgres(PostgresAt::parse(at), Insertion::Copy)),
                Some(("insert", at)) if !at.is_empty() => Ok(Self::Postgres(PostgresAt::parse(at), Insertion::Insert)),
                _ => bail!("sink {text:?}: {WANT}"),
            },
            _ => text.parse().map(Self::Socket).map_err(|_unused| anyhow::anyhow!("sink {text:?}: {WANT}")),
        }
    }

    /// What goes out of a flush: a packed body, or its records one by one.
    pub(crate) fn packing(&self) -> Packing {
        match self {
            Self::Socket(_) | Self::File(_) => Packing::Compressed,
            Self::Postgres(..) | Self::Redis(_) => Packing::Records,
        }
    }
}

/// The form in which an outlet takes a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    /// All records laid together and compressed.
    Compressed,
    /// Each record by itself: a row, an entry.
    Records,
}

/// What is flushed.
pub(crate) struct Flush<'a> {
    /// Length of the body, number of records, identity.
    pub(crate) header: FlushHeader,
    /// The records.
    pub(crate) records: &'a [Record],
    /// The same, packed; empty for an outlet that takes records.
    pub(crate) body: &'a [u8],
}

/// Whether what an earlier run left behind is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// The first time: an old table or stream of the same name is emptied.
    Fresh,
    /// After a failure: what is there is of this run.
    Again,
}

/// An open way to where flushes go.
pub(crate) enum Outlet {
    Socket(SocketOutlet),
    File(FileOutlet),
    Postgres(Box<PostgresOutlet>),
    Redis(Box<RedisOutlet>),
}

impl Outlet {
    /// Connects, trying again for `patience`; `name` is the pipeline's, under which a database keeps the records.
    pub(crate) fn open(target: &SinkTarget, name: &str, opening: Opening, patience: Nanos) -> Result<Self> {
        Ok(match target {
            SinkTarget::Socket(address) => Self::Socket(SocketOutlet::open(address, patience)?),
            SinkTarget::File(path) => Self::File(FileOutlet::open(path)?),
            SinkTarget::Postgres(at, how) => {
                Self::Postgres(Box::new(PostgresOutlet::open(at, *how, name, opening, patience)?))
            }
            SinkTarget::Redis(socket) => Self::Redis(Box::new(RedisOutlet::open(socket, name, opening, patience)?)),
        })
    }

    /// Returns when the other side has the flush; how many bytes that took of its content.
    pub(crate) fn flush(&mut self, flush: &Flush<'_>) -> Result<u64> {
        match self {
            Self::Socket(outlet) => outlet.flush(flush),
            Self::File(outlet) => outlet.flush(flush),
            Self::Postgres(outlet) => outlet.flush(flush),
            Self::Redis(outlet) => outlet.flush(flush),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_and_bad_ones_named() {
        let parsed = |text: &str| SinkTarget::parse(text).unwrap();
        assert_eq!(parsed("127.0.0.1:80"), SinkTarget::Socket(Address::Tcp("127.0.0.1:80".into())));
        assert_eq!(parsed("unix:/a"), SinkTarget::Socket(Address::Unix("/a".into())));
        assert_eq!(parsed("file:/a"), SinkTarget::File("/a".into()));
        assert_eq!(parsed("redis:/a/redis.sock"), SinkTarget::Redis("/a/redis.sock".into()));
        assert_eq!(parsed("postgres:copy:/a"), SinkTarget::Postgres(PostgresAt::parse("/a"), Insertion::Copy));
        let by_words = SinkTarget::Postgres(PostgresAt::parse("host=/a dbname=b"), Insertion::Insert);
        assert_eq!(parsed("postgres:insert:host=/a dbname=b"), by_words);
        for bad in ["", "file:", "redis:", "postgres:", "postgres:copy", "postgres:copy:", "postgres:upsert:/a", "a"] {
            let error = SinkTarget::parse(bad).unwrap_err().to_string();
            assert!(error.contains(&format!("{bad:?}")) && error.contains("postgres:copy:DIR"), "{error}");
        }
    }
}
