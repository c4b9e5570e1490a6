//! Why a page could not be used: each names the file, what was found and what to do.

use std::io;
use std::path::{Path, PathBuf};

use crate::abi::PAGE_BYTES;

/// Why a page could not be used.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// A system call failed.
    #[error("{action} page {path}: {cause} ({})", remedy(cause))]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        cause: io::Error,
    },
    /// Not a plain file.
    #[error("page {path}: not a plain file (remove it, the agent creates the page anew)")]
    NotAFile {
        /// Which file.
        path: PathBuf,
    },
    /// Another size than a page has.
    #[error("page {path}: {found} bytes long, want {PAGE_BYTES} (remove it while no agent runs)")]
    Size {
        /// Which file.
        path: PathBuf,
        /// Its length in bytes.
        found: u64,
    },
    /// Not a settings page at all.
    #[error("page {path}: first word is {found:#018x}, no settings page (check the path, or remove the file)")]
    Magic {
        /// Which file.
        path: PathBuf,
        /// Its first word.
        found: u64,
    },
    /// A page of another version.
    #[error("page {path}: layout version {found}, this side speaks {wanted} (bring agent and client to one version)")]
    Version {
        /// Which file.
        path: PathBuf,
        /// The version on the page.
        found: u32,
        /// The version spoken here.
        wanted: u32,
    },
    /// A number of values that no page can hold.
    #[error("page {path}: {found} values, a page holds 1 to {room} (remove the file, the agent creates it anew)")]
    ValueCount {
        /// Which file.
        path: PathBuf,
        /// How many values there were.
        found: usize,
        /// How many fit.
        room: usize,
    },
    /// Another number of values than this page has.
    #[error(
        "page {path}: {found} values where {wanted} belong (remove the page while no agent runs, or register anew)"
    )]
    OtherValues {
        /// Which file.
        path: PathBuf,
        /// How many there were.
        found: usize,
        /// How many were wanted.
        wanted: usize,
    },
    /// Another process writes the page.
    #[error("page {path}: another writer holds it (stop the other agent, or give this one a directory of its own)")]
    InUse {
        /// Which file.
        path: PathBuf,
    },
}

impl PageError {
    pub(crate) fn io(action: &'static str, path: &Path, cause: io::Error) -> Self {
        Self::Io { action, path: path.into(), cause }
    }
}

fn remedy(error: &io::Error) -> &'static str {
    if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
        return "the page must not be a link: name the file itself";
    }
    match error.kind() {
        io::ErrorKind::NotFound => "create the directory, or check the path",
        io::ErrorKind::PermissionDenied => "run as the owner of the directory, or loosen its mode",
        io::ErrorKind::StorageFull => "free some room",
        _ => "see the cause",
    }
}
