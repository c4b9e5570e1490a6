//! The door by which requests from the control socket enter the source: bounded, and it counts what it refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use crate::event::Input;

/// Requests that may wait.
pub const INBOX_CAPACITY: usize = 1024;

/// The sender's end; cheap to clone.
#[derive(Clone, Debug)]
pub struct InboxSender {
    tx: mpsc::Sender<Input>,
    refused: Arc<AtomicU64>,
}

/// The source's end.
#[derive(Debug)]
pub struct Inbox {
    rx: mpsc::Receiver<Input>,
}

/// The inbox is full: the request was not taken; try again.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the agent's inbox is full: try again in a second")]
pub struct InboxFull;

/// A connected pair.
pub fn inbox() -> (InboxSender, Inbox) {
    let (tx, rx) = mpsc::channel(INBOX_CAPACITY);
    (InboxSender { tx, refused: Arc::default() }, Inbox { rx })
}

impl InboxSender {
    /// Hands a request over, or says that there is no room.
    pub fn send(&self, input: Input) -> Result<(), InboxFull> {
        self.tx.try_send(input).map_err(|_full_or_closed| {
            self.refused.fetch_add(1, Ordering::Relaxed);
            InboxFull
        })
    }

    /// Requests refused so far.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Inbox {
    /// The next request, if one waits.
    pub fn try_next(&mut self) -> Option<Input> {
        self.rx.try_recv().ok()
    }

    /// Waits for a request; never returns when all senders are gone.
    pub async fn next(&mut self) -> Input {
        match self.rx.recv().await {
            Some(input) => input,
            None => std::future::pending().await,
        }
    }
}
