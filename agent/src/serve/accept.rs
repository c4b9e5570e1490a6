//! The accept loop: connections in, each served within limits of time, size and number. Never waits for one of them.
//!
//! `axum::serve` has no limit on how long a request's head may take, and holds half-sent ones open for ever; so the loop
//! is ours, with hyper's own timer underneath.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tower::ServiceExt;

use crate::serve::groups::Groups;
use crate::serve::peer::Peer;
use crate::serve::problem::Refusal;
use crate::serve::wire::Guarded;
use crate::units::Uid;

/// How much of everything one caller, and all of them, may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a request's head.
    pub head_bytes: usize,
    /// Time for a request's head to arrive.
    pub head_time: Duration,
    /// Time an answer may be stuck because the caller does not read.
    pub stalled_write: Duration,
    /// Connections of all users.
    pub connections: usize,
    /// Of those, kept free for root: others cannot lock the operator out.
    pub kept_for_root: usize,
    /// Connections of one ordinary user.
    pub per_user: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 16 * 1024,
            head_time: Duration::from_secs(5),
            stalled_write: Duration::from_secs(30),
            connections: 256,
            kept_for_root: 16,
            per_user: 16,
        }
    }
}

/// How long to wait after a failed accept: descriptors have run out, and trying at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` on `listener` until dropped, to peers in `groups` more of it than to others. Must run inside a `LocalSet`.
pub async fn serve(listener: &UnixListener, router: Router, limits: Limits, groups: Groups) {
    let seats = Seats::default();
    loop {
        match listener.accept().await {
            Ok((stream, _unnamed)) => admit(stream, &router, (limits, groups), &seats),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn admit(stream: UnixStream, router: &Router, (limits, groups): (Limits, Groups), seats: &Seats) {
    let peer = match Peer::of(&stream, groups) {
        Ok(peer) => peer,
        Err(error) => {
            tracing::warn!(%error, "a peer's credentials could not be read");
            return;
        }
    };
    match seats.take(peer.uid, limits) {
        Ok(seat) => {
            let connection = connection(stream, peer, router.clone(), limits);
            tokio::task::spawn_local(async move {
                connection.await;
                drop(seat);
            });
        }
        Err(refusal) => {
            // Best effort: the answer fits an empty send buffer, and a caller who is gone needs none.
            if let Err(error) = stream.try_write(&refusal.to_wire()) {
                tracing::debug!(%error, "a refusal could not be sent");
            }
        }
    }
}

async fn connection(stream: UnixStream, peer: Peer, router: Router, limits: Limits) {
    let service = router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        request.map(axum::body::Body::new)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_header_size(limits.head_bytes)
        .max_buf_size(limits.head_bytes * 2)
        .serve_connection(Guarded::new(TokioIo::new(stream), limits.stalled_write), TowerToHyperService::new(service))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, uid = peer.uid.0, "a connection ended early");
    }
}

/// Who holds how many connections.
#[derive(Clone, Debug, Default)]
struct Seats(Rc<RefCell<HashMap<Uid, usize>>>);

/// One connection's place, given back when dropped.
struct Seat {
    seats: Seats,
    uid: Uid,
}

impl Seats {
    fn take(&self, uid: Uid, limits: Limits) -> Result<Seat, Refusal> {
        let mut taken = self.0.borrow_mut();
        let all: usize = taken.values().sum();
        let own = taken.get(&uid).copied().unwrap_or(0);
        let root = uid == Uid(0);
        let seats = if root { limits.connections } else { limits.connections.saturating_sub(limits.kept_for_root) };
        if !root && own >= limits.per_user {
            let detail = format!("user {} holds {own} connections, at most {} are allowed", uid.0, limits.per_user);
            let fix = "close connections that are no longer needed and try again";
            return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too-many-connections", detail, fix));
        }
        if all >= seats {
            let detail = format!("all {seats} connections are taken");
            return Err(Refusal::unavailable("no-connection-free", detail, "try again in a second"));
        }
        *taken.entry(uid).or_default() += 1;
        Ok(Seat { seats: self.clone(), uid })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.0.borrow_mut();
        if let Some(own) = taken.get_mut(&self.uid) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_user_cannot_take_more_than_his_share() {
        let (seats, limits) = (Seats::default(), Limits::default());
        let held: Vec<_> = (0..16).map(|_| seats.take(Uid(1000), limits).unwrap()).collect();
        let refusal = seats.take(Uid(1000), limits).err().expect("the seventeenth is refused");
        assert_eq!((refusal.status().as_u16(), refusal.retry_after()), (429, Some(1)));
        assert!(seats.take(Uid(1001), limits).is_ok(), "another user was refused");
        drop(held);
        assert!(seats.take(Uid(1000), limits).is_ok(), "places were not given back");
    }

    #[test]
    fn all_users_together_cannot_lock_root_out() {
        let (seats, limits) = (Seats::default(), Limits::default());
        let mut held = Vec::new();
        for uid in 1000..1100 {
            held.extend((0..16).map_while(|_| seats.take(Uid(uid), limits).ok()));
        }
        assert_eq!(held.len(), 240);
        held.extend((0..100).map_while(|_| seats.take(Uid(0), limits).ok()));
        assert_eq!(held.len(), 256);
        assert_eq!(seats.take(Uid(0), limits).err().map(|r| r.status().as_u16()), Some(503));
    }
}
