//! The database: records in, in whole transactions; the oldest out when there are too many. Knows tables and sizes, and
//! no clock: times come in with the records.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, Transaction, params};

use super::writer::{Note, Record};
use super::{HistoryError, Keeping, OPEN};
use crate::profile::Packed;
use crate::units::Nanos;

/// Version of the tables.
const VERSION: i64 = 1;
const TABLES: &str = "
    CREATE TABLE boots (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE);
    CREATE TABLE windows (
        id INTEGER PRIMARY KEY, boot INTEGER NOT NULL, kind TEXT NOT NULL,
        start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL, wall_ns INTEGER NOT NULL, packed BLOB NOT NULL
    );
    CREATE INDEX windows_by_time ON windows (kind, boot, start_ns);
    CREATE TABLE notes (
        id INTEGER PRIMARY KEY, boot INTEGER NOT NULL, what TEXT NOT NULL, pipeline TEXT NOT NULL,
        at_ns INTEGER NOT NULL, wall_ns INTEGER NOT NULL, json TEXT NOT NULL
    );
    CREATE INDEX notes_by_time ON notes (what, pipeline, boot, at_ns);
";
/// What is deleted at once when there is too much: a tenth.
const SHARE: i64 = 10;

/// An open database.
#[derive(Debug)]
pub struct Store {
    database: Connection,
    file: PathBuf,
    boot: i64,
    most_bytes: i64,
    longest: Nanos,
}

/// The time of a batch.
#[derive(Clone, Copy, Debug)]
pub struct When {
    /// Monotonic clock of this boot.
    pub now: Nanos,
    /// Wall clock, for people and for what an earlier boot left.
    pub wall: Nanos,
}

impl Store {
    /// Opens the database at `file`, or makes its tables. One that is damaged or of another version is an error.
    pub fn open(file: &Path, boot: &str, keeping: &Keeping) -> Result<Self, HistoryError> {
        let failed = |cause| HistoryError::Database { what: OPEN, file: file.to_owned(), cause };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let mut database = Connection::open_with_flags(file, flags).map_err(failed)?;
        let most_bytes = i64::try_from(keeping.most.0).unwrap_or(i64::MAX);
        prepare(&mut database, most_bytes).map_err(failed)?;
        let boot = number_of(&database, boot).map_err(failed)?;
        Ok(Self { database, file: file.to_owned(), boot, most_bytes, longest: keeping.longest })
    }

    /// Writes records, all of them or none, and makes room for the next.
    pub fn put(&mut self, records: &[Record], when: When) -> Result<(), HistoryError> {
        let Self { database, file, boot, most_bytes, longest } = self;
        let failed = |cause| HistoryError::Database { what: "write", file: file.clone(), cause };
        let mut write = || -> rusqlite::Result<()> {
            let transaction = database.transaction()?;
            for record in records {
                match record {
                    Record::Window(window) => put_window(&transaction, *boot, window, when)?,
                    Record::Note(note) => put_note(&transaction, *boot, note, when)?,
                }
            }
            forget_old(&transaction, *boot, *longest, when)?;
            make_room(&transaction, *most_bytes)?;
            transaction.commit()
        };
        write().map_err(failed)
    }

    /// Bytes in use, and windows.
    pub fn size(&self) -> Result<(u64, u64), HistoryError> {
        let failed = |cause| HistoryError::Database { what: "measure", file: self.file.clone(), cause };
        let bytes = used(&self.database).map_err(failed)?;
        let windows = self.database.query_row("SELECT count(*) FROM windows", [], |row| row.get::<_, i64>(0));
        let whole = |n: i64| u64::try_from(n).unwrap_or(0);
        Ok((whole(bytes), whole(windows.map_err(failed)?)))
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }
}

fn prepare(database: &mut Connection, most_bytes: i64) -> rusqlite::Result<()> {
    database.busy_timeout(std::time::Duration::from_secs(2))?;
    // A new file only: an old one keeps what it has.
    database.pragma_update(None, "auto_vacuum", "incremental")?;
    database.pragma_update(None, "journal_mode", "wal")?;
    // Whole after a crash of the agent at any moment; a crash of the host may cost the newest seconds.
    database.pragma_update(None, "synchronous", "normal")?;
    database.pragma_update(None, "cache_size", -1_024)?;
    database.pragma_update(None, "journal_size_limit", 4 << 20)?;
    database.pragma_update(None, "temp_store", "memory")?;
    // Whatever may be written in the file, it runs nothing.
    database.pragma_update(None, "trusted_schema", false)?;
    let healthy: String = database.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if healthy != "ok" {
        return Err(damaged(healthy));
    }
    let version: i64 = database.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let tables: i64 = database.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (version, tables) {
        (VERSION, _) => {}
        (0, 0) => {
            let transaction = database.transaction()?;
            transaction.execute_batch(TABLES)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
            transaction.commit()?;
        }
        (other, _) => return Err(damaged(format!("its version is {other}, this agent keeps {VERSION}"))),
    }
    let page: i64 = database.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    // A last line of defence, a quarter above the bound that is kept by deleting.
    let most_pages = (most_bytes / page.max(1)).saturating_mul(5) / 4;
    database.pragma_update(None, "max_page_count", most_pages.max(64))
}

fn damaged(why: String) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT), Some(why))
}

/// Boots are numbered in their order: the wall clock may jump, this does not.
fn number_of(database: &Connection, boot: &str) -> rusqlite::Result<i64> {
    database.execute("INSERT OR IGNORE INTO boots (id) VALUES (?1)", [boot])?;
    database.query_row("SELECT number FROM boots WHERE id = ?1", [boot], |row| row.get(0))
}

fn put_window(to: &Transaction<'_>, boot: i64, window: &Packed, when: When) -> rusqlite::Result<()> {
    let wall = when.wall.since(when.now.since(window.start()));
    let mut insert = to.prepare_cached(
        "INSERT INTO windows (boot, kind, start_ns, end_ns, wall_ns, packed) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    let (start, end) = (signed(window.start()), signed(window.end()));
    insert.execute(params![boot, window.kind().name(), start, end, signed(wall), window.bytes()]).map(drop)
}

fn put_note(to: &Transaction<'_>, boot: i64, note: &Note, when: When) -> rusqlite::Result<()> {
    let wall = when.wall.since(when.now.since(note.at));
    let mut insert = to.prepare_cached(
        "INSERT INTO notes (boot, what, pipeline, at_ns, wall_ns, json) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    let row = params![boot, note.kind.name(), note.pipeline, signed(note.at), signed(wall), note.json];
    insert.execute(row).map(drop)
}

/// Deletes what is too old: of this boot by its own clock; of earlier ones by the wall clock, which is all there is.
fn forget_old(from: &Transaction<'_>, boot: i64, longest: Nanos, when: When) -> rusqlite::Result<()> {
    let (oldest, oldest_wall) = (signed(when.now.since(longest)), signed(when.wall.since(longest)));
    for (table, time) in [("windows", "end_ns"), ("notes", "at_ns")] {
        let text = format!("DELETE FROM {table} WHERE boot = ?1 AND {time} < ?2 OR boot <> ?1 AND wall_ns < ?3");
        from.prepare_cached(&text)?.execute(params![boot, oldest, oldest_wall])?;
    }
    Ok(())
}

/// Deletes the oldest tenth until the rest fits.
fn make_room(from: &Transaction<'_>, most_bytes: i64) -> rusqlite::Result<()> {
    for _ in 0..2 * SHARE {
        if used(from)? <= most_bytes {
            break;
        }
        for table in ["windows", "notes"] {
            let rows: i64 = from.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?;
            let text = format!("DELETE FROM {table} WHERE id IN (SELECT id FROM {table} ORDER BY id LIMIT ?1)");
            from.prepare_cached(&text)?.execute([rows / SHARE + 1])?;
        }
    }
    // Pages that are free for long go back to the disk, some at a time.
    let free: i64 = from.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
    let pages: i64 = from.query_row("PRAGMA page_count", [], |row| row.get(0))?;
    if free > pages / 4 { from.execute_batch("PRAGMA incremental_vacuum(256)") } else { Ok(()) }
}

fn used(database: &Connection) -> rusqlite::Result<i64> {
    let ask = |what: &str| database.query_row(&format!("PRAGMA {what}"), [], |row| row.get::<_, i64>(0));
    Ok((ask("page_count")? - ask("freelist_count")?) * ask("page_size")?)
}

fn signed(time: Nanos) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}
