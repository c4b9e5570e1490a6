//! Flushes as they go over a stream: to a sink process, which acknowledges each, or to a file, which is synced.
//! A header and a packed body come in; nothing is kept here.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tidegate_client::Nanos;

use super::Flush;
use crate::net::{Address, Stream};
use crate::wire::FlushHeader;

/// A sink that neither takes nor acknowledges for so long is connected to anew.
const SINK_PATIENCE: Duration = Duration::from_secs(30);

/// A sink process.
pub(crate) struct SocketOutlet(Stream);

impl SocketOutlet {
    pub(super) fn open(address: &Address, patience: Nanos) -> Result<Self> {
        let stream = Stream::connect_patiently(address, patience).context("sink")?;
        stream.set_timeouts(SINK_PATIENCE).context("set a timeout")?;
        Ok(Self(stream))
    }

    pub(super) fn flush(&mut self, flush: &Flush<'_>) -> Result<u64> {
        write_flush(&mut self.0, &flush.header, flush.body)?;
        await_sink(&mut self.0, flush.header.id)?;
        Ok(flush.body.len() as u64)
    }
}

/// A file that grows.
pub(crate) struct FileOutlet(File);

impl FileOutlet {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        Ok(Self(file.with_context(|| format!("open sink file {}", path.display()))?))
    }

    pub(super) fn flush(&mut self, flush: &Flush<'_>) -> Result<u64> {
        write_flush(&mut self.0, &flush.header, flush.body)?;
        sync_flush(&self.0)?;
        Ok(flush.body.len() as u64)
    }
}

#[inline(never)]
fn write_flush(to: &mut impl Write, header: &FlushHeader, body: &[u8]) -> Result<()> {
    let header = header.to_bytes();
    let mut parts = [std::io::IoSlice::new(&header), std::io::IoSlice::new(body)];
    let mut parts = &mut parts[..];
    while !parts.is_empty() {
        match to.write_vectored(parts) {
            Ok(0) => bail!("write a flush: the sink takes nothing"),
            Ok(n) => std::io::IoSlice::advance_slices(&mut parts, n),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e).context("write a flush"),
        }
    }
    Ok(())
}

#[inline(never)]
fn await_sink(stream: &mut Stream, id: u64) -> Result<()> {
    let mut ack = [0; 8];
    stream.read_exact(&mut ack).context("wait for the sink's acknowledgement")?;
    match u64::from_le_bytes(ack) {
        got if got == id => Ok(()),
        got => bail!("sink acknowledged flush {got}, not {id}"),
    }
}

#[inline(never)]
fn sync_flush(file: &File) -> Result<()> {
    file.sync_data().context("sync the sink file")
}
