//! A recording as a source: its records in the order in which they came, as fast as they are asked for. Never waits.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::event::RawBatch;
use crate::source::recording::{Host, Reader, Tail};
use crate::source::{EventSource, Pulled, SourceError};
use crate::units::Nanos;

/// A recording that is being replayed.
#[derive(Debug)]
pub struct ReplaySource<R: Read> {
    reader: Reader<R>,
}

impl ReplaySource<File> {
    /// Opens the recording at `path`.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        Ok(Self { reader: Reader::open(path)? })
    }
}

impl<R: Read> ReplaySource<R> {
    /// Replays what `reader` reads.
    pub fn new(reader: Reader<R>) -> Self {
        Self { reader }
    }

    /// Where it was recorded.
    pub fn host(&self) -> &Host {
        self.reader.host()
    }

    /// How it ended; nothing before the end was reached.
    pub fn tail(&self) -> Option<Tail> {
        self.reader.tail()
    }

    /// Appends the records up to the next tick.
    pub fn step(&mut self, batch: &mut RawBatch) -> Result<Pulled, SourceError> {
        Ok(if self.reader.next(batch)? { Pulled::Batch } else { Pulled::End })
    }
}

impl<R: Read> EventSource for ReplaySource<R> {
    async fn pull(&mut self, _until: Nanos, batch: &mut RawBatch) -> Result<Pulled, SourceError> {
        self.step(batch)
    }
}
