//! A pool of connections: an address goes in, a connection that is open comes out, and goes back when it is let go. Never
//! makes a caller wait for a peer that is known to be down.
//!
//! The fast path takes a read lock near the calling CPU, finds the peer, and takes the connection that the thread gave back
//! last: no system call, no cache line that another thread writes to. One thread looks at the connections that rest, every
//! half second; a second one tries peers that are down. A peer that stops answering is found within three seconds, and from
//! then on asking for it fails at once, until it answers again.

mod checker;
mod peer;
mod shards;
mod transport;

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub use transport::{Health, Tcp, Transport, Unix};

use peer::{Found, Peer, Place};
use shards::Shards;

use crate::clock;

/// A connection that has rested over so many turns of the checker is looked at before it is lent.
const TRUSTED_TURNS: u32 = 1;

/// How much, and how long.
#[derive(Clone, Copy, Debug)]
pub struct PoolOptions {
    /// Connections to one peer, at most.
    pub per_peer: usize,
    /// Time that a connect may take.
    pub connect_within: Duration,
    /// Time that a caller waits for a connection while all are lent.
    pub wait_within: Duration,
    /// Time between two looks at the connections that rest.
    pub check_every: Duration,
}

impl Default for PoolOptions {
    /// 32 a peer, a second for either wait, a look every half second.
    fn default() -> Self {
        Self {
            per_peer: 32,
            connect_within: Duration::from_secs(1),
            wait_within: Duration::from_secs(1),
            check_every: Duration::from_millis(500),
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The peer cannot be reached; it is tried again in the background.
    #[error("connect to {peer}: {cause} (it is tried again about once a second)")]
    Down {
        /// Which peer.
        peer: String,
        /// What the last attempt came to.
        cause: io::Error,
    },
    /// All connections are lent.
    #[error("connections to {peer}: all {limit} are in use (give them back sooner, or raise per_peer)")]
    AllInUse {
        /// Which peer.
        peer: String,
        /// How many there may be.
        limit: usize,
    },
}

/// What a pool has of one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Connections that rest.
    pub resting: usize,
    /// Connections that are lent.
    pub lent: usize,
    /// Whether it answers, as far as is known.
    pub reach: Reach,
}

/// Whether a peer answers, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It does.
    Up,
    /// It does not.
    Down,
}

/// A pool; a clone is a further handle on the same one.
pub struct Pool<T: Transport> {
    inner: Arc<Inner<T>>,
}

struct Inner<T: Transport> {
    transport: T,
    options: PoolOptions,
    peers: Shards<T::Address, Peer<T::Connection>>,
    /// Turns of the checker so far.
    turn: Arc<AtomicU32>,
}

/// A connection on loan: it goes back to the pool when it is dropped.
pub struct Pooled<C> {
    /// Absent once it has been discarded.
    connection: Option<C>,
    place: Arc<Place<C>>,
}

impl<T: Transport> Pool<T> {
    /// A pool without connections. Its two threads end with the last handle.
    pub fn new(transport: T, options: PoolOptions) -> io::Result<Self> {
        let inner = Arc::new(Inner { transport, options, peers: Shards::new(), turn: Arc::default() });
        checker::start(&inner)?;
        Ok(Self { inner })
    }

    /// A connection to `to`: one that rests, or a new one.
    #[inline]
    pub fn get(&self, to: &T::Address) -> Result<Pooled<T::Connection>, PoolError> {
        let inner = &self.inner;
        let found = inner.peers.look(to, |peer| peer.shared.is_up().then(|| peer.find()));
        match found {
            Some(Some(Found::Resting(place, connection, since)))
                if inner.turn.load(Ordering::Relaxed).wrapping_sub(since) <= TRUSTED_TURNS =>
            {
                Ok(Pooled { connection: Some(connection), place })
            }
            other => inner.get_slowly(to, other.flatten()),
        }
    }

    /// What the pool has of each peer.
    pub fn status(&self) -> Vec<(T::Address, PeerStatus)> {
        let status = |peer: &Peer<T::Connection>| {
            let (resting, lent) = peer.count();
            PeerStatus { resting, lent, reach: if peer.shared.is_up() { Reach::Up } else { Reach::Down } }
        };
        self.inner.peers.all().into_iter().map(|(address, peer)| (address, status(&peer))).collect()
    }
}

impl<T: Transport> Inner<T> {
    #[cold]
    #[inline(never)]
    fn get_slowly(
        &self,
        to: &T::Address,
        mut found: Option<Found<T::Connection>>,
    ) -> Result<Pooled<T::Connection>, PoolError> {
        let peer = self.peers.get_or_insert(to, || Peer::new(self.options.per_peer, &self.turn));
        loop {
            if !peer.shared.is_up() {
                if let Some(Found::Resting(place, ..) | Found::Room(place)) = found {
                    place.give_back(None);
                }
                return Err(PoolError::Down { peer: format!("{to:?}"), cause: peer.shared.cause() });
            }
            match found.take().unwrap_or_else(|| peer.find()) {
                Found::Resting(place, mut connection, _) => match self.transport.check(&mut connection) {
                    Health::Open => return Ok(Pooled { connection: Some(connection), place }),
                    Health::Closed | Health::Unreachable => place.give_back(None),
                },
                Found::Room(place) => return self.connect(to, place),
                Found::Nothing => {
                    let wanted = || match peer.find() {
                        Found::Nothing => None,
                        other => Some(other),
                    };
                    found = peer.shared.wait(self.options.wait_within, wanted);
                    if found.is_none() && peer.shared.is_up() {
                        return Err(PoolError::AllInUse { peer: format!("{to:?}"), limit: self.options.per_peer });
                    }
                }
            }
        }
    }

    fn connect(&self, to: &T::Address, place: Arc<Place<T::Connection>>) -> Result<Pooled<T::Connection>, PoolError> {
        match self.transport.connect(to, self.options.connect_within) {
            Ok(connection) => Ok(Pooled { connection: Some(connection), place }),
            Err(cause) => {
                place.shared().set_down(&cause, clock::monotonic());
                place.give_back(None);
                Err(PoolError::Down { peer: format!("{to:?}"), cause })
            }
        }
    }
}

impl<C> Pooled<C> {
    /// Ends the connection instead of giving it back: after an error nobody knows where in its protocol it stands.
    pub fn discard(mut self) {
        self.connection = None;
    }
}

impl<C> Deref for Pooled<C> {
    type Target = C;
    fn deref(&self) -> &C {
        self.connection.as_ref().expect("only `discard` takes it out, and that consumes the loan")
    }
}

impl<C> DerefMut for Pooled<C> {
    fn deref_mut(&mut self) -> &mut C {
        self.connection.as_mut().expect("only `discard` takes it out, and that consumes the loan")
    }
}

impl<C> Drop for Pooled<C> {
    fn drop(&mut self) {
        self.place.give_back(self.connection.take());
    }
}

impl<T: Transport> Clone for Pool<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<T: Transport> fmt::Debug for Pool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("peers", &self.status()).finish()
    }
}

impl<C: fmt::Debug> fmt::Debug for Pooled<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pooled").field(&self.connection).finish()
    }
}
