//! The report page: what a pipeline did goes in, a file that the agent reads at its tick comes out. Relaxed atomic adds
//! into a mapped file, no system call. Never holds anything but counts.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

pub use crate::abi::latency_bucket as bucket;
use crate::abi::{
    PAGE_BYTES, REPORT_ABI_VERSION, REPORT_HISTOGRAM_AT, REPORT_HISTOGRAM_WORDS, REPORT_MAGIC, REPORT_WORDS,
    ReportWord, SETTINGS_ABI_AT,
};
use crate::clock;
use crate::page::{Page, PageError, file_id, write_temporary};
use crate::rule::Cause;
use crate::units::{Bytes, Nanos};

/// Only the owner, and the agent as root, may read what a pipeline does.
const REPORT_MODE: u32 = 0o600;
/// Byte at which word 0 lies.
const WORDS_AT: usize = 16;

/// The report page of one pipeline; its file goes away with it.
#[derive(Debug)]
pub struct ReportPage {
    page: Page,
    path: PathBuf,
    file_id: (u64, u64),
}

/// One acknowledged flush.
#[derive(Clone, Copy, Debug)]
pub struct Flushed {
    /// Why it began.
    pub cause: Cause,
    /// Events in it.
    pub events: u64,
    /// Their bytes, before compression.
    pub bytes: Bytes,
    /// From its begin to its acknowledgement.
    pub took: Nanos,
}

impl ReportPage {
    /// Creates `directory/name.report`, a fresh file each time: a reader that still holds the file of a predecessor
    /// never sees counts that fall.
    pub fn create(directory: &Path, name: &str) -> Result<Self, PageError> {
        let path = directory.join(format!("{name}.report"));
        let mut bytes = [0_u8; PAGE_BYTES];
        bytes[..8].copy_from_slice(&REPORT_MAGIC.to_ne_bytes());
        bytes[SETTINGS_ABI_AT..SETTINGS_ABI_AT + 4].copy_from_slice(&REPORT_ABI_VERSION.to_ne_bytes());
        let words = u32::try_from(REPORT_WORDS).unwrap_or(0);
        bytes[SETTINGS_ABI_AT + 4..WORDS_AT].copy_from_slice(&words.to_ne_bytes());
        let temporary = write_temporary(&path, &bytes, REPORT_MODE)?;
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .mode(REPORT_MODE)
            .open(&temporary)
            .map_err(|e| PageError::io("open", &temporary, e))?;
        let meta = file.metadata().map_err(|e| PageError::io("stat", &temporary, e))?;
        let page = Page::map_writable(&file).map_err(|e| PageError::io("map", &temporary, e))?;
        fs::rename(&temporary, &path).map_err(|e| PageError::io("rename", &temporary, e))?;
        Ok(Self { page, path, file_id: file_id(&meta) })
    }

    /// Where the file lies, for the registration.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds to a cumulative word.
    pub fn add(&self, word: ReportWord, n: u64) {
        self.word(word).fetch_add(n, Ordering::Relaxed);
    }

    /// Sets a word that is not cumulative.
    pub fn set(&self, word: ReportWord, value: u64) {
        self.word(word).store(value, Ordering::Relaxed);
    }

    /// A word as it stands.
    pub fn get(&self, word: ReportWord) -> u64 {
        self.word(word).load(Ordering::Relaxed)
    }

    /// Counts `events` with one latency, from arrival to acknowledgement.
    pub fn latency(&self, latency: Nanos, events: u64) {
        self.histogram(bucket(latency)).fetch_add(events, Ordering::Relaxed);
    }

    /// Events counted in bucket `i` of the latency histogram.
    pub fn latency_count(&self, i: usize) -> u64 {
        self.histogram(i.min(REPORT_HISTOGRAM_WORDS - 1)).load(Ordering::Relaxed)
    }

    /// Counts an acknowledged flush. One is in flight at a time, so its words have one writer at a time, and plain loads
    /// and stores do: an atomic addition each would cost more than all the rest.
    pub fn flushed(&self, flush: &Flushed) {
        self.add_alone(ReportWord::EventsOut, flush.events);
        self.add_alone(ReportWord::BytesOut, flush.bytes.0);
        self.add_alone(ReportWord::Flushes, 1);
        self.add_alone(ReportWord::FlushNs, flush.took.0);
        let (bytes, us) = (flush.bytes.0, Nanos(flush.took.0.saturating_add(500)).as_micros());
        self.add_alone(ReportWord::FlushBytesSquared, bytes.wrapping_mul(bytes));
        self.add_alone(ReportWord::FlushBytesUs, bytes.wrapping_mul(us));
        self.add_alone(ReportWord::FlushUsSquared, us.wrapping_mul(us));
        self.add_alone(
            match flush.cause {
                Cause::Age => ReportWord::FlushesByAge,
                Cause::Size => ReportWord::FlushesBySize,
                Cause::Backlog => ReportWord::FlushesByBacklog,
                Cause::Panic => ReportWord::FlushesByPanic,
                Cause::Waiting => ReportWord::FlushesByWaiting,
            },
            1,
        );
    }

    /// Adds to a word that nobody else writes meanwhile.
    fn add_alone(&self, word: ReportWord, n: u64) {
        let word = self.word(word);
        word.store(word.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Notes the time of an update.
    pub fn touch(&self) {
        self.set(ReportWord::UpdatedNs, clock::boottime().0);
    }

    fn word(&self, word: ReportWord) -> &AtomicU64 {
        self.page.word(WORDS_AT + 8 * word as usize)
    }

    fn histogram(&self, i: usize) -> &AtomicU64 {
        self.page.word(WORDS_AT + 8 * (REPORT_HISTOGRAM_AT + i))
    }
}

impl Drop for ReportPage {
    /// Removes the file, unless a successor has put its own in the place.
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|m| file_id(&m) == self.file_id) {
            // Nobody is left to tell: the next page of this name replaces what could not be removed.
            fs::remove_file(&self.path).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use proptest::prelude::*;

    use super::*;

    fn words(path: &Path) -> Vec<u64> {
        let bytes = fs::read(path).unwrap();
        assert_eq!(bytes.len(), PAGE_BYTES);
        bytes.chunks_exact(8).map(|w| u64::from_ne_bytes(w.try_into().unwrap())).collect()
    }

    #[test]
    fn the_file_holds_what_was_reported() {
        let dir = tempfile::tempdir().unwrap();
        let report = ReportPage::create(dir.path(), "ingest").unwrap();
        report.add(ReportWord::EventsIn, 3);
        report.set(ReportWord::EventsLost, 9);
        report.flushed(&Flushed { cause: Cause::Backlog, events: 3, bytes: Bytes(1536), took: Nanos(10) });
        report.flushed(&Flushed { cause: Cause::Age, events: 1, bytes: Bytes(512), took: Nanos(5) });
        report.latency(Nanos(1025), 4);
        let words = words(report.path());
        assert_eq!(words[0], REPORT_MAGIC);
        let word = |w: ReportWord| words[2 + w as usize];
        assert_eq!((word(ReportWord::EventsIn), word(ReportWord::EventsOut), word(ReportWord::BytesOut)), (3, 4, 2048));
        assert_eq!((word(ReportWord::Flushes), word(ReportWord::FlushNs)), (2, 15));
        assert_eq!((word(ReportWord::FlushesByBacklog), word(ReportWord::FlushesByAge)), (1, 1));
        assert_eq!((word(ReportWord::FlushesBySize), word(ReportWord::EventsLost)), (0, 9));
        assert_eq!(words[2 + REPORT_HISTOGRAM_AT + 1], 4, "1,025 ns is one unit");
    }

    #[test]
    fn a_report_is_private_fresh_and_gone_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let old = ReportPage::create(dir.path(), "ingest").unwrap();
        old.add(ReportWord::EventsIn, 5);
        let inode = fs::metadata(old.path()).unwrap().ino();
        let new = ReportPage::create(dir.path(), "ingest").unwrap();
        let meta = fs::metadata(new.path()).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, 0o600);
        assert_ne!(meta.ino(), inode);
        assert_eq!(new.get(ReportWord::EventsIn), 0);
        drop(old);
        assert!(new.path().exists(), "the old owner took the new file with it");
        drop(new);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let error = ReportPage::create(Path::new("/nonexistent/reports"), "x").unwrap_err().to_string();
        assert!(error.contains("/nonexistent/reports") && error.contains("create the directory"), "{error}");
    }

    proptest! {
        #[test]
        fn a_latency_lies_in_the_bucket_that_the_layout_names(ns in 0_u64..1 << 40) {
            let (i, units) = (bucket(Nanos(ns)) as u64, ns >> 10);
            if i < 8 {
                prop_assert_eq!(units, i);
            } else {
                let (octave, s) = (i / 8 - 1, i % 8);
                prop_assert!((8 + s) << octave <= units && units < (9 + s) << octave, "{ns} in {i}");
            }
        }
    }

    #[test]
    fn latencies_beyond_both_ends_are_counted_at_the_ends() {
        assert_eq!(bucket(Nanos(0)), 0);
        assert_eq!(bucket(Nanos(u64::MAX)), REPORT_HISTOGRAM_WORDS - 1);
    }
}
