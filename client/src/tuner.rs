//! A pipeline's side of the tuning: a registration goes in, settings and a status come out at any time. Never blocks and
//! never fails the pipeline: a thread of its own talks to the agent, and tries again for ever when there is none.
//!
//! The reading side and the talking side share little: the page in use, and an epoch that the thread raises when the page
//! or the lease's phase has changed. A reader that finds the epoch unchanged needs nothing but the page. It also asks the
//! clock itself every 64th time, so a lease ends even if the thread is starved.

mod status;
mod talk;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::{io, thread};

pub use status::{Contact, State, Status};

use crate::abi::{KnobRange, Registration};
use crate::clock;
use crate::contact::default_socket;
use crate::lease::{Lease, Phase};
use crate::page::PageReader;
use crate::rule::Settings;
use crate::settings::{Reading, SettingsReader, ValueOrder};
use crate::units::Nanos;

/// Why a registration cannot be tried at all.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// A name that the agent would refuse.
    #[error("pipeline name {0:?}: want 1 to 64 of a-z A-Z 0-9 . _ -, not starting with a dot")]
    Name(String),
    /// Bounds that contradict each other.
    #[error("knob {knob}: min {min}, default {default}, max {max} (want 1 <= min <= default <= max)")]
    Bounds {
        /// Which knob.
        knob: &'static str,
        /// Its lower bound.
        min: u64,
        /// Its own value.
        default: u64,
        /// Its upper bound.
        max: u64,
    },
    /// A lease of no length.
    #[error("lease ttl_ms: 0 (want at least 1, usually 10000)")]
    Lease,
    /// The thread could not be started.
    #[error("start thread tidegate-tuner: {0} (raise the limit on processes)")]
    Thread(io::Error),
}

/// Settings for one thread; a clone is a further handle on the same registration.
#[derive(Clone, Debug)]
pub struct Tuner {
    reader: SettingsReader,
    epoch: u64,
    owner: Arc<Owner>,
}

/// What the handles share with the thread.
#[derive(Debug)]
struct Shared {
    name: String,
    registration: Registration,
    socket: PathBuf,
    lease: Lease,
    epoch: AtomicU64,
    talk: Mutex<Talk>,
    wake: Condvar,
}

/// What the thread knows.
#[derive(Debug)]
struct Talk {
    page: Option<(Arc<PageReader>, ValueOrder)>,
    contact: Contact,
    ended: Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    No,
    Yes,
}

/// Ends the thread with the last handle.
#[derive(Debug)]
struct Owner(Arc<Shared>);

impl Drop for Owner {
    /// The agent is told nothing: it sees the process end, and until then the lease says what holds.
    fn drop(&mut self) {
        self.0.lock().ended = Ended::Yes;
        self.0.wake.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Talk> {
        // Every critical section leaves the state whole, so a poisoned lock is still good.
        self.talk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn raise_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::Release);
    }
}

impl Tuner {
    /// Registers `name` with the agent at `TIDEGATE_SOCKET` or the usual place, in the background.
    pub fn register(name: &str, registration: Registration) -> Result<Self, RegisterError> {
        Self::register_at(default_socket(), name, registration)
    }

    /// Registers `name` with the agent at `socket`, in the background.
    pub fn register_at(socket: PathBuf, name: &str, registration: Registration) -> Result<Self, RegisterError> {
        check(name, &registration)?;
        let shared = Arc::new(Shared {
            name: name.into(),
            lease: Lease::new(registration.lease),
            socket,
            epoch: AtomicU64::new(0),
            talk: Mutex::new(Talk { page: None, contact: Contact::Starting, ended: Ended::No }),
            wake: Condvar::new(),
            registration,
        });
        let reader = SettingsReader::new(shared.registration.knobs, shared.registration.lease);
        let of_thread = Arc::clone(&shared);
        thread::Builder::new()
            .name("tidegate-tuner".into())
            .spawn(move || talk::run(&of_thread))
            .map_err(RegisterError::Thread)?;
        Ok(Self { reader, epoch: 0, owner: Arc::new(Owner(shared)) })
    }

    /// Settings to run by now; a few nanoseconds, for every event.
    #[inline]
    pub fn settings(&mut self) -> Settings {
        self.read().settings
    }

    /// As [`Tuner::settings`], with the generation and whose settings they are.
    #[inline]
    pub fn read(&mut self) -> Reading {
        let epoch = self.owner.0.epoch.load(Ordering::Acquire);
        if epoch != self.epoch {
            self.epoch = epoch;
            self.look_again();
        }
        self.reader.read()
    }

    /// The registration as it was made.
    pub fn registration(&self) -> &Registration {
        &self.owner.0.registration
    }

    /// Where the tuning stands, for a log line or a health page.
    pub fn status(&self) -> Status {
        let (page, contact) = {
            let talk = self.owner.0.lock();
            (talk.page.clone(), talk.contact.clone())
        };
        let snapshot = page.and_then(|(page, _)| page.read()).unwrap_or_default();
        let phase = self.owner.0.lease.phase(Nanos(snapshot.expires_boottime_ns), clock::boottime());
        let (state, generation) = match phase {
            Phase::Live => (State::Connected, snapshot.generation),
            Phase::Held => (State::Held, snapshot.generation),
            Phase::Own => (State::Default, 0),
        };
        Status { state, generation, contact }
    }

    #[cold]
    fn look_again(&mut self) {
        let page = self.owner.0.lock().page.clone();
        self.reader.set_page(page);
    }
}

/// Refuses here what the agent would refuse, where the programmer sees it.
fn check(name: &str, registration: &Registration) -> Result<(), RegisterError> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if !(1..=64).contains(&name.len()) || name.starts_with('.') || !name.bytes().all(good) {
        return Err(RegisterError::Name(name.into()));
    }
    let Registration { knobs, lease, .. } = registration;
    for (knob, KnobRange { min, max, default }) in
        [("batch_bytes", knobs.batch_bytes), ("flush_interval_us", knobs.flush_interval_us)]
    {
        if !(1 <= min && min <= default && default <= max) {
            return Err(RegisterError::Bounds { knob, min, default, max });
        }
    }
    if lease.ttl_ms == 0 { Err(RegisterError::Lease) } else { Ok(()) }
}
