//! Flushes into a stream of Redis: one command a record, all of them in one pipeline, all answered when this returns. The
//! stream is kept short, so that a long run does not fill the server's memory.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use redis::{Connection, Pipeline};
use tidegate_client::Nanos;

use super::{Flush, Opening};
use crate::servers::contact::connect_redis;

/// Entries kept, more or less: Redis trims by whole nodes.
const KEPT: u32 = 100_000;

/// A connection and the key of the stream.
pub(crate) struct RedisOutlet {
    connection: Connection,
    key: String,
    socket: PathBuf,
}

impl RedisOutlet {
    pub(super) fn open(socket: &Path, name: &str, opening: Opening, patience: Nanos) -> Result<Self> {
        let mut connection = connect_redis(socket, patience)?;
        let key = format!("tidegate-lab:{name}");
        if opening == Opening::Fresh {
            // Only the laboratory names a key like this.
            redis::cmd("DEL").arg(&key).exec(&mut connection).with_context(|| format!("empty the stream {key}"))?;
        }
        Ok(Self { connection, key, socket: socket.to_owned() })
    }

    pub(super) fn flush(&mut self, flush: &Flush<'_>) -> Result<u64> {
        let mut pipeline = Pipeline::with_capacity(flush.records.len());
        let mut bytes = 0;
        for record in flush.records {
            let add = pipeline.cmd("XADD").arg(&self.key).arg("MAXLEN").arg("~").arg(KEPT);
            add.arg("*").arg("record").arg(&*record.bytes).ignore();
            bytes += record.bytes.len() as u64;
        }
        match pipeline.exec(&mut self.connection) {
            Ok(()) => Ok(bytes),
            Err(error) => bail!("write to Redis at {}: {error}", self.socket.display()),
        }
    }
}
