//! The connections to one peer: places that are empty, hold a resting connection, or have lent theirs out; and whether the
//! peer is known to be down. Never connects by itself.

use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};

use super::shards::{Padded, hint, seat, set_hint};
use crate::units::Nanos;

/// First pause before a peer that is down is tried again, and the longest.
const PAUSE_MIN: Nanos = Nanos::from_millis(100);
const PAUSE_MAX: Nanos = Nanos::from_millis(1_000);

/// One peer.
#[derive(Debug)]
pub(super) struct Peer<C> {
    places: Vec<Arc<Place<C>>>,
    pub(super) shared: Arc<Shared>,
}

/// What places and callers of a peer share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Turns of the checker so far.
    turn: Arc<AtomicU32>,
    /// 0 while the peer is up; then the time at which it is tried again.
    try_at: AtomicU64,
    pause: AtomicU64,
    /// Why it is down.
    cause: Mutex<Option<(io::ErrorKind, String)>>,
    waiting: AtomicUsize,
    sleep: Mutex<()>,
    freed: Condvar,
}

/// Room for one connection.
#[derive(Debug)]
pub(super) struct Place<C> {
    state: Padded<Mutex<State<C>>>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) enum State<C> {
    Empty,
    /// Rests since that turn of the checker.
    Rests(C, u32),
    Lent,
}

/// What a caller found.
pub(super) enum Found<C> {
    /// A resting connection, and the turn since which it rested.
    Resting(Arc<Place<C>>, C, u32),
    /// Room for a new one.
    Room(Arc<Place<C>>),
    /// All are lent.
    Nothing,
}

impl<C> Peer<C> {
    pub(super) fn new(places: usize, turn: &Arc<AtomicU32>) -> Self {
        let shared = Arc::new(Shared { turn: Arc::clone(turn), ..Shared::default() });
        let place = || Arc::new(Place { state: Padded(Mutex::new(State::Empty)), shared: Arc::clone(&shared) });
        Self { places: (0..places.max(1)).map(|_| place()).collect(), shared: Arc::clone(&shared) }
    }

    /// Looks for a connection, where this thread last found one first.
    #[inline]
    pub(super) fn find(&self) -> Found<C> {
        let first = hint();
        if let Some(found) = self.places.get(first).and_then(|place| rests(place)) {
            return found;
        }
        self.search()
    }

    #[cold]
    fn search(&self) -> Found<C> {
        let count = self.places.len();
        // From a place of the thread's own, so that threads settle on places apart.
        let order = || (0..count).map(|i| (seat() + i) % count);
        for i in order() {
            if let Some(found) = rests(&self.places[i]) {
                set_hint(i);
                return found;
            }
        }
        // What was locked may be a connection that the checker is just looking at: that is sooner over than another is made.
        for i in order() {
            if let Some(found) = take(&self.places[i], &mut self.places[i].lock()) {
                set_hint(i);
                return found;
            }
        }
        for i in order() {
            let mut state = self.places[i].lock();
            if matches!(*state, State::Empty) {
                *state = State::Lent;
                set_hint(i);
                return Found::Room(Arc::clone(&self.places[i]));
            }
        }
        Found::Nothing
    }

    /// Calls `look` with each connection that rests, and takes away those that it says so of.
    pub(super) fn weed(&self, mut is_bad: impl FnMut(&mut C, u32) -> bool) {
        for place in &self.places {
            // Whoever holds the lock is just lending or taking back: that connection is in use.
            let Ok(mut state) = place.state.0.try_lock() else { continue };
            if let State::Rests(connection, since) = &mut *state
                && is_bad(connection, *since)
            {
                *state = State::Empty;
            }
        }
    }

    /// Takes all resting connections away.
    pub(super) fn clear(&self) {
        self.weed(|_, _| true);
    }

    /// Lays a new connection into an empty place, if there is one.
    pub(super) fn lay(&self, connection: C, turn: u32) {
        for place in &self.places {
            let mut state = place.lock();
            if matches!(*state, State::Empty) {
                *state = State::Rests(connection, turn);
                drop(state);
                self.shared.tell();
                return;
            }
        }
    }

    /// Connections resting and lent.
    pub(super) fn count(&self) -> (usize, usize) {
        self.places.iter().fold((0, 0), |(resting, lent), place| match &*place.lock() {
            State::Empty => (resting, lent),
            State::Rests(..) => (resting + 1, lent),
            State::Lent => (resting, lent + 1),
        })
    }
}

/// The connection of a place, if it rests and nobody is at it.
#[inline]
fn rests<C>(place: &Arc<Place<C>>) -> Option<Found<C>> {
    match place.state.0.try_lock() {
        Ok(mut state) => take(place, &mut state),
        Err(TryLockError::Poisoned(poisoned)) => take(place, &mut poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

#[inline]
fn take<C>(place: &Arc<Place<C>>, state: &mut State<C>) -> Option<Found<C>> {
    match std::mem::replace(state, State::Lent) {
        State::Rests(connection, since) => Some(Found::Resting(Arc::clone(place), connection, since)),
        other => {
            *state = other;
            None
        }
    }
}

impl<C> Place<C> {
    fn lock(&self) -> MutexGuard<'_, State<C>> {
        // Every critical section leaves the state whole, so a poisoned lock is still good.
        self.state.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection back, or the room that a bad one leaves.
    #[inline]
    pub(super) fn give_back(&self, connection: Option<C>) {
        *self.lock() = match connection {
            Some(connection) => State::Rests(connection, self.shared.turn.load(Ordering::Relaxed)),
            None => State::Empty,
        };
        if self.shared.waiting.load(Ordering::SeqCst) > 0 {
            self.shared.tell();
        }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }
}

impl Shared {
    fn tell(&self) {
        // The lock makes sure that whoever has seen no place is asleep by now and hears it.
        drop(self.sleep.lock().unwrap_or_else(PoisonError::into_inner));
        self.freed.notify_one();
    }

    /// Waits until `find` finds something, or the time is up.
    pub(super) fn wait<T>(&self, within: std::time::Duration, mut find: impl FnMut() -> Option<T>) -> Option<T> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut found = find();
        if found.is_none() {
            let sleep = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
            let waited = self.freed.wait_timeout_while(sleep, within, |()| {
                found = find();
                found.is_none() && self.is_up()
            });
            drop(waited);
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        found
    }

    /// Whether the peer is not known to be down.
    #[inline]
    pub(super) fn is_up(&self) -> bool {
        self.try_at.load(Ordering::Acquire) == 0
    }

    /// Whether a peer that is down is due to be tried again.
    pub(super) fn is_due(&self, now: Nanos) -> bool {
        let at = self.try_at.load(Ordering::Acquire);
        at != 0 && now.0 >= at
    }

    /// The peer cannot be reached; it is tried again after a pause that grows.
    pub(super) fn set_down(&self, error: &io::Error, now: Nanos) {
        let pause = Nanos(self.pause.load(Ordering::Relaxed)).max(PAUSE_MIN);
        self.pause.store(Nanos(pause.0 * 2).min(PAUSE_MAX).0, Ordering::Relaxed);
        *self.cause.lock().unwrap_or_else(PoisonError::into_inner) = Some((error.kind(), error.to_string()));
        self.try_at.store((now + pause).0.max(1), Ordering::Release);
        drop(self.sleep.lock().unwrap_or_else(PoisonError::into_inner));
        self.freed.notify_all();
    }

    /// The peer answers.
    pub(super) fn set_up(&self) {
        self.pause.store(0, Ordering::Relaxed);
        self.try_at.store(0, Ordering::Release);
    }

    /// Why the peer is down, as an error.
    pub(super) fn cause(&self) -> io::Error {
        let cause = self.cause.lock().unwrap_or_else(PoisonError::into_inner);
        match &*cause {
            Some((kind, text)) => io::Error::new(*kind, text.clone()),
            None => io::Error::from(io::ErrorKind::NotConnected),
        }
    }
}
