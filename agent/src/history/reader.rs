//! Queries: a span in, what the database holds of it out, oldest first. Opens the file anew for each, so that a database
//! that was put aside meanwhile is not read on; never writes.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, params};

use super::{HistoryError, NoteKind};
use crate::profile::Packed;
use crate::units::{Nanos, ProfileKind};

/// Windows of one query: a day of one kind.
const MOST_WINDOWS: i64 = 8_640;
/// Notes of one query.
const MOST_NOTES: i64 = 10_000;

/// Reads the database.
#[derive(Clone, Debug)]
pub struct Reader {
    file: PathBuf,
    boot: String,
}

/// What is wanted, on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// First and last instant, monotonic clock of this boot.
    pub span: (Nanos, Nanos),
    /// The same on the wall clock, when the span reaches back before this boot.
    pub wall: Option<(Nanos, Nanos)>,
    /// Of this boot only what began before this.
    pub before: Nanos,
}

/// What a query found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Windows handed over.
    pub windows: u64,
    /// Windows that were damaged.
    pub damaged: u64,
    /// Whether there were more than a query takes: the oldest were left out.
    pub more: bool,
}

impl Reader {
    /// Of a database, in a boot.
    pub fn new(file: PathBuf, boot: String) -> Self {
        Self { file, boot }
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Hands every window of `kind` that touches the span to `visit`, with whether it is of this boot, oldest first.
    pub fn windows(
        &self,
        kind: ProfileKind,
        wish: &Wish,
        mut visit: impl FnMut(Packed, Placed),
    ) -> Result<Found, HistoryError> {
        const TEXT: &str = "
            SELECT packed, wall_ns, number = own FROM (
                SELECT packed, wall_ns, boot AS number, start_ns, (SELECT number FROM boots WHERE id = ?2) AS own
                FROM windows
                WHERE kind = ?1 AND (
                    boot = own AND start_ns < ?4 AND end_ns > ?3 AND start_ns < ?5
                    OR boot <> own AND wall_ns + (end_ns - start_ns) > ?6 AND wall_ns < ?7
                )
                ORDER BY boot DESC, start_ns DESC LIMIT ?8
            ) ORDER BY number, start_ns";
        let mut read = || -> rusqlite::Result<Found> {
            let database = self.open()?;
            let (from, to) = wish.span;
            let (wall_from, wall_to) = wish.wall.unwrap_or((Nanos::MAX, Nanos(0)));
            let mut query = database.prepare(TEXT)?;
            let [from, to, before, wall_from, wall_to] = [from, to, wish.before, wall_from, wall_to].map(signed);
            let mut rows =
                query.query(params![kind.name(), self.boot, from, to, before, wall_from, wall_to, MOST_WINDOWS])?;
            let mut found = Found::default();
            while let Some(row) = rows.next()? {
                let own: bool = row.get(2)?;
                let placed = if own {
                    Placed::Now
                } else {
                    Placed::Earlier { wall: Nanos(row.get::<_, i64>(1)?.unsigned_abs()) }
                };
                match Packed::from_bytes(row.get_ref(0)?.as_blob()?) {
                    Ok(window) => {
                        found.windows += 1;
                        visit(window, placed);
                    }
                    Err(_damaged) => found.damaged += 1,
                }
            }
            found.more = i64::try_from(found.windows + found.damaged).is_ok_and(|rows| rows >= MOST_WINDOWS);
            Ok(found)
        };
        read().map_err(|cause| self.failed(cause))
    }

    /// Lines about a pipeline in a span, oldest first: their times on the wall clock, and JSON.
    pub fn notes(&self, kind: NoteKind, pipeline: &str, wish: &Wish) -> Result<Vec<(Nanos, String)>, HistoryError> {
        const TEXT: &str = "
            SELECT wall_ns, json FROM (
                SELECT wall_ns, json, boot, at_ns, (SELECT number FROM boots WHERE id = ?3) AS own FROM notes
                WHERE what = ?1 AND pipeline = ?2 AND (
                    boot = own AND at_ns BETWEEN ?4 AND ?5 OR boot <> own AND wall_ns BETWEEN ?6 AND ?7
                )
                ORDER BY boot DESC, at_ns DESC LIMIT ?8
            ) ORDER BY boot, at_ns";
        let read = || -> rusqlite::Result<Vec<(Nanos, String)>> {
            let database = self.open()?;
            let (wall_from, wall_to) = wish.wall.unwrap_or((Nanos::MAX, Nanos(0)));
            let [from, to, wall_from, wall_to] = [wish.span.0, wish.span.1, wall_from, wall_to].map(signed);
            let mut query = database.prepare(TEXT)?;
            let row = params![kind.name(), pipeline, self.boot, from, to, wall_from, wall_to, MOST_NOTES];
            let rows = query.query_map(row, |row| Ok((Nanos(row.get::<_, i64>(0)?.unsigned_abs()), row.get(1)?)))?;
            rows.collect()
        };
        read().map_err(|cause| self.failed(cause))
    }

    fn open(&self) -> rusqlite::Result<Connection> {
        let flags =
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let database = Connection::open_with_flags(&self.file, flags)?;
        database.busy_timeout(std::time::Duration::from_secs(2))?;
        database.pragma_update(None, "trusted_schema", false)?;
        Ok(database)
    }

    fn failed(&self, cause: rusqlite::Error) -> HistoryError {
        HistoryError::Database { what: "read", file: self.file.clone(), cause }
    }
}

/// When a window was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// In this boot: its times are those of the clock.
    Now,
    /// In an earlier one: its times are of another clock, the wall clock tells when it began.
    Earlier {
        /// That time.
        wall: Nanos,
    },
}

fn signed(time: Nanos) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}
