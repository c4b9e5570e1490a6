//! Batches out: one thread takes a batch, packs its records as the sink wants them, hands them over, waits until the sink
//! has them and passes that on. A sink that fails is tried again with the same batch for as long as it takes.

use std::sync::Arc;

use anyhow::{Context, Result};
use tidegate_client::{Batch, Batcher, Nanos, clock};

use super::counters::Counters;
use super::intake::{Connections, Record};
use super::outlet::{Flush, Opening, Outlet, Packing, SinkTarget};
use crate::out::note;
use crate::time::sleep;
use crate::wire::FlushHeader;

const CONNECT_PATIENCE: Nanos = Nanos::from_millis(5_000);
const RETRY: Nanos = Nanos::from_millis(100);

/// The flushing end of a pipeline.
pub(crate) struct Flusher {
    outlet: Outlet,
    target: SinkTarget,
    name: String,
    next_id: u64,
    raw: Vec<u8>,
    body: Vec<u8>,
}

impl Flusher {
    /// Connects to the sink: a pipeline without one does not start.
    pub(crate) fn open(target: SinkTarget, name: &str) -> Result<Self> {
        let outlet = Outlet::open(&target, name, Opening::Fresh, CONNECT_PATIENCE)?;
        Ok(Self { outlet, target, name: name.to_owned(), next_id: 1, raw: Vec::new(), body: Vec::new() })
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
            if self.target.packing() == Packing::Compressed {
                self.raw.clear();
                for record in batch.items() {
                    batch_record(&mut self.raw, record);
                }
                compress_batch(&self.raw, &mut self.body)?;
            }
            let written = self.deliver(&batch, counters);
            let took = clock::monotonic() - began;
            counters.flushed(batch.cause(), batch.events(), batch.bytes().0, written, took);
            connections.acknowledge_records(batch.items());
            batch.acknowledge();
        }
        Ok(())
    }

    /// Returns when the sink has the flush, however often it takes; how many bytes it came to.
    fn deliver(&mut self, batch: &Batch<Record>, counters: &Counters) -> u64 {
        let header = FlushHeader { length: self.body.len(), records: batch.events(), id: self.next_id };
        self.next_id += 1;
        loop {
            let flush = Flush { header, records: batch.items(), body: &self.body };
            match self.outlet.flush(&flush) {
                Ok(written) => return written,
                Err(error) => {
                    note(&format!("tidegate-lab pipeline: flush {}: {error:#}; trying again", header.id));
                }
            }
            batch.note_failure();
            counters.sink_failed();
            sleep(RETRY);
            match Outlet::open(&self.target, &self.name, Opening::Again, Nanos(0)) {
                Ok(outlet) => self.outlet = outlet,
                Err(error) => note(&format!("tidegate-lab pipeline: {error:#}")),
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
