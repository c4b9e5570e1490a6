//! Makes tables of files, on a thread of its own: a big program never delays a tick. Files in, tables out, through two
//! bounded queues; it never decides what becomes of a table.

use std::fs::File;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::elf::{Limits, TableError};
use super::table::Table;
use crate::kernel::memory::give_memory_back;

/// Files that may wait, each with a descriptor; those behind them wait in the agent's own list.
const QUEUE: usize = 16;
/// CPU seconds for one file.
const MOST_SECONDS: i64 = 20;

/// A file whose table is wanted.
#[derive(Debug)]
pub(super) struct Job {
    /// Its number.
    pub(super) file: u32,
    /// Its size.
    pub(super) size: u64,
    /// Its bytes.
    pub(super) source: Source,
}

/// Where the bytes of a file are.
#[derive(Debug)]
pub(super) enum Source {
    /// A file, open.
    File(File),
    /// In memory.
    Bytes(Vec<u8>),
}

/// A file whose table has been tried.
#[derive(Debug)]
pub(super) struct Made {
    /// Its number.
    pub(super) file: u32,
    /// Its table, or why there is none.
    pub(super) table: Result<Table, TableError>,
}

/// The thread and its queues. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Loader {
    jobs: SyncSender<Job>,
    made: Receiver<Made>,
}

impl Loader {
    /// Starts the thread.
    pub(super) fn start() -> io::Result<Self> {
        let (jobs, inbox) = sync_channel::<Job>(QUEUE);
        let (outbox, made) = sync_channel(QUEUE);
        std::thread::Builder::new().name("tidegate-tables".to_owned()).spawn(move || {
            while let Some(job) = next(&inbox) {
                let made = Made { file: job.file, table: make(&job.source) };
                if outbox.send(made).is_err() {
                    return; // Nobody wants it any more.
                }
            }
        })?;
        Ok(Self { jobs, made })
    }

    /// Hands a job over, or gives it back.
    pub(super) fn give(&self, job: Job) -> Result<(), Job> {
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(job) | TrySendError::Disconnected(job) => job,
        })
    }

    /// The next table that is ready.
    pub(super) fn ready(&self) -> Option<Made> {
        self.made.try_recv().ok()
    }

    /// Waits for a table no longer than `time`.
    pub(super) fn wait(&self, time: Duration) -> Option<Made> {
        self.made.recv_timeout(time).ok()
    }
}

/// The next job. Before it waits for one it gives back what the last ones took: the tables of a big program take tens of
/// MiB to make, and the allocator would keep them for the next.
fn next(inbox: &Receiver<Job>) -> Option<Job> {
    inbox.try_recv().ok().or_else(|| {
        give_memory_back();
        inbox.recv().ok()
    })
}

fn make(source: &Source) -> Result<Table, TableError> {
    let begin = clock_gettime(ClockId::ThreadCPUTime).tv_sec;
    let mut go_on = || clock_gettime(ClockId::ThreadCPUTime).tv_sec - begin < MOST_SECONDS;
    match source {
        Source::File(file) => Table::of_file(file, Limits::default(), &mut go_on),
        Source::Bytes(bytes) => Table::of_bytes(bytes, Limits::default(), &mut go_on),
    }
}
