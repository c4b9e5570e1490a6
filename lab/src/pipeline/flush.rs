//! Batches out: one thread takes a batch, lays its records together, compresses them, writes them to the sink, waits for
//! the acknowledgement and passes it on. A sink that fails is tried again with the same batch for as long as it takes.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tidegate_client::{Batch, Batcher, Nanos, clock};

use super::counters::Counters;
use super::intake::{Connections, Record};
use crate::net::{Address, Stream};
use crate::out::note;
use crate::time::sleep;
use crate::wire::FlushHeader;

const CONNECT_PATIENCE: Nanos = Nanos::from_millis(5_000);
const RETRY: Nanos = Nanos::from_millis(100);
/// A sink that neither takes nor acknowledges for so long is connected to anew.
const SINK_PATIENCE: Duration = Duration::from_secs(30);

/// Where flushes go.
#[derive(Clone, Debug)]
pub(crate) enum SinkTarget {
    /// A process that acknowledges each flush.
    Socket(Address),
    /// A file: written, then synced.
    File(PathBuf),
}

impl SinkTarget {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        match text.strip_prefix("file:") {
            Some("") => bail!("sink \"file:\": a path is missing, like file:/tmp/lab.out"),
            Some(path) => Ok(Self::File(path.into())),
            None => text.parse().map(Self::Socket).map_err(|e| anyhow::anyhow!("sink: {e}, or file:PATH")),
        }
    }
}

enum Outlet {
    Socket(Stream),
    File(File),
}

impl Outlet {
    fn open(target: &SinkTarget, patience: Nanos) -> Result<Self> {
        match target {
            SinkTarget::Socket(address) => {
                let stream = Stream::connect_patiently(address, patience).context("sink")?;
                stream.set_timeouts(SINK_PATIENCE).context("set a timeout")?;
                Ok(Self::Socket(stream))
            }
            SinkTarget::File(path) => {
                let file = OpenOptions::new().create(true).append(true).open(path);
                Ok(Self::File(file.with_context(|| format!("open sink file {}", path.display()))?))
            }
        }
    }
}

/// The flushing end of a pipeline.
pub(crate) struct Flusher {
    outlet: Outlet,
    target: SinkTarget,
    next_id: u64,
    raw: Vec<u8>,
    body: Vec<u8>,
}

impl Flusher {
    /// Connects to the sink: a pipeline without one does not start.
    pub(crate) fn open(target: SinkTarget) -> Result<Self> {
        let outlet = Outlet::open(&target, CONNECT_PATIENCE)?;
        Ok(Self { outlet, target, next_id: 1, raw: Vec::new(), body: Vec::new() })
    }

    /// Flushes until the batcher is closed and empty.
    pub(crate) fn run(
        mut self,
        batcher: &Batcher<Record>,
        connections: &Arc<Connections>,
        counters: &Counters,
    ) -> Result<()> {
        while let Some(batch) = batcher.next_batch() {
            let began = clock::monotonic();
            self.raw.clear();
            for record in batch.items() {
                batch_record(&mut self.raw, record);
            }
            compress_batch(&self.raw, &mut self.body)?;
            self.deliver(&batch, counters);
            let took = clock::monotonic() - began;
            counters.flushed(batch.cause(), batch.events(), batch.bytes().0, self.body.len() as u64, took);
            connections.acknowledge_records(batch.items());
            batch.acknowledge();
        }
        Ok(())
    }

    /// Returns when the sink has the flush, however often it takes.
    fn deliver(&mut self, batch: &Batch<Record>, counters: &Counters) {
        let header = FlushHeader { length: self.body.len(), records: batch.events(), id: self.next_id };
        self.next_id += 1;
        while let Err(error) = self.attempt(header) {
            note(&format!("tidegate-lab pipeline: flush {}: {error:#}; trying again", header.id));
            batch.note_failure();
            counters.sink_failed();
            sleep(RETRY);
            match Outlet::open(&self.target, Nanos(0)) {
                Ok(outlet) => self.outlet = outlet,
                Err(error) => note(&format!("tidegate-lab pipeline: {error:#}")),
            }
        }
    }

    fn attempt(&mut self, header: FlushHeader) -> Result<()> {
        match &mut self.outlet {
            Outlet::Socket(stream) => {
                write_flush(stream, &header, &self.body)?;
                await_sink(stream, header.id)
            }
            Outlet::File(file) => {
                write_flush(file, &header, &self.body)?;
                sync_flush(file)
            }
        }
    }
}

#[inline(never)]
fn batch_record(raw: &mut Vec<u8>, record: &Record) {
    raw.extend_from_slice(&record.bytes);
}

#[inline(never)]
fn compress_batch(raw: &[u8], body: &mut Vec<u8>) -> Result<()> {
    body.clear();
    body.extend_from_slice(&u32::try_from(raw.len()).context("batch beyond 4 GiB")?.to_le_bytes());
    body.resize(4 + lz4_flex::block::get_maximum_output_size(raw.len()), 0);
    let n = lz4_flex::block::compress_into(raw, &mut body[4..]).context("compress a batch")?;
    body.truncate(4 + n);
    Ok(())
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
