//! How the history does: its thread writes it, the agent shows it. Plain numbers, never a promise.

use std::sync::{Arc, Mutex, PoisonError};

/// How the history does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Bytes of the database in use.
    pub bytes: u64,
    /// Windows in it.
    pub windows: u64,
    /// Records taken since the start.
    pub taken: u64,
    /// Records that did not get there, by cause.
    pub lost: LostRecords,
    /// Why it takes nothing just now.
    pub problem: Option<String>,
    /// What was put aside since the start, and why.
    pub put_aside: Option<String>,
}

/// Records that did not get into the history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LostRecords {
    /// Its thread was behind.
    pub queue_full: u64,
    /// The disk did not take them.
    pub not_written: u64,
    /// Found damaged when they were read.
    pub damaged: u64,
}

impl LostRecords {
    /// By cause.
    pub fn by_cause(&self) -> [(&'static str, u64); 3] {
        let Self { queue_full, not_written, damaged } = *self;
        [("queue_full", queue_full), ("not_written", not_written), ("damaged", damaged)]
    }
}

impl Status {
    /// What works less well, in words.
    pub fn degraded(&self) -> Vec<String> {
        self.problem.iter().chain(&self.put_aside).cloned().collect()
    }
}

/// The one copy of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared(Arc<Mutex<Status>>);

impl Shared {
    pub(super) fn change(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn read(&self) -> Status {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
