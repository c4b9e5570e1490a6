//! Records in: one thread a connection reads, parses and queues. A full queue stops the reading, and so the sender;
//! nothing is dropped.

use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use tidegate_client::{Batcher, Bytes};

use super::counters::Counters;
use crate::net::{Listener, Stream};
use crate::out::note;
use crate::wire::{RECORD_MAX, RecordView};

/// Bytes asked for in one read.
const CHUNK: usize = 256 << 10;
/// A load that does not take its acknowledgements for so long has gone astray.
const ACK_PATIENCE: Duration = Duration::from_secs(5);

/// One record on its way through the pipeline.
#[derive(Debug)]
pub(crate) struct Record {
    /// Which connection it came by.
    pub(crate) connection: u64,
    /// The record as it came over the wire.
    pub(crate) bytes: Box<[u8]>,
}

/// The connections: who gets which acknowledgement.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    open: HashMap<u64, Connection>,
    readers: Vec<JoinHandle<()>>,
    intake: Intake,
}

#[derive(Debug)]
struct Connection {
    stream: Stream,
    acknowledged: u64,
    /// How many records came in all, known once the sender is done.
    total: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Intake {
    #[default]
    Open,
    Ended,
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends all reading: what the kernel already holds is still read.
    pub(crate) fn end_reading(&self) {
        let readers = {
            let mut table = self.lock();
            table.intake = Intake::Ended;
            for connection in table.open.values() {
                // One that is gone needs no ending.
                connection.stream.shutdown(Shutdown::Read).ok();
            }
            std::mem::take(&mut table.readers)
        };
        for reader in readers {
            if reader.join().is_err() {
                note("tidegate-lab pipeline: a reader panicked; its connection's last records may be missing");
            }
        }
    }

    /// Tells each sender how many of its records the sink has.
    #[inline(never)]
    pub(crate) fn acknowledge_records(&self, records: &[Record]) {
        let mut table = self.lock();
        for run in records.chunk_by(|a, b| a.connection == b.connection) {
            let id = run[0].connection;
            let Some(connection) = table.open.get_mut(&id) else { continue };
            connection.acknowledged += run.len() as u64;
            let all = connection.total == Some(connection.acknowledged);
            let told = connection.stream.write_all(&connection.acknowledged.to_le_bytes());
            if let Err(error) = &told {
                note(&format!("tidegate-lab pipeline: acknowledge to connection {id}: {error}"));
            }
            if all || told.is_err() {
                table.open.remove(&id);
            }
        }
    }

    fn add(&self, stream: Stream) -> Option<u64> {
        let mut table = self.lock();
        if table.intake == Intake::Ended {
            return None;
        }
        table.next += 1;
        let id = table.next;
        table.open.insert(id, Connection { stream, acknowledged: 0, total: None });
        Some(id)
    }

    fn sender_is_done(&self, id: u64, total: u64) {
        let mut table = self.lock();
        if let Some(connection) = table.open.get_mut(&id) {
            connection.total = Some(total);
            if connection.acknowledged == total {
                table.open.remove(&id);
            }
        }
    }
}

/// Accepts connections for ever; each gets a reader of its own.
pub(crate) fn accept_connections(
    listener: &Listener,
    connections: &Arc<Connections>,
    batcher: &Batcher<Record>,
    counters: &Arc<Counters>,
) {
    loop {
        let accepted = listener.accept().map_err(anyhow::Error::from).and_then(|stream| {
            let writer = stream.try_clone().context("second handle on a connection")?;
            writer.set_timeouts(ACK_PATIENCE).context("set a timeout")?;
            Ok((stream, writer))
        });
        let (stream, writer) = match accepted {
            Ok(both) => both,
            Err(error) => {
                note(&format!("tidegate-lab pipeline: accept: {error:#}"));
                crate::time::sleep(tidegate_client::Nanos::from_millis(100));
                continue;
            }
        };
        let Some(id) = connections.add(writer) else { return };
        let (of_reader, batcher, counters) = (Arc::clone(connections), batcher.clone(), Arc::clone(counters));
        let read = move || {
            let mut reader = Reader { stream, id, buffer: Vec::new(), records: VecDeque::new(), total: 0 };
            if let Err(error) = reader.run(&batcher, &counters) {
                note(&format!("tidegate-lab pipeline: connection {id}: {error:#}"));
            }
            of_reader.sender_is_done(id, reader.total);
        };
        match thread::Builder::new().name("lab-read".into()).spawn(read) {
            Ok(handle) => connections.lock().readers.push(handle),
            Err(error) => note(&format!("tidegate-lab pipeline: start a reader: {error}")),
        }
    }
}

struct Reader {
    stream: Stream,
    id: u64,
    buffer: Vec<u8>,
    records: VecDeque<(Record, Bytes)>,
    total: u64,
}

impl Reader {
    fn run(&mut self, batcher: &Batcher<Record>, counters: &Counters) -> Result<()> {
        let mut filled = 0;
        self.buffer.resize(CHUNK, 0);
        loop {
            let n = read_records(&mut self.stream, &mut self.buffer[filled..])?;
            if n == 0 {
                return Ok(());
            }
            filled += n;
            let parsed = self.parse_chunk(filled)?;
            self.buffer.copy_within(parsed..filled, 0);
            filled -= parsed;
            if filled == self.buffer.len() {
                // A record longer than a chunk: its length has passed the check, so this ends.
                self.buffer.resize((filled * 2).min(RECORD_MAX), 0);
            }
            let events = self.records.len() as u64;
            if events > 0 {
                counters.taken(events);
                self.total += events;
                batcher.push_all(&mut self.records).context("queue records")?;
            }
        }
    }

    /// Parses the whole records among the first `filled` bytes; returns how many bytes they took.
    fn parse_chunk(&mut self, filled: usize) -> Result<usize> {
        let mut at = 0;
        while let Some((record, length)) = parse_record(&self.buffer[at..filled], self.id)? {
            self.records.push_back((record, Bytes(length as u64)));
            at += length;
        }
        Ok(at)
    }
}

#[inline(never)]
fn read_records(stream: &mut Stream, into: &mut [u8]) -> Result<usize> {
    loop {
        match stream.read(into) {
            // The write side's timeout is one of the whole socket; a sender may be silent for as long as it likes.
            Err(e) if crate::net::is_timeout(&e) => {}
            other => return other.context("read records"),
        }
    }
}

#[inline(never)]
fn parse_record(bytes: &[u8], connection: u64) -> Result<Option<(Record, usize)>> {
    let Some((_, length)) = RecordView::parse(bytes)? else { return Ok(None) };
    Ok(Some((Record { connection, bytes: bytes[..length].into() }, length)))
}
