//! Profiles, signals and decisions of the past in a bounded database: packed windows and notes in, those of a span out.
//! Its thread writes and nobody waits for it. It never ends the agent: what cannot be kept is counted and told.

mod directory;
mod reader;
mod status;
mod store;
mod writer;

use std::path::PathBuf;

pub use reader::{Found, Placed, Reader, Wish};
pub use status::{LostRecords, Status};
pub use store::{Store, When};
pub use writer::{History, Note, NoteKind, Record, database_in};

use crate::units::{Bytes, Nanos};

/// Where the history is and how much of it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keeping {
    /// The state directory: the agent's own, made when it is missing.
    pub directory: PathBuf,
    /// Most bytes of the database.
    pub most: Bytes,
    /// Longest age of what is in it.
    pub longest: Nanos,
}

/// Why the history cannot be had, or could not take something.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The directory is not as it must be.
    #[error("history: {directory}: {cause} (name another with `state = \"…\"` in the configuration)")]
    Directory {
        /// Which.
        directory: PathBuf,
        /// What is wrong with it, and what to do.
        cause: String,
    },
    /// The database failed.
    #[error("history: {what} {file}: {cause}{}", remedy(.cause))]
    Database {
        /// What was tried.
        what: &'static str,
        /// Which file.
        file: PathBuf,
        /// Why it failed.
        cause: rusqlite::Error,
    },
}

impl HistoryError {
    /// Whether the file is damaged, rather than the disk full or gone.
    pub fn is_damage(&self) -> bool {
        use rusqlite::ErrorCode as Code;
        let Self::Database { what, cause, .. } = self else { return false };
        match cause.sqlite_error_code() {
            Some(
                Code::DiskFull
                | Code::SystemIoFailure
                | Code::CannotOpen
                | Code::PermissionDenied
                | Code::OutOfMemory
                | Code::DatabaseBusy
                | Code::DatabaseLocked
                | Code::FileLockingProtocolFailed,
            ) => false,
            // A head that asks for another version of the file format, a table that is not there, a column of another
            // type: it is not what was written. On a disk that is read-only it cannot be put aside, and stays.
            Some(
                Code::DatabaseCorrupt
                | Code::NotADatabase
                | Code::ReadOnly
                | Code::TypeMismatch
                | Code::Unknown
                | Code::TooBig,
            )
            | None => true,
            Some(_) => *what == OPEN,
        }
    }
}

/// What was tried when a database was opened.
const OPEN: &str = "open";

fn remedy(cause: &rusqlite::Error) -> &'static str {
    match cause.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => " (free room on that disk; it goes on by itself)",
        Some(rusqlite::ErrorCode::SystemIoFailure) => " (see the kernel's log for that disk; it goes on by itself)",
        Some(
            rusqlite::ErrorCode::ReadOnly | rusqlite::ErrorCode::CannotOpen | rusqlite::ErrorCode::PermissionDenied,
        ) => " (the agent's user must be able to write there)",
        _ => "",
    }
}
