//! The two threads of a pool: one looks at connections that rest, one tries peers that are down. They hold the pool only
//! while they work, so that it ends with its last handle.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use super::transport::Health;
use super::{Inner, Transport};
use crate::clock;

/// A peer that is down is looked at so often for whether it is due.
const TRY_EVERY: Duration = Duration::from_millis(250);

/// Starts both.
pub(super) fn start<T: Transport>(inner: &Arc<Inner<T>>) -> io::Result<()> {
    let check_every = inner.options.check_every;
    run("tidegate-pool", check_every, inner, Inner::check)?;
    run("tidegate-probe", check_every.min(TRY_EVERY), inner, Inner::try_again)
}

fn run<T: Transport>(name: &str, every: Duration, inner: &Arc<Inner<T>>, work: fn(&Inner<T>)) -> io::Result<()> {
    let pool: Weak<Inner<T>> = Arc::downgrade(inner);
    let turns = move || {
        loop {
            thread::park_timeout(every);
            match pool.upgrade() {
                Some(inner) => work(&inner),
                None => return,
            }
        }
    };
    thread::Builder::new().name(name.into()).spawn(turns).map(drop)
}

impl<T: Transport> Inner<T> {
    /// Looks at every connection that rests. A peer of which one was found unreachable is down; the others go with it.
    fn check(&self) {
        self.turn.fetch_add(1, Ordering::Relaxed);
        for (_, peer) in self.peers.all() {
            let mut unreachable = false;
            peer.weed(|connection, _| match self.transport.check(connection) {
                Health::Open => false,
                Health::Closed => true,
                Health::Unreachable => {
                    unreachable = true;
                    true
                }
            });
            if unreachable {
                peer.shared.set_down(&io::Error::from(io::ErrorKind::TimedOut), clock::monotonic());
                peer.clear();
            }
        }
    }

    /// Connects to each peer that is down and due.
    fn try_again(&self) {
        for (address, peer) in self.peers.all() {
            if !peer.shared.is_due(clock::monotonic()) {
                continue;
            }
            match self.transport.connect(&address, self.options.connect_within) {
                Ok(connection) => {
                    peer.shared.set_up();
                    peer.lay(connection, self.turn.load(Ordering::Relaxed));
                }
                Err(error) => peer.shared.set_down(&error, clock::monotonic()),
            }
        }
    }
}
