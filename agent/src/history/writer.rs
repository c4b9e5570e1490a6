//! The thread that writes: records in by a bounded queue, transactions out. A database that is damaged is put aside and a
//! new one begun; a disk that takes nothing costs the records meanwhile, and each of them is counted.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use super::directory::Directory;
use super::status::{Shared, Status};
use super::store::{Store, When};
use super::{HistoryError, Keeping, Reader};
use crate::profile::Packed;
use crate::source::clock::{monotonic, wall};
use crate::units::Nanos;

/// Records that may wait.
const CAPACITY: usize = 256;
/// Records of one transaction.
const BATCH: usize = 64;
/// Time for which notes wait for others, so that a quiet host does not write all the time.
const GATHER: Duration = Duration::from_secs(2);

/// What is kept.
#[derive(Clone, Debug)]
pub enum Record {
    /// A profile window.
    Window(Packed),
    /// A line about a pipeline.
    Note(Note),
}

/// A line about a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What it tells.
    pub kind: NoteKind,
    /// The pipeline.
    pub pipeline: String,
    /// When, monotonic clock.
    pub at: Nanos,
    /// The line, JSON.
    pub json: String,
}

/// What a note tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteKind {
    /// A decision.
    Decision,
    /// Signals.
    Signals,
}

impl NoteKind {
    /// Its name in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Decision => "decision",
            Self::Signals => "signals",
        }
    }
}

enum Job {
    Keep(Record),
    /// A reader met damage.
    Suspect,
}

/// A handle to the thread; cheap to clone. The thread ends with the last handle, after what waits is written.
#[derive(Clone, Debug)]
pub struct History {
    jobs: SyncSender<Job>,
    status: Shared,
    reader: Reader,
}

impl History {
    /// Takes the directory and starts the thread; the database is opened there, since a big one takes its time.
    pub fn start(keeping: Keeping) -> Result<Self, HistoryError> {
        let directory = Directory::hold(&keeping.directory)?;
        let boot = boot_id().map_err(|cause| {
            let cause = format!("read the id of this boot: {cause}");
            HistoryError::Directory { directory: keeping.directory.clone(), cause }
        })?;
        let (jobs, queue) = sync_channel(CAPACITY);
        let status = Shared::default();
        let reader = Reader::new(directory.database(), boot.clone());
        let mut writer = Writer { directory, boot, keeping, store: None, status: status.clone(), began: None };
        let work = move || writer.work(&queue);
        let started = std::thread::Builder::new().name("tg-history".to_owned()).spawn(work);
        started.map_err(|cause| HistoryError::Directory {
            directory: reader.file().to_owned(),
            cause: format!("start its thread: {cause}"),
        })?;
        Ok(Self { jobs, status, reader })
    }

    /// Hands a record over. Never waits: when the thread is behind, the record is lost and counted.
    pub fn keep(&self, record: Record) {
        match self.jobs.try_send(Job::Keep(record)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.status.change(|status| status.lost.queue_full += 1);
            }
        }
    }

    /// How it does.
    pub fn status(&self) -> Status {
        self.status.read()
    }

    /// For queries.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// A reader found `records` damaged ones, or the database itself.
    pub fn found_damage(&self, records: u64, error: Option<&HistoryError>) {
        self.status.change(|status| status.lost.damaged += records);
        // It is tested when the thread comes to it; if the queue is full, the next query finds it again.
        if error.is_some_and(HistoryError::is_damage)
            && let Err(TrySendError::Disconnected(_)) = self.jobs.try_send(Job::Suspect)
        {
            tracing::error!("the thread of the history has ended");
        }
    }
}

struct Writer {
    directory: Directory,
    boot: String,
    keeping: Keeping,
    store: Option<Store>,
    status: Shared,
    /// Both clocks at the start.
    began: Option<When>,
}

impl Writer {
    fn work(&mut self, queue: &Receiver<Job>) {
        if let Err(errno) = rustix::process::nice(10) {
            tracing::debug!(%errno, "lower the priority of the history");
        }
        self.began = Some(When { now: monotonic(), wall: wall() });
        self.put(&[]);
        while let Some(records) = self.gather(queue) {
            self.put(&records);
        }
    }

    /// The records of the next transaction: a window goes at once, with all that waits; a note waits for others.
    fn gather(&mut self, queue: &Receiver<Job>) -> Option<Vec<Record>> {
        let mut records = Vec::new();
        let mut first = Some(queue.recv().ok()?);
        while records.len() < BATCH {
            let job = match first.take() {
                Some(job) => Ok(job),
                None if matches!(records.last(), Some(Record::Window(_)) | None) => match queue.try_recv() {
                    Ok(job) => Ok(job),
                    Err(_empty) => break,
                },
                None => queue.recv_timeout(GATHER),
            };
            match job {
                Ok(Job::Keep(record)) => records.push(record),
                Ok(Job::Suspect) => self.store = None, // It is tested when it is opened anew.
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        Some(records)
    }

    fn put(&mut self, records: &[Record]) {
        let mut outcome = self.try_put(records);
        if let Err(error) = &outcome
            && error.is_damage()
        {
            let why = error.to_string();
            self.store = None;
            match self.directory.put_aside() {
                Ok(aside) => {
                    let text = format!("{why}; it was put aside as {} and a new one begun", aside.display());
                    tracing::warn!("{text}");
                    self.status.change(|status| status.put_aside = Some(text));
                    outcome = self.try_put(records);
                }
                Err(cause) => tracing::warn!(%cause, "put the damaged history aside"),
            }
        }
        match outcome {
            Ok((bytes, windows)) => self.status.change(|status| {
                status.taken += records.len() as u64;
                (status.bytes, status.windows, status.problem) = (bytes, windows, None);
            }),
            Err(error) => {
                // It is opened anew at the next record: by then there may be room.
                self.store = None;
                let text = error.to_string();
                self.status.change(|status| {
                    status.lost.not_written += records.len() as u64;
                    if status.problem.is_none() {
                        tracing::warn!("{text}");
                    }
                    status.problem = Some(text);
                });
            }
        }
    }

    fn try_put(&mut self, records: &[Record]) -> Result<(u64, u64), HistoryError> {
        if self.store.is_none() {
            self.store = Some(Store::open(&self.directory.database(), &self.boot, &self.keeping)?);
        }
        let when = self.when();
        let Some(store) = &mut self.store else { return Ok((0, 0)) };
        store.put(records, when)?;
        store.size()
    }

    /// Both clocks. A wall clock that jumped forward since the start must not make everything old at once.
    fn when(&self) -> When {
        let (now, wall) = (monotonic(), wall());
        let latest = self.began.map_or(wall, |began| began.wall + now.since(began.now));
        When { now, wall: wall.min(latest) }
    }
}

fn boot_id() -> std::io::Result<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|text| text.trim().to_owned())
}

/// Where the database of a directory lies, for tests that damage it.
pub fn database_in(directory: &std::path::Path) -> PathBuf {
    directory.join("history.db")
}
